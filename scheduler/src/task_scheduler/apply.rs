//! Makes a plan durable, in the transaction that holds the run's lock.

use gust_model::{
    CallbackId, Epoch, TaskInstanceState,
    dag::Dag,
    record::{Callback, CallbackState, DagRecord, DagRun, Timestamp},
};
use gust_planner::{InstanceChange, Plan, RunCallback, RunEnd, should_pause};
use gust_ports::{
    Ids, MetastoreError, Tx,
    metastore::{
        DagRunPatch, Guard, LeasePatch, LockWait, TaskInstanceFilter, TaskInstancePatch, TaskInstanceWrite,
    },
};
use serde_json::json;

use crate::SchedulerError;

/// Writes all that a plan decided. A row that somebody else wrote since it was read makes the whole pass void.
pub(super) async fn apply(
    tx: &mut dyn Tx,
    ids: &dyn Ids,
    dag: &Dag,
    run: &DagRun,
    plan: &Plan,
    now: Timestamp,
) -> Result<(), SchedulerError> {
    let writes: Vec<_> = plan.changes.iter().map(write).collect();
    let written = tx.update_task_instances(&writes).await?;
    if written.len() != writes.len() {
        return Err(MetastoreError::Conflict(format!(
            "a task instance of run {} was written meanwhile",
            run.run_id
        ))
        .into());
    }
    if !plan.deletes.is_empty() {
        tx.delete_task_instances(&plan.deletes).await?;
    }
    if !plan.inserts.is_empty() {
        tx.insert_task_instances(&plan.inserts).await?;
    }
    if !plan.tallies.is_empty() {
        tx.put_tallies(&plan.tallies).await?;
    }
    for trigger in &plan.triggers {
        tx.insert_trigger(trigger).await?;
    }
    tx.update_dag_run(run.id, &run_patch(plan)).await?;
    if let Some(callback) = &plan.callback {
        queue_callback(tx, ids, dag, run, callback, now).await?;
    }
    if !plan.wakes_in_next_run.is_empty() {
        wake_next_run(tx, run, plan).await?;
    }
    if plan.checks_consecutive_failures {
        pause_after_failures(tx, run).await?;
    }
    Ok(())
}

fn write(change: &InstanceChange) -> TaskInstanceWrite {
    let resume = change.resume.clone();
    let patch = TaskInstancePatch {
        state: Some(change.state),
        accounted_state: Some(change.state),
        is_dirty: Some(false),
        map_index: change.map_index,
        try_number: change.try_number,
        next_epoch: change.takes_back,
        lease: if change.takes_back { LeasePatch::End } else { LeasePatch::Keep },
        resend_at: change.takes_back.then_some(None),
        scheduled_at: change.scheduled_at.map(Some),
        start_date: change.start_date.map(Some),
        end_date: change.end_date.map(Some),
        due_at: change.due_at,
        trigger_id: change.trigger_id.map(Some),
        next_method: resume.as_ref().map(|(method, _)| Some(method.clone())),
        next_kwargs: resume.map(|(_, kwargs)| kwargs),
        dag_version_id: change.dag_version_id,
        ..TaskInstancePatch::default()
    };
    TaskInstanceWrite { id: change.id, guard: Guard::ChangeSeq(change.change_seq), patch }
}

fn run_patch(plan: &Plan) -> DagRunPatch {
    DagRunPatch {
        state: Some(plan.run.state),
        start_date: Some(plan.run.start_date),
        end_date: Some(plan.run.end_date),
        unfinished_count: Some(plan.run.unfinished_count),
        under_way_count: Some(plan.run.under_way_count),
        is_expanded: Some(plan.run.is_expanded),
        is_dirty: Some(plan.run.is_dirty),
        due_at: Some(plan.run.due_at),
        last_scheduling_decision: plan.run.last_scheduling_decision,
        ..DagRunPatch::default()
    }
}

/// Queues the DAG's own callback; the worker that runs it adds the context (`DagRunContext`) that it reads then.
async fn queue_callback(
    tx: &mut dyn Tx,
    ids: &dyn Ids,
    dag: &Dag,
    run: &DagRun,
    callback: &RunCallback,
    now: Timestamp,
) -> Result<(), SchedulerError> {
    let missing =
        || SchedulerError::MissingVersion { dag_id: run.dag_id.clone(), version: run.dag_version_id };
    let version = tx.dag_version(run.dag_version_id).await?.ok_or_else(missing)?;
    let record: Option<DagRecord> = tx.dag(&run.dag_id).await?;
    let relative_fileloc = dag
        .relative_fileloc
        .clone()
        .or_else(|| record.map(|record| record.relative_fileloc))
        .unwrap_or_default();
    let request = json!({
        "type": "DagCallbackRequest",
        "filepath": relative_fileloc,
        "bundle_name": version.bundle_name,
        "bundle_version": run.bundle_version,
        "msg": callback.end.as_str(),
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "is_failure_callback": callback.end != RunEnd::Success,
    });
    tx.insert_callback(&Callback {
        id: CallbackId(ids.fresh()),
        state: CallbackState::Queued,
        bundle_name: version.bundle_name,
        bundle_version: run.bundle_version.clone(),
        relative_fileloc,
        dag_id: run.dag_id.clone(),
        run_id: run.run_id.clone(),
        task_instance_id: callback.relevant.as_ref().map(|task_instance| task_instance.id),
        request,
        created_at: now,
        epoch: Epoch(0),
        lease: None,
        error: None,
    })
    .await?;
    Ok(())
}

/// Has the following run look again at tasks that waited for this one's.
async fn wake_next_run(tx: &mut dyn Tx, run: &DagRun, plan: &Plan) -> Result<(), SchedulerError> {
    let Some(date) = run.logical_date else { return Ok(()) };
    let Some(next) = tx.following_dag_run(&run.dag_id, date).await? else { return Ok(()) };
    // A pass of that run may be reading what this one is about to commit: once it is done, its rows are there to be
    // marked, and not before.
    let Some(next) = tx.lock_dag_run(next.id, LockWait::Wait).await? else { return Ok(()) };
    let filter = TaskInstanceFilter {
        dag_run_ids: vec![next.id],
        task_ids: plan.wakes_in_next_run.clone(),
        states: vec![TaskInstanceState::None],
        ..TaskInstanceFilter::default()
    };
    let waiting = tx.task_instances(&filter, &gust_ports::metastore::Page::first(u32::MAX)).await?.items;
    let writes: Vec<_> = waiting
        .iter()
        .map(|task_instance| TaskInstanceWrite {
            id: task_instance.id,
            guard: Guard::State(TaskInstanceState::None),
            patch: TaskInstancePatch { is_dirty: Some(true), ..TaskInstancePatch::default() },
        })
        .collect();
    tx.update_task_instances(&writes).await?;
    Ok(())
}

/// Pauses a DAG whose last runs all failed, if its author set how many are too many.
async fn pause_after_failures(tx: &mut dyn Tx, run: &DagRun) -> Result<(), SchedulerError> {
    let Some(record) = tx.dag(&run.dag_id).await? else { return Ok(()) };
    let Ok(limit) = u32::try_from(record.max_consecutive_failed_dag_runs) else { return Ok(()) };
    if limit == 0 {
        return Ok(());
    }
    let states = tx.last_finished_states(&run.dag_id, limit).await?;
    if should_pause(&states, limit) && tx.set_dag_paused(&run.dag_id, true).await? {
        tracing::warn!(dag_id = %run.dag_id, limit, "paused: its last runs all failed");
    }
    Ok(())
}

/// Locks a run for a pass, leaving one that another scheduler holds to it.
pub(super) async fn lock(
    tx: &mut dyn Tx,
    id: gust_model::DagRunId,
) -> Result<Option<DagRun>, MetastoreError> {
    tx.lock_dag_run(id, LockWait::SkipLocked).await
}
