use gust_model::{DagId, TaskInstanceState};
use gust_ports::{
    Wake,
    metastore::{Page, TaskInstanceFilter, TxMode, transact},
};

use crate::{OperationError, Ports};

/// Pauses or unpauses a DAG.
///
/// # Errors
/// [`OperationError::DagNotFound`].
pub async fn set_dag_paused(ports: Ports<'_>, dag_id: DagId, is_paused: bool) -> Result<(), OperationError> {
    let wakes = vec![Wake::Dag { dag_id: dag_id.clone() }, Wake::Admission];
    transact(ports.metastore, TxMode::Write, move |tx| {
        let dag_id = dag_id.clone();
        Box::pin(async move {
            if tx.set_dag_paused(&dag_id, is_paused).await? {
                Ok(())
            } else {
                Err(OperationError::DagNotFound(dag_id))
            }
        })
    })
    .await?;
    ports.wake_all(wakes).await;
    Ok(())
}

/// Removes a DAG with its versions, runs and all that hangs on them. While its file is there, the next parse brings it
/// back, without its past.
///
/// # Errors
/// [`OperationError::Conflict`] while a task instance of it runs.
pub async fn delete_dag(ports: Ports<'_>, dag_id: DagId) -> Result<(), OperationError> {
    let wakes = vec![Wake::Dag { dag_id: dag_id.clone() }, Wake::Admission];
    transact(ports.metastore, TxMode::Write, move |tx| {
        let dag_id = dag_id.clone();
        Box::pin(async move {
            let Some(record) = tx.lock_dag(&dag_id).await? else {
                return Err(OperationError::DagNotFound(dag_id));
            };
            let running = TaskInstanceFilter {
                dag_ids: vec![dag_id.clone()],
                states: vec![TaskInstanceState::Running],
                ..TaskInstanceFilter::default()
            };
            if tx.task_instances(&running, &Page::first(1)).await?.total > 0 {
                return Err(OperationError::Conflict(format!(
                    "Task instances of dag with id: '{dag_id}' are still running"
                )));
            }
            tx.delete_dag(&dag_id).await?;
            let now = tx.now().await?;
            tx.replace_import_errors(&record.bundle_name, &record.relative_fileloc, &[], now).await?;
            Ok(())
        })
    })
    .await?;
    ports.wake_all(wakes).await;
    Ok(())
}
