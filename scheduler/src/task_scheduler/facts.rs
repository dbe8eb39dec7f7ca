//! Reads, in bulk, the facts that the planner asks for.

use std::collections::BTreeSet;

use gust_model::{
    DagRunType, TaskId, TaskInstanceState,
    record::{DagRun, TaskInstance, XComKey},
};
use gust_planner::{FactReply, FactRequest, InstanceSelection, PreviousRunReply, PreviousRunRequest};
use gust_ports::{
    MetastoreError, Tx,
    metastore::{Direction, Page, TaskInstanceFilter, TaskInstanceSort, TimeRange},
};

/// Answers one request about `run`, in the transaction that holds its lock.
pub(super) async fn load(
    tx: &mut dyn Tx,
    run: &DagRun,
    request: &FactRequest,
) -> Result<FactReply, MetastoreError> {
    let mut reply = FactReply::default();
    if request.all_tallies {
        reply.tallies = tx.tallies(run.id, &[]).await?;
    } else if !request.tally_task_ids.is_empty() {
        reply.tallies = tx.tallies(run.id, &list(&request.tally_task_ids)).await?;
    }
    if request.all_instances {
        reply.instances = tx.task_instances_of(run.id, &[]).await?;
    } else {
        reply.instances = instances(tx, run, request).await?;
    }
    if !request.map_length_task_ids.is_empty() {
        let lengths = tx.map_lengths(run.id, &list(&request.map_length_task_ids)).await?;
        reply.map_lengths = lengths
            .into_iter()
            .filter(|(_, map_index, _)| !map_index.is_mapped())
            .map(|(task_id, _, length)| (task_id, length))
            .collect();
    }
    for task_id in &request.return_value_count_task_ids {
        let count = tx.xcom_count(run.id, task_id, RETURN_VALUE).await?;
        reply.return_value_counts.push((task_id.clone(), count));
    }
    for (task_id, map_index) in &request.skip_xcoms {
        let key = XComKey {
            dag_run_id: run.id,
            task_id: task_id.clone(),
            map_index: *map_index,
            key: FactRequest::SKIP_KEY.to_owned(),
        };
        if let Some(xcom) = tx.xcom(&key).await? {
            reply.skip_xcoms.push((task_id.clone(), *map_index, xcom.value));
        }
    }
    if let Some(previous) = &request.previous_run {
        reply.previous_run = Some(previous_run(tx, run, previous).await?);
    }
    if let Some(state) = request.latest_ended {
        reply.latest_ended = latest_ended(tx, run, state).await?;
    }
    Ok(reply)
}

const RETURN_VALUE: &str = "return_value";

fn list(task_ids: &BTreeSet<TaskId>) -> Vec<TaskId> {
    task_ids.iter().cloned().collect()
}

/// The instances asked for, in one statement for each kind of selection rather than one a task.
async fn instances(
    tx: &mut dyn Tx,
    run: &DagRun,
    request: &FactRequest,
) -> Result<Vec<TaskInstance>, MetastoreError> {
    let (mut all, mut undecided, mut at_indexes) = (Vec::new(), Vec::new(), Vec::new());
    let mut map_indexes = BTreeSet::new();
    for (task_id, selection) in &request.instances {
        match selection {
            InstanceSelection::All => all.push(task_id.clone()),
            InstanceSelection::Undecided => undecided.push(task_id.clone()),
            InstanceSelection::Indexes(wanted) => {
                at_indexes.push(task_id.clone());
                map_indexes.extend(wanted.iter().copied());
            }
        }
    }
    let mut found = Vec::new();
    if !all.is_empty() {
        found.extend(tx.task_instances_of(run.id, &all).await?);
    }
    if !undecided.is_empty() {
        let filter = TaskInstanceFilter {
            dag_run_ids: vec![run.id],
            task_ids: undecided,
            states: vec![TaskInstanceState::None],
            ..TaskInstanceFilter::default()
        };
        found.extend(tx.task_instances(&filter, &Page::first(u32::MAX)).await?.items);
    }
    if !at_indexes.is_empty() {
        let filter = TaskInstanceFilter {
            dag_run_ids: vec![run.id],
            task_ids: at_indexes,
            map_indexes: map_indexes.into_iter().collect(),
            ..TaskInstanceFilter::default()
        };
        found.extend(tx.task_instances(&filter, &Page::first(u32::MAX)).await?.items);
    }
    Ok(found)
}

async fn previous_run(
    tx: &mut dyn Tx,
    run: &DagRun,
    request: &PreviousRunRequest,
) -> Result<PreviousRunReply, MetastoreError> {
    let mut reply = PreviousRunReply::default();
    let mut before = request.before;
    let mut previous = tx.previous_dag_run(&run.dag_id, before, &[]).await?;
    while let Some(found) = &previous
        && request.is_automated_only
        && !matches!(found.run_type, DagRunType::Scheduled | DagRunType::Backfill)
    {
        let Some(date) = found.logical_date else { break };
        before = date;
        previous = tx.previous_dag_run(&run.dag_id, before, &[]).await?;
    }
    if let Some(backfill_id) = run.backfill_id {
        reply.is_first_of_backfill =
            previous.as_ref().is_none_or(|found| found.backfill_id != Some(backfill_id));
    }
    if let Some(found) = &previous {
        reply.tallies = tx.tallies(found.id, &list(&request.tally_task_ids)).await?;
    }
    for task_id in &request.history_task_ids {
        let filter = TaskInstanceFilter {
            dag_ids: vec![run.dag_id.clone()],
            task_ids: vec![task_id.clone()],
            logical_date: TimeRange { lt: Some(request.before), ..TimeRange::default() },
            ..TaskInstanceFilter::default()
        };
        if tx.task_instances(&filter, &Page::first(1)).await?.total > 0 {
            reply.tasks_with_history.insert(task_id.clone());
        }
    }
    reply.run = previous;
    Ok(reply)
}

async fn latest_ended(
    tx: &mut dyn Tx,
    run: &DagRun,
    state: TaskInstanceState,
) -> Result<Option<TaskInstance>, MetastoreError> {
    let filter = TaskInstanceFilter {
        dag_run_ids: vec![run.id],
        states: vec![state],
        ..TaskInstanceFilter::default()
    };
    let page = Page { limit: 1, offset: 0, sort: vec![(TaskInstanceSort::EndDate, Direction::Descending)] };
    Ok(tx.task_instances(&filter, &page).await?.items.into_iter().next())
}
