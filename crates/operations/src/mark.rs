use std::sync::Arc;

use gust_model::{
    DagId, MapIndex, RunId, TaskId, TaskInstanceState,
    record::{DagRun, TaskInstance},
};
use gust_planner::{MarkedInstance, mark_instance};
use gust_ports::{
    Tx, Wake,
    metastore::{DagRunPatch, Guard, LockWait, TaskInstancePatch, TaskInstanceWrite, TxMode, transact},
};

use crate::{
    OperationError, Ports,
    clear::{ClearMode, clear_rows, wakes_of, write_taken},
    graph::{dag_of_version, latest_dag},
    reset,
    runs::run_by_id,
    select::{Selection, runs_of_mark, selected},
};

/// Which task instances are to count as what.
#[derive(Debug, Clone, PartialEq)]
pub struct MarkRequest {
    /// The DAG.
    pub dag_id: DagId,
    /// The run.
    pub run_id: RunId,
    /// The task.
    pub task_id: TaskId,
    /// At these indexes; at all if absent.
    pub map_indexes: Option<Vec<MapIndex>>,
    /// As success, failed or skipped.
    pub state: TaskInstanceState,
    /// And what comes before.
    pub with_upstream: bool,
    /// And what comes after, teardowns left out.
    pub with_downstream: bool,
    /// And in earlier runs.
    pub with_past: bool,
    /// And in later runs.
    pub with_future: bool,
    /// Whether only to say what would change.
    pub dry_run: bool,
}

/// Marks task instances, and clears what failed after them so that it goes on. Returns those that were marked, as they
/// are then.
///
/// # Errors
/// [`OperationError::Refused`] for a state that nothing can be marked as, and the not-founds.
pub async fn set_task_instance_state(
    ports: Ports<'_>,
    request: MarkRequest,
) -> Result<Vec<TaskInstance>, OperationError> {
    use TaskInstanceState as S;
    if !matches!(request.state, S::Success | S::Failed | S::Skipped) {
        return Err(OperationError::Refused(format!(
            "'{}' is not a state to be set by hand; it is one of success, failed, skipped",
            request.state
        )));
    }
    let request = Arc::new(request);
    let mode = if request.dry_run { TxMode::Read } else { TxMode::Write };
    let (rows, wakes) = transact(ports.metastore, mode, move |tx| {
        let request = Arc::clone(&request);
        Box::pin(async move { mark_in(tx, &request).await })
    })
    .await?;
    ports.wake_all(wakes).await;
    Ok(rows)
}

async fn mark_in(
    tx: &mut dyn Tx,
    request: &MarkRequest,
) -> Result<(Vec<TaskInstance>, Vec<Wake>), OperationError> {
    let dag_id = &request.dag_id;
    let (record, latest) =
        latest_dag(tx, dag_id).await?.ok_or_else(|| OperationError::DagNotFound(dag_id.clone()))?;
    let run = run_by_id(tx, dag_id, &request.run_id).await?;
    let dag = dag_of_version(tx, run.dag_version_id).await?.unwrap_or_else(|| Arc::clone(&latest));
    let task = dag.index_of(request.task_id.as_str()).ok_or_else(|| OperationError::TaskNotFound {
        dag_id: dag_id.clone(),
        task_id: request.task_id.clone(),
    })?;

    let mut marked = Selection::default();
    match &request.map_indexes {
        None => marked.add(request.task_id.clone(), None),
        Some(indexes) => {
            for index in indexes {
                marked.add(request.task_id.clone(), Some(*index));
            }
        }
    }
    let downstream = dag.flat_relatives(task, false);
    if request.with_downstream {
        for relative in downstream.iter().filter(|relative| !dag.task(**relative).is_teardown) {
            marked.add(dag.task(*relative).task_id.clone(), None);
        }
    }
    if request.with_upstream {
        for relative in dag.flat_relatives(task, true) {
            marked.add(dag.task(relative).task_id.clone(), None);
        }
    }
    let mut resumed = Selection::default();
    for relative in &downstream {
        resumed.add(dag.task(*relative).task_id.clone(), None);
    }

    let runs = runs_of_mark(tx, &dag, &run, request.with_past, request.with_future).await?;
    let (mut altered, mut wakes, mut to_clear) = (Vec::new(), Vec::new(), Vec::new());
    for run in runs {
        let run = if request.dry_run { Some(run) } else { tx.lock_dag_run(run.id, LockWait::Wait).await? };
        let Some(run) = run else { continue };
        let now = tx.now().await?;
        let marks: Vec<_> = selected(tx, &run, Some(&marked))
            .await?
            .into_iter()
            .filter_map(|row| mark_instance(&row, request.state, now).map(|marked| (row, marked)))
            .collect();
        let rows: Vec<_> = marks.iter().map(|(row, _)| row.clone()).collect();
        if request.dry_run {
            altered.extend(rows);
            continue;
        }
        if !rows.is_empty() {
            write_marks(tx, &run, &marks).await?;
            wakes.extend(wakes_of(&run, &rows));
            altered.extend(rows);
        }
        let mut failed = selected(tx, &run, Some(&resumed)).await?;
        failed.retain(|row| {
            matches!(row.state, TaskInstanceState::Failed | TaskInstanceState::UpstreamFailed)
                && !altered.iter().any(|marked| marked.id == row.id)
        });
        to_clear.push((run, failed));
    }
    if request.dry_run {
        return Ok((altered, wakes));
    }
    let mode = ClearMode { reset_dag_runs: true, run_on_latest_version: false };
    wakes.extend(clear_rows(tx, to_clear, &record, &latest, mode, None).await?);
    let mut result = Vec::with_capacity(altered.len());
    for row in &altered {
        result.extend(tx.task_instance(row.id).await?);
    }
    Ok((result, wakes))
}

/// Writes marks of rows of a locked run, and lets the planner look at all of it.
pub(crate) async fn write_marks(
    tx: &mut dyn Tx,
    run: &DagRun,
    marks: &[(TaskInstance, MarkedInstance)],
) -> Result<(), OperationError> {
    let rows: Vec<_> = marks.iter().map(|(row, _)| row.clone()).collect();
    let writes: Vec<_> = marks.iter().map(|(row, marked)| reset::mark(row, *marked)).collect();
    write_taken(tx, &rows, &writes).await?;
    tx.update_dag_run(run.id, &DagRunPatch { is_dirty: Some(true), ..DagRunPatch::default() }).await?;
    Ok(())
}

/// Sets, or with an empty text removes, the note of a task instance; of all indexes if none is given. Returns them as
/// they are then.
///
/// # Errors
/// The not-founds.
pub async fn set_task_instance_note(
    ports: Ports<'_>,
    dag_id: DagId,
    run_id: RunId,
    task_id: TaskId,
    map_index: Option<MapIndex>,
    note: Option<String>,
) -> Result<Vec<TaskInstance>, OperationError> {
    let wake = Wake::Run { dag_id: dag_id.clone(), run_id: run_id.clone(), plan: false };
    let note = note.filter(|note| !note.is_empty());
    let rows = transact(ports.metastore, TxMode::Write, move |tx| {
        let (dag_id, run_id, task_id, note) = (dag_id.clone(), run_id.clone(), task_id.clone(), note.clone());
        Box::pin(async move {
            let run = run_by_id(tx, &dag_id, &run_id).await?;
            let mut selection = Selection::default();
            selection.add(task_id.clone(), map_index);
            let rows = selected(tx, &run, Some(&selection)).await?;
            if rows.is_empty() {
                let map_index = map_index.unwrap_or_default();
                return Err(OperationError::TaskInstanceNotFound { dag_id, run_id, task_id, map_index });
            }
            let writes: Vec<_> = rows
                .iter()
                .map(|row| TaskInstanceWrite {
                    id: row.id,
                    guard: Guard::Any,
                    patch: TaskInstancePatch { note: Some(note.clone()), ..TaskInstancePatch::default() },
                })
                .collect();
            tx.update_task_instances(&writes).await?;
            selected(tx, &run, Some(&selection)).await
        })
    })
    .await?;
    ports.wake_all(vec![wake]).await;
    Ok(rows)
}
