use std::sync::Arc;

use gust_model::{
    DagId, DagRunState, RunId,
    record::{DagRun, TaskInstance},
};
use gust_planner::{mark_run, run_may_end};
use gust_ports::{
    Tx, Wake,
    metastore::{DagRunPatch, LockWait, TxMode, transact},
};

use crate::{
    OperationError, Ports,
    clear::wakes_of,
    graph::{dag_of_version, latest_dag},
    mark::write_marks,
};

pub(crate) async fn run_by_id(
    tx: &mut dyn Tx,
    dag_id: &DagId,
    run_id: &RunId,
) -> Result<DagRun, OperationError> {
    tx.dag_run(dag_id, run_id)
        .await?
        .ok_or_else(|| OperationError::RunNotFound { dag_id: dag_id.clone(), run_id: run_id.clone() })
}

pub(crate) fn note_patch(note: &str) -> DagRunPatch {
    DagRunPatch {
        note: Some(Some(note.to_owned()).filter(|note| !note.is_empty())),
        ..DagRunPatch::default()
    }
}

/// Ends a run well or badly, or puts it back into the queue
/// (`airflow/api/common/mark_tasks.py: set_dag_run_state_to_…`). Ending takes running task instances from their workers
/// with the run's state and skips those that have not run. Teardowns are left alone, and while one of them is to come
/// the run goes on until it is done.
///
/// # Errors
/// [`OperationError::RunNotFound`], and [`OperationError::Refused`] for the state running, which only a scheduler sets.
pub async fn set_dag_run_state(
    ports: Ports<'_>,
    dag_id: DagId,
    run_id: RunId,
    state: DagRunState,
) -> Result<DagRun, OperationError> {
    if state == DagRunState::Running {
        return Err(OperationError::Refused(
            "a run is not set to running by hand; set it to one of queued, success, failed".into(),
        ));
    }
    let ids = Arc::new((dag_id, run_id));
    let (run, wakes) = transact(ports.metastore, TxMode::Write, move |tx| {
        let ids = Arc::clone(&ids);
        Box::pin(async move {
            let (dag_id, run_id) = &*ids;
            let found = run_by_id(tx, dag_id, run_id).await?;
            let run = tx.lock_dag_run(found.id, LockWait::Wait).await?.ok_or_else(|| {
                OperationError::RunNotFound { dag_id: dag_id.clone(), run_id: run_id.clone() }
            })?;
            let wakes = if state.is_finished() {
                end_run(tx, &run, state).await?
            } else {
                queue_run(tx, &run).await?
            };
            Ok::<_, OperationError>((run_by_id(tx, dag_id, run_id).await?, wakes))
        })
    })
    .await?;
    ports.wake_all(wakes).await;
    Ok(run)
}

async fn queue_run(tx: &mut dyn Tx, run: &DagRun) -> Result<Vec<Wake>, OperationError> {
    if run.state != DagRunState::Queued {
        let patch = DagRunPatch {
            state: Some(DagRunState::Queued),
            queued_at: Some(tx.now().await?),
            start_date: Some(None),
            end_date: Some(None),
            due_at: Some(None),
            is_dirty: Some(true),
            ..DagRunPatch::default()
        };
        tx.update_dag_run(run.id, &patch).await?;
    }
    Ok(wakes_of(run, &[]))
}

async fn end_run(tx: &mut dyn Tx, run: &DagRun, state: DagRunState) -> Result<Vec<Wake>, OperationError> {
    let dag = match dag_of_version(tx, run.dag_version_id).await? {
        Some(dag) => dag,
        None => {
            latest_dag(tx, &run.dag_id)
                .await?
                .ok_or_else(|| OperationError::DagNotFound(run.dag_id.clone()))?
                .1
        }
    };
    let now = tx.now().await?;
    // What the graph no longer has is the planner's to remove.
    let rows: Vec<(TaskInstance, bool)> = tx
        .task_instances_of(run.id, &[])
        .await?
        .into_iter()
        .filter_map(|row| {
            let is_teardown = dag.task(dag.index_of(row.task_id.as_str())?).is_teardown;
            Some((row, is_teardown))
        })
        .collect();
    let marks: Vec<_> = rows
        .iter()
        .filter_map(|(row, is_teardown)| Some((row.clone(), mark_run(state, row, *is_teardown, now)?)))
        .collect();
    if !marks.is_empty() {
        write_marks(tx, run, &marks).await?;
    }
    if run_may_end(rows.iter().map(|(row, is_teardown)| (row, *is_teardown))) && run.state != state {
        let end_date = if run.state.is_finished() { run.end_date } else { None };
        let patch = DagRunPatch {
            state: Some(state),
            end_date: Some(Some(end_date.unwrap_or(now))),
            due_at: Some(None),
            ..DagRunPatch::default()
        };
        tx.update_dag_run(run.id, &patch).await?;
    }
    let touched: Vec<_> = marks.into_iter().map(|(row, _)| row).collect();
    Ok(wakes_of(run, &touched))
}

/// Sets, or with an empty text removes, a run's note.
///
/// # Errors
/// [`OperationError::RunNotFound`].
pub async fn set_dag_run_note(
    ports: Ports<'_>,
    dag_id: DagId,
    run_id: RunId,
    note: Option<String>,
) -> Result<DagRun, OperationError> {
    let wake = Wake::Run { dag_id: dag_id.clone(), run_id: run_id.clone(), plan: false };
    let run = transact(ports.metastore, TxMode::Write, move |tx| {
        let (dag_id, run_id, note) = (dag_id.clone(), run_id.clone(), note.clone().unwrap_or_default());
        Box::pin(async move {
            let run = run_by_id(tx, &dag_id, &run_id).await?;
            tx.update_dag_run(run.id, &note_patch(&note)).await?;
            run_by_id(tx, &dag_id, &run_id).await
        })
    })
    .await?;
    ports.wake_all(vec![wake]).await;
    Ok(run)
}

/// Removes a run with all that hangs on it.
///
/// # Errors
/// [`OperationError::Conflict`] while it is running.
pub async fn delete_dag_run(ports: Ports<'_>, dag_id: DagId, run_id: RunId) -> Result<(), OperationError> {
    let wakes = vec![
        Wake::Run { dag_id: dag_id.clone(), run_id: run_id.clone(), plan: true },
        Wake::Admission,
        Wake::Dag { dag_id: dag_id.clone() },
    ];
    transact(ports.metastore, TxMode::Write, move |tx| {
        let (dag_id, run_id) = (dag_id.clone(), run_id.clone());
        Box::pin(async move {
            let found = run_by_id(tx, &dag_id, &run_id).await?;
            let Some(run) = tx.lock_dag_run(found.id, LockWait::Wait).await? else {
                return Err(OperationError::RunNotFound { dag_id, run_id });
            };
            if run.state == DagRunState::Running {
                return Err(OperationError::Conflict(format!(
                    "The DagRun with dag_id: `{dag_id}` and run_id: `{run_id}` cannot be deleted in {} state",
                    run.state
                )));
            }
            tx.delete_dag_run(run.id).await?;
            Ok(())
        })
    })
    .await?;
    ports.wake_all(wakes).await;
    Ok(())
}
