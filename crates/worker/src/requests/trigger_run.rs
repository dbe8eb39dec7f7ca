//! Starting a run from a task (`airflow/api_fastapi/execution_api/routes/dag_runs.py: trigger_dag_run`).

use gust_model::{DagRunId, DagRunType, TriggeredBy};
use gust_operations::{
    ClearRunRequest, OperationError, Ports, TriggerRequest, clear_dag_run, trigger_dag_run_in,
};
use gust_ports::Wake;
use gust_python_host::messages::{ErrorType, Reply, TriggerDagRun};
use serde_json::Value;

use super::{Desk, ok, refused};
use crate::error::WorkerError;

impl Desk {
    /// The row that a run of this name gets, however often its making is tried.
    fn new_row(&self, m: &TriggerDagRun) -> DagRunId {
        let mut rows = self.new_runs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let name = (m.dag_id.clone(), m.run_id.clone());
        *rows.entry(name).or_insert_with(|| DagRunId(self.services.ids.fresh()))
    }

    pub(super) async fn trigger_dag_run(&self, m: &TriggerDagRun) -> Result<Reply, WorkerError> {
        let row = self.new_row(m);
        let request = TriggerRequest {
            run_id: Some(m.run_id.as_str().into()),
            run_type: DagRunType::OperatorTriggered,
            logical_date: m.logical_date,
            run_after: m.run_after,
            conf: Value::Object(m.conf.clone().unwrap_or_default()),
            note: m.note.clone(),
            partition_key: m.partition_key.clone(),
            triggering_user: self.asker.as_ref().and_then(|asker| asker.run.triggering_user.clone()),
            ..TriggerRequest::new(m.dag_id.as_str().into(), TriggeredBy::Operator)
        };
        let random = self.services.ids.random_letters();
        let mut tx = self.write().await?;
        match trigger_dag_run_in(&mut *tx, &request, row, &random).await {
            Ok(_) => {
                tx.commit().await?;
                let wake = Wake::Run { dag_id: request.dag_id, run_id: m.run_id.as_str().into(), plan: true };
                self.services.wakeups.wake(wake).await;
                Ok(ok())
            }
            Err(OperationError::Exists(_)) => {
                let existing = tx.dag_run(&request.dag_id, &m.run_id.as_str().into()).await?;
                drop(tx);
                match existing {
                    // The commit whose answer was lost.
                    Some(run) if run.id == row => Ok(ok()),
                    Some(_) if m.reset_dag_run == Some(true) => self.reset_dag_run(m).await,
                    _ => Ok(Reply::not_found(ErrorType::DagRunAlreadyExists, Value::Null)),
                }
            }
            Err(error) => refusal(error),
        }
    }

    async fn reset_dag_run(&self, m: &TriggerDagRun) -> Result<Reply, WorkerError> {
        let services = &self.services;
        let ports =
            Ports { metastore: &*services.metastore, wakeups: &*services.wakeups, ids: &*services.ids };
        let request = ClearRunRequest {
            dag_id: m.dag_id.as_str().into(),
            run_id: m.run_id.as_str().into(),
            only_failed: false,
            run_on_latest_version: None,
            note: None,
        };
        match clear_dag_run(ports, request).await {
            Ok(_) => Ok(ok()),
            Err(error) => refusal(error),
        }
    }
}

fn refusal(error: OperationError) -> Result<Reply, WorkerError> {
    let (status, reason) = match &error {
        OperationError::DagNotFound(_) | OperationError::RunNotFound { .. } => (404, "not_found"),
        OperationError::Conflict(_) => (409, "conflict"),
        _ => (400, "value_error"),
    };
    match error {
        OperationError::Metastore(error) => Err(error.into()),
        error => Ok(refused(status, reason, error.to_string())),
    }
}
