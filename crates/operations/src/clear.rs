use std::sync::Arc;

use gust_model::{
    DagId, DagRunState, MapIndex, RunId, TaskId, TaskInstanceState,
    dag::Dag,
    record::{DagRecord, DagRun, TaskInstance, Timestamp},
};
use gust_planner::{ClearRelatives, clear_run, pinned_bundle_version};
use gust_ports::{
    MetastoreError, Tx, Wake,
    metastore::{DagGraphs, DagRunPatch, LockWait, TaskInstanceWrite, TimeRange, TxMode, transact},
};

use crate::{
    OperationError, Ports,
    graph::{dag_of_version, latest_dag},
    reset::{ended_try, reset},
    runs::{note_patch, run_by_id},
    select::{Selection, runs_between, selected},
};

/// Which task instances to run again, and how (`airflow/api_fastapi/core_api/datamodels/task_instances.py:
/// ClearTaskInstancesBody`).
#[derive(Debug, Clone, PartialEq)]
pub struct ClearRequest {
    /// The DAG.
    pub dag_id: DagId,
    /// In this run; in all runs within `dates` if absent.
    pub run_id: Option<RunId>,
    /// Bounds on the runs' logical dates, where no run is named.
    pub dates: TimeRange,
    /// These tasks, each at one index or at all; all tasks if absent.
    pub tasks: Option<Vec<(TaskId, Option<MapIndex>)>>,
    /// And what comes before them.
    pub with_upstream: bool,
    /// And what comes after them.
    pub with_downstream: bool,
    /// And in earlier runs.
    pub with_past: bool,
    /// And in later runs.
    pub with_future: bool,
    /// Only what failed.
    pub only_failed: bool,
    /// Only what runs.
    pub only_running: bool,
    /// Whether finished runs go back to the queue.
    pub reset_dag_runs: bool,
    /// Whether to follow the newest version; the DAG decides if absent.
    pub run_on_latest_version: Option<bool>,
    /// Whether to refuse if something of it runs.
    pub prevent_running_task: bool,
    /// Whether only to say what would be cleared.
    pub dry_run: bool,
    /// A note for what is cleared.
    pub note: Option<String>,
}

impl ClearRequest {
    /// All task instances of one run, which goes back to the queue.
    #[must_use]
    pub fn of_run(dag_id: DagId, run_id: RunId) -> Self {
        Self {
            dag_id,
            run_id: Some(run_id),
            dates: TimeRange::default(),
            tasks: None,
            with_upstream: false,
            with_downstream: false,
            with_past: false,
            with_future: false,
            only_failed: false,
            only_running: false,
            reset_dag_runs: true,
            run_on_latest_version: None,
            prevent_running_task: false,
            dry_run: false,
            note: None,
        }
    }
}

/// A whole run to be run again (`airflow/api_fastapi/core_api/datamodels/dag_run.py: DAGRunClearBody`).
#[derive(Debug, Clone, PartialEq)]
pub struct ClearRunRequest {
    /// The DAG.
    pub dag_id: DagId,
    /// The run.
    pub run_id: RunId,
    /// Only what failed.
    pub only_failed: bool,
    /// Whether to follow the newest version; the DAG decides if absent.
    pub run_on_latest_version: Option<bool>,
    /// A note for the run.
    pub note: Option<String>,
}

/// How [`clear_rows`] clears.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClearMode {
    pub reset_dag_runs: bool,
    pub run_on_latest_version: bool,
}

/// Clears task instances, and returns them as they are then (as they are, for a dry run).
///
/// # Errors
/// [`OperationError::Conflict`] if something of it runs and that was to be prevented.
pub async fn clear_task_instances(
    ports: Ports<'_>,
    request: ClearRequest,
) -> Result<Vec<TaskInstance>, OperationError> {
    let request = Arc::new(request);
    let mode = if request.dry_run { TxMode::Read } else { TxMode::Write };
    let (rows, wakes) = transact(ports.metastore, mode, move |tx| {
        let request = Arc::clone(&request);
        Box::pin(async move { clear_in(tx, &request).await })
    })
    .await?;
    ports.wake_all(wakes).await;
    Ok(rows)
}

/// Clears all of a run, or what failed of it, and puts it back into the queue.
///
/// # Errors
/// [`OperationError::RunNotFound`].
pub async fn clear_dag_run(ports: Ports<'_>, request: ClearRunRequest) -> Result<DagRun, OperationError> {
    let request = Arc::new(request);
    let (run, wakes) = transact(ports.metastore, TxMode::Write, move |tx| {
        let request = Arc::clone(&request);
        Box::pin(async move {
            let clear = ClearRequest {
                only_failed: request.only_failed,
                run_on_latest_version: request.run_on_latest_version,
                ..ClearRequest::of_run(request.dag_id.clone(), request.run_id.clone())
            };
            let (_, wakes) = clear_in(tx, &clear).await?;
            let mut run = run_by_id(tx, &request.dag_id, &request.run_id).await?;
            if let Some(note) = &request.note {
                tx.update_dag_run(run.id, &note_patch(note)).await?;
                run = run_by_id(tx, &request.dag_id, &request.run_id).await?;
            }
            Ok::<_, OperationError>((run, wakes))
        })
    })
    .await?;
    ports.wake_all(wakes).await;
    Ok(run)
}

async fn clear_in(
    tx: &mut dyn Tx,
    request: &ClearRequest,
) -> Result<(Vec<TaskInstance>, Vec<Wake>), OperationError> {
    let dag_id = &request.dag_id;
    let (record, latest) =
        latest_dag(tx, dag_id).await?.ok_or_else(|| OperationError::DagNotFound(dag_id.clone()))?;
    let (runs, dag) = runs_of_clear(tx, request, &latest).await?;
    let selection = request.tasks.as_ref().map(|tasks| {
        let mut selection = Selection::default();
        for (task_id, index) in tasks {
            selection.add(task_id.clone(), *index);
        }
        let relatives =
            ClearRelatives { upstream: request.with_upstream, downstream: request.with_downstream };
        selection.add_reached(&dag, relatives);
        selection
    });

    let mut found = Vec::new();
    for run in runs {
        let run = if request.dry_run { Some(run) } else { tx.lock_dag_run(run.id, LockWait::Wait).await? };
        let Some(run) = run else { continue };
        let mut rows = selected(tx, &run, selection.as_ref()).await?;
        rows.retain(|row| is_wanted(request, row.state));
        if !rows.is_empty() {
            found.push((run, rows));
        }
    }
    let all = || found.iter().flat_map(|(_, rows)| rows);
    if request.dry_run {
        return Ok((all().cloned().collect(), Vec::new()));
    }
    if request.prevent_running_task && all().any(|row| row.state == TaskInstanceState::Running) {
        return Err(OperationError::Conflict(
            "AirflowClearRunningTaskException: Disable 'prevent_running_task' to proceed, or wait until the task is \
             not running, queued, or scheduled state."
                .into(),
        ));
    }
    let ids: Vec<_> = all().map(|row| row.id).collect();
    let mode = ClearMode {
        reset_dag_runs: request.reset_dag_runs,
        run_on_latest_version: request
            .run_on_latest_version
            .or(latest.rerun_with_latest_version)
            .unwrap_or(false),
    };
    let wakes = clear_rows(tx, found, &record, &latest, mode, request.note.as_deref()).await?;
    let mut cleared = Vec::with_capacity(ids.len());
    for id in ids {
        cleared.extend(tx.task_instance(id).await?);
    }
    Ok((cleared, wakes))
}

/// The runs, and the graph in which relatives are looked for.
async fn runs_of_clear(
    tx: &mut dyn Tx,
    request: &ClearRequest,
    latest: &Arc<Dag>,
) -> Result<(Vec<DagRun>, Arc<Dag>), OperationError> {
    let dag_id = &request.dag_id;
    let Some(run_id) = &request.run_id else {
        let mut range = request.dates;
        if request.with_past {
            (range.gte, range.gt) = (None, None);
        }
        if request.with_future {
            (range.lte, range.lt) = (None, None);
        }
        return Ok((runs_between(tx, dag_id, range).await?, Arc::clone(latest)));
    };
    let run = tx
        .dag_run(dag_id, run_id)
        .await?
        .ok_or_else(|| OperationError::RunNotFound { dag_id: dag_id.clone(), run_id: run_id.clone() })?;
    let dag = dag_of_version(tx, run.dag_version_id).await?.unwrap_or_else(|| Arc::clone(latest));
    if !request.with_past && !request.with_future {
        return Ok((vec![run], dag));
    }
    let Some(date) = run.logical_date else {
        return Err(OperationError::Refused(
            "Cannot use include_past or include_future with no logical_date(e.g. manually or asset-triggered)."
                .into(),
        ));
    };
    let range = TimeRange {
        gte: (!request.with_past).then_some(date),
        lte: (!request.with_future).then_some(date),
        ..TimeRange::default()
    };
    Ok((runs_between(tx, dag_id, range).await?, dag))
}

fn is_wanted(request: &ClearRequest, state: TaskInstanceState) -> bool {
    use TaskInstanceState as S;
    if !request.only_failed && !request.only_running {
        return true;
    }
    (request.only_failed && matches!(state, S::Failed | S::UpstreamFailed))
        || (request.only_running && state == S::Running)
}

/// Clears rows of locked runs and resets the runs.
pub(crate) async fn clear_rows(
    tx: &mut dyn Tx,
    found: Vec<(DagRun, Vec<TaskInstance>)>,
    record: &DagRecord,
    latest: &Arc<Dag>,
    mode: ClearMode,
    note: Option<&str>,
) -> Result<Vec<Wake>, OperationError> {
    let now = tx.now().await?;
    let graphs = DagGraphs::default();
    let mut wakes = Vec::new();
    for (run, rows) in found {
        if rows.is_empty() {
            continue;
        }
        let dag = if mode.run_on_latest_version {
            Some(Arc::clone(latest))
        } else {
            graphs.get(tx, run.dag_version_id).await?.map(|graph| graph.dag)
        };
        let mut writes = Vec::with_capacity(rows.len());
        for row in &rows {
            keep_try(tx, row, now).await?;
            let graph = dag.as_deref().and_then(|dag| Some((dag, dag.index_of(row.task_id.as_str())?)));
            let mut write = reset(row, graph);
            if mode.run_on_latest_version {
                write.patch.dag_version_id = Some(record.current_version_id);
            }
            if let Some(note) = note {
                write.patch.note = Some(Some(note.to_owned()).filter(|note| !note.is_empty()));
            }
            writes.push(write);
        }
        write_taken(tx, &rows, &writes).await?;
        wakes.extend(wakes_of(&run, &rows));
        let patch = run_patch(&run, record, latest, mode, now);
        tx.update_dag_run(run.id, &patch).await?;
    }
    Ok(wakes)
}

/// Keeps the try that a clear ends, unless it is kept already.
async fn keep_try(tx: &mut dyn Tx, row: &TaskInstance, now: Timestamp) -> Result<(), OperationError> {
    let Some(ended) = ended_try(row, now) else { return Ok(()) };
    let is_kept = tx.tries(row.id).await?.iter().any(|kept| kept.try_number == ended.try_number);
    if !is_kept {
        tx.insert_try(&ended).await?;
    }
    Ok(())
}

/// Writes rows that are taken from whoever holds them, with the triggers that they waited for. A row that changed since
/// it was read loses the transaction, which runs again.
pub(crate) async fn write_taken(
    tx: &mut dyn Tx,
    rows: &[TaskInstance],
    writes: &[TaskInstanceWrite],
) -> Result<(), OperationError> {
    let written = tx.update_task_instances(writes).await?;
    if written.len() != writes.len() {
        let text = "a task instance changed while it was being cleared or marked";
        return Err(MetastoreError::Conflict(text.into()).into());
    }
    for trigger in rows.iter().filter_map(|row| row.trigger_id) {
        tx.delete_trigger(trigger).await?;
    }
    Ok(())
}

/// Whom to tell that these rows of a run, as they were, were taken.
pub(crate) fn wakes_of(run: &DagRun, rows: &[TaskInstance]) -> Vec<Wake> {
    let mut wakes: Vec<Wake> = rows
        .iter()
        .filter(|row| row.lease.is_some())
        .map(|row| Wake::Revoked { task_instance_id: row.id })
        .collect();
    // Deferred ones may hold slots as well.
    if rows.iter().any(|row| row.state.is_executing() || row.state == TaskInstanceState::Deferred) {
        wakes.push(Wake::Admission);
    }
    wakes.push(Wake::Run { dag_id: run.dag_id.clone(), run_id: run.run_id.clone(), plan: true });
    wakes
}

fn run_patch(run: &DagRun, record: &DagRecord, latest: &Dag, mode: ClearMode, now: Timestamp) -> DagRunPatch {
    let mut patch = DagRunPatch { is_dirty: Some(true), ..DagRunPatch::default() };
    if !mode.reset_dag_runs {
        return patch;
    }
    let newest = mode
        .run_on_latest_version
        .then(|| (record.current_version_id, pinned_bundle_version(latest, record)));
    let cleared = clear_run(run, DagRunState::Queued, newest, now);
    patch.clear_number = Some(cleared.clear_number);
    patch.queued_at = Some(cleared.queued_at);
    patch.dag_version_id = Some(cleared.dag_version_id);
    patch.bundle_version = Some(cleared.bundle_version);
    if cleared.state != run.state {
        patch.state = Some(cleared.state);
        patch.start_date = Some(cleared.start_date);
        patch.end_date = Some(cleared.end_date);
        patch.due_at = Some(None);
    }
    patch
}
