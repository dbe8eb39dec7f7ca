//! Which runs and which tasks an operation touches.

use std::collections::{BTreeMap, BTreeSet};

use gust_model::{
    DagId, MapIndex, TaskId,
    dag::{Dag, TaskIndex},
    record::{DagRun, TaskInstance, Timestamp},
};
use gust_planner::{ClearRelatives, tasks_to_clear};
use gust_ports::{
    Tx,
    metastore::{DagRunFilter, DagRunSort, Direction, Page, TimeRange},
};
use gust_timetable::Timetable;

use crate::OperationError;

/// How many rows one listing asks for.
const LISTING: u32 = 500;
/// How many of a timetable's runs are looked at for "past" and "future".
const MAX_SPAN: usize = 100_000;

/// Tasks, each at all of its indexes or at some.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection(BTreeMap<TaskId, Option<BTreeSet<MapIndex>>>);

impl Selection {
    pub(crate) fn add(&mut self, task_id: TaskId, map_index: Option<MapIndex>) {
        let slot = self.0.entry(task_id).or_insert_with(|| Some(BTreeSet::new()));
        match (map_index, slot) {
            (Some(index), Some(indexes)) => {
                indexes.insert(index);
            }
            (None, slot) => *slot = None,
            (Some(_), None) => {}
        }
    }

    pub(crate) fn task_ids(&self) -> Vec<TaskId> {
        self.0.keys().cloned().collect()
    }

    pub(crate) fn holds(&self, row: &TaskInstance) -> bool {
        match self.0.get(&row.task_id) {
            None => false,
            Some(None) => true,
            Some(Some(indexes)) => indexes.contains(&row.map_index),
        }
    }

    /// Adds what a clear of these reaches besides them: relatives as asked, setups and teardowns. A chosen index stays
    /// with tasks of the same mapped group and asks for all indexes of others
    /// (`airflow/models/taskinstance.py: find_relevant_relatives`).
    pub(crate) fn add_reached(&mut self, dag: &Dag, relatives: ClearRelatives) {
        let named: BTreeSet<TaskIndex> =
            self.0.keys().filter_map(|task_id| dag.index_of(task_id.as_str())).collect();
        for task in &named {
            let indexes = self.0.get(&dag.task(*task).task_id).cloned().flatten();
            for reached in tasks_to_clear(dag, &BTreeSet::from([*task]), relatives) {
                let reached_id = dag.task(reached).task_id.clone();
                match &indexes {
                    _ if named.contains(&reached) => {}
                    Some(indexes) if shares_mapped_group(dag, *task, reached) => {
                        for index in indexes {
                            self.add(reached_id.clone(), Some(*index));
                        }
                    }
                    _ => self.add(reached_id, None),
                }
            }
        }
    }
}

fn shares_mapped_group(dag: &Dag, one: TaskIndex, other: TaskIndex) -> bool {
    let groups = &dag.links(one).mapped_groups;
    dag.links(other).mapped_groups.iter().any(|group| groups.contains(group))
}

/// All runs of a DAG whose logical dates lie in a range (all of them, also those without one, if it is open), by row.
pub(crate) async fn runs_between(
    tx: &mut dyn Tx,
    dag_id: &DagId,
    range: TimeRange,
) -> Result<Vec<DagRun>, OperationError> {
    let filter =
        DagRunFilter { dag_ids: vec![dag_id.clone()], logical_date: range, ..DagRunFilter::default() };
    let mut runs = Vec::new();
    loop {
        let offset = u32::try_from(runs.len()).unwrap_or(u32::MAX);
        let sort = vec![(DagRunSort::RunAfter, Direction::Ascending)];
        let page = tx.dag_runs(&filter, &Page { limit: LISTING, offset, sort }).await?;
        let got = page.items.len();
        runs.extend(page.items);
        if got < LISTING as usize {
            break;
        }
    }
    // Rows are locked in this order, so that two operations never wait for each other in a circle.
    runs.sort_by_key(|run| run.id);
    Ok(runs)
}

/// The runs that a mark with "past" or "future" touches (`airflow/api/common/mark_tasks.py: get_run_ids`).
pub(crate) async fn runs_of_mark(
    tx: &mut dyn Tx,
    dag: &Dag,
    run: &DagRun,
    past: bool,
    future: bool,
) -> Result<Vec<DagRun>, OperationError> {
    let (Some(date), true) = (run.logical_date, past || future) else { return Ok(vec![run.clone()]) };
    let range =
        TimeRange { gte: (!past).then_some(date), lte: (!future).then_some(date), ..TimeRange::default() };
    let dated: Vec<DagRun> = runs_between(tx, &run.dag_id, range)
        .await?
        .into_iter()
        .filter(|other| other.logical_date.is_some())
        .collect();
    let timetable = Timetable::from_serialized(&dag.timetable).map_err(|error| {
        OperationError::Unreadable { dag_id: run.dag_id.clone(), reason: error.to_string() }
    })?;
    if !timetable.can_be_scheduled() {
        return Ok(dated);
    }
    if !timetable.is_periodic() {
        return Ok(vec![run.clone()]);
    }
    let logical_dates = || dated.iter().filter_map(|other| other.logical_date);
    let (Some(first), Some(last)) = (logical_dates().min(), logical_dates().max()) else {
        return Ok(vec![run.clone()]);
    };
    // Runs that the timetable does not name were made by hand; a mark of the schedule leaves them alone.
    let Ok(planned) = timetable.runs_between(first, last, MAX_SPAN) else { return Ok(dated) };
    let planned: BTreeSet<Timestamp> = planned.into_iter().filter_map(|next| next.logical_date).collect();
    Ok(dated
        .into_iter()
        .filter(|other| other.id == run.id || other.logical_date.is_some_and(|at| planned.contains(&at)))
        .collect())
}

/// The task instances of a run that a selection holds.
pub(crate) async fn selected(
    tx: &mut dyn Tx,
    run: &DagRun,
    selection: Option<&Selection>,
) -> Result<Vec<TaskInstance>, OperationError> {
    let Some(selection) = selection else { return Ok(tx.task_instances_of(run.id, &[]).await?) };
    let ids = selection.task_ids();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut rows = tx.task_instances_of(run.id, &ids).await?;
    rows.retain(|row| selection.holds(row));
    Ok(rows)
}
