//! Answering what a process asks, as Airflow's execution API would
//! (`airflow/api_fastapi/execution_api/routes`, `airflow/sdk/execution_time/supervisor.py`).
#![expect(clippy::result_large_err, reason = "a refusal is a reply as any other, sent and dropped at once")]

mod assets;
mod buffer;
mod instances;
mod run_rows;
mod secret_rows;
mod stores;
mod trigger_run;
mod xcoms;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gust_model::{
    AttemptId, DagRunId, Epoch,
    record::{DagRun, TaskInstance},
};
use gust_ports::{
    Tx,
    metastore::{DagGraphs, Renewal, TxMode},
};
use gust_python_host::messages::{ErrorType, FromTask, OKResponse, Reply, ToTask};
use serde_json::{Value, json};
use tracing::warn;

pub(crate) use assets::by_id as assets_by_id;
pub(crate) use buffer::{Buffer, Write, apply};
pub(crate) use secret_rows::SecretDesk;

use crate::{
    config::WorkerConfig, error::WorkerError, persist::persistently, redact::Secrets, services::Services,
};

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) task_instance: TaskInstance,
    pub(crate) run: DagRun,
    /// What its writes are fenced by; none for callbacks, which have a lease of their own.
    pub(crate) fence: Option<(Epoch, AttemptId)>,
}

/// Serves the requests of one process, or of the triggerer's many triggers.
pub(crate) struct Desk {
    pub(crate) services: Services,
    pub(crate) config: Arc<WorkerConfig>,
    pub(crate) dags: Arc<DagGraphs>,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) asker: Option<Asker>,
    sealed: SecretDesk,
    buffer: tokio::sync::Mutex<Buffer>,
    /// A renewal that came with a write, and when it was asked for.
    renewed: Mutex<Option<(Duration, Renewal)>>,
    /// The rows of runs that were asked for, by DAG and run.
    new_runs: Mutex<HashMap<(String, String), DagRunId>>,
}

/// An answer, and whether the process can go on.
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    /// Why the try cannot go on: its writes are lost.
    pub(crate) fatal: Option<WorkerError>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply, fatal: None }
    }
}

pub(crate) fn ok() -> Reply {
    ToTask::OKResponse(OKResponse { ok: true }).into()
}

/// What the supervisor answers when the execution API refuses with a status.
pub(crate) fn refused(status: u16, reason: &str, message: impl Into<String>) -> Reply {
    let message = message.into();
    Reply::error(
        ErrorType::ApiServerError,
        json!({
            "status_code": status,
            "message": message,
            "detail": {"detail": {"reason": reason, "message": message}},
        }),
    )
}

/// Which buffered writes a request could see, were they written.
enum Sees<'a> {
    Nothing,
    XComs { dag_id: &'a str, task_id: &'a str },
    States,
    Everything,
}

fn sees(body: &FromTask) -> Sees<'_> {
    match body {
        FromTask::GetXCom(m) => Sees::XComs { dag_id: &m.dag_id, task_id: &m.task_id },
        FromTask::GetXComCount(m) => Sees::XComs { dag_id: &m.dag_id, task_id: &m.task_id },
        FromTask::GetXComSequenceItem(m) => Sees::XComs { dag_id: &m.dag_id, task_id: &m.task_id },
        FromTask::GetXComSequenceSlice(m) => Sees::XComs { dag_id: &m.dag_id, task_id: &m.task_id },
        FromTask::GetTICount(_)
        | FromTask::GetTaskStates(_)
        | FromTask::GetTaskBreadcrumbs(_)
        | FromTask::GetPreviousTI(_) => Sees::States,
        FromTask::TriggerDagRun(_) | FromTask::CreateHITLDetailPayload(_) => Sees::Everything,
        _ => Sees::Nothing,
    }
}

impl Desk {
    pub(crate) fn new(
        services: &Services,
        config: &Arc<WorkerConfig>,
        dags: &Arc<DagGraphs>,
        secrets: &Arc<Secrets>,
        asker: Option<Asker>,
    ) -> Self {
        Self {
            services: services.clone(),
            config: Arc::clone(config),
            dags: Arc::clone(dags),
            secrets: Arc::clone(secrets),
            asker,
            sealed: SecretDesk::new(
                Arc::clone(&services.metastore),
                Arc::clone(&services.cipher),
                Arc::clone(secrets),
            ),
            buffer: tokio::sync::Mutex::default(),
            renewed: Mutex::default(),
            new_runs: Mutex::default(),
        }
    }

    /// Answers a request. Terminal messages are the supervisor's; here they are acknowledged.
    pub(crate) async fn answer(&self, body: &FromTask) -> Answer {
        if let Some(answer) = self.answer_at_once(body).await {
            return answer;
        }
        let mut buffer = self.buffer.lock().await;
        let must_flush = match sees(body) {
            Sees::Nothing => false,
            Sees::XComs { dag_id, task_id } => buffer.has_xcom_of(dag_id, task_id),
            Sees::States => buffer.has_skips(),
            Sees::Everything => true,
        };
        if must_flush && let Err(error) = self.write_out(&mut buffer).await {
            return Answer {
                reply: Reply::error(ErrorType::ApiServerError, json!({"message": error.to_string()})),
                fatal: Some(error),
            };
        }
        drop(buffer);
        let (clock, grace) = (&*self.services.clock, self.config.outage_grace);
        match persistently(clock, grace, || self.answer_once(body)).await {
            Ok(reply) => reply.into(),
            Err(error) => {
                warn!(%error, request = body.kind(), "a request could not be served");
                let reply = Reply::error(
                    ErrorType::ApiServerError,
                    json!({"status_code": 500, "message": error.to_string()}),
                );
                let fatal = matches!(error, WorkerError::Revoked(_)).then_some(error);
                Answer { reply, fatal }
            }
        }
    }

    /// What needs no transaction now.
    async fn answer_at_once(&self, body: &FromTask) -> Option<Answer> {
        let reply = match body {
            FromTask::MaskSecret(m) => {
                self.secrets.add(&m.value, m.name.as_deref());
                Reply::Empty
            }
            FromTask::SetXCom(m) => match self.set_xcom(m) {
                Ok(Some(write)) => return Some(self.note(write, Reply::Empty).await),
                Ok(None) => return None,
                Err(reply) => reply,
            },
            FromTask::DeleteXCom(m) => match self.delete_xcom(m) {
                Some(write) => return Some(self.note(write, Reply::Empty).await),
                None => return None,
            },
            FromTask::SetRenderedFields(m) if self.asker.is_some() => {
                let fields = Value::Object(m.rendered_fields.clone());
                return Some(self.note(Write::RenderedFields(fields), Reply::Empty).await);
            }
            FromTask::SetRenderedMapIndex(m) if self.asker.is_some() => {
                if m.rendered_map_index.is_empty() {
                    refused(422, "invalid", "rendered_map_index cannot be empty")
                } else {
                    let write = Write::RenderedMapIndex(m.rendered_map_index.clone());
                    return Some(self.note(write, Reply::Empty).await);
                }
            }
            FromTask::SkipDownstreamTasks(m) if self.asker.is_some() => {
                return Some(self.note(Write::Skip(m.tasks.clone()), Reply::Empty).await);
            }
            FromTask::SucceedTask(_)
            | FromTask::RetryTask(_)
            | FromTask::DeferTask(_)
            | FromTask::RescheduleTask(_)
            | FromTask::AwaitInputTask(_)
            | FromTask::TaskState(_) => Reply::Empty,
            FromTask::Unknown { kind, problem, .. } => {
                let message = match problem {
                    Some(problem) => format!("{kind} does not have the fields it should: {problem}"),
                    None => format!("Gust knows no request {kind:?}"),
                };
                Reply::error(ErrorType::ApiServerError, json!({"status_code": 400, "message": message}))
            }
            _ => return None,
        };
        Some(reply.into())
    }

    async fn note(&self, write: Write, reply: Reply) -> Answer {
        self.buffer.lock().await.push(write, self.services.clock.monotonic());
        reply.into()
    }

    async fn answer_once(&self, body: &FromTask) -> Result<Reply, WorkerError> {
        if let Some(reply) = self.sealed.answer(body).await? {
            return Ok(reply);
        }
        match body {
            FromTask::GetXCom(m) => self.get_xcom(m).await,
            FromTask::GetXComCount(m) => self.count_xcoms(m).await,
            FromTask::GetXComSequenceItem(m) => self.xcom_item(m).await,
            FromTask::GetXComSequenceSlice(m) => self.xcom_slice(m).await,
            FromTask::SetXCom(m) => self.set_foreign_xcom(m).await,
            FromTask::DeleteXCom(m) => self.delete_foreign_xcom(m).await,
            FromTask::GetDag(m) => self.get_dag(m).await,
            FromTask::GetDagRun(m) => self.get_dag_run(m).await,
            FromTask::GetDagRunState(m) => self.dag_run_state(m).await,
            FromTask::GetDRCount(m) => self.count_dag_runs(m).await,
            FromTask::GetPreviousDagRun(m) => self.previous_dag_run(m).await,
            FromTask::GetPrevSuccessfulDagRun(_) => self.previous_successful_dag_run().await,
            FromTask::TriggerDagRun(m) => self.trigger_dag_run(m).await,
            FromTask::GetTICount(m) => self.count_task_instances(m).await,
            FromTask::GetTaskStates(m) => self.task_states(m).await,
            FromTask::GetPreviousTI(m) => self.previous_task_instance(m).await,
            FromTask::GetTaskBreadcrumbs(m) => self.breadcrumbs(m).await,
            FromTask::GetTaskRescheduleStartDate(m) => self.reschedule_start(m).await,
            FromTask::ValidateInletsAndOutlets(m) => self.validate_assets(m).await,
            FromTask::GetAssetByName(m) => self.get_asset(Some(&m.name), None).await,
            FromTask::GetAssetByUri(m) => self.get_asset(None, Some(&m.uri)).await,
            FromTask::GetAssetsByAlias(m) => self.assets_by_alias(m).await,
            FromTask::GetAssetEventByAsset(m) => self.events_by_asset(m).await,
            FromTask::GetAssetEventByAssetAlias(m) => self.events_by_alias(m).await,
            FromTask::GetTaskStateStore(_)
            | FromTask::SetTaskStateStore(_)
            | FromTask::DeleteTaskStateStore(_)
            | FromTask::ClearTaskStateStore(_) => self.task_store(body).await,
            FromTask::GetAssetStateStoreByName(_)
            | FromTask::GetAssetStateStoreByUri(_)
            | FromTask::SetAssetStateStoreByName(_)
            | FromTask::SetAssetStateStoreByUri(_)
            | FromTask::DeleteAssetStateStoreByName(_)
            | FromTask::DeleteAssetStateStoreByUri(_)
            | FromTask::ClearAssetStateStoreByName(_)
            | FromTask::ClearAssetStateStoreByUri(_) => self.asset_store(body).await,
            FromTask::CreateHITLDetailPayload(m) => self.create_hitl(m).await,
            FromTask::UpdateHITLDetail(m) => self.update_hitl(m).await,
            FromTask::GetHITLDetailResponse(m) => self.hitl_response(m).await,
            other => Ok(refused(400, "unserved", format!("{} is not served here", other.kind()))),
        }
    }

    async fn read(&self) -> Result<Box<dyn Tx>, WorkerError> {
        Ok(self.services.metastore.begin(TxMode::Read).await?)
    }

    async fn write(&self) -> Result<Box<dyn Tx>, WorkerError> {
        Ok(self.services.metastore.begin(TxMode::Write).await?)
    }

    /// The row of a run, without asking where it is the asker's own.
    async fn run_id(
        &self,
        tx: &mut dyn Tx,
        dag_id: &str,
        run_id: &str,
    ) -> Result<Option<DagRunId>, WorkerError> {
        if let Some(own) = self.own_run(dag_id, run_id) {
            return Ok(Some(own));
        }
        Ok(tx.dag_run(&dag_id.into(), &run_id.into()).await?.map(|run| run.id))
    }

    fn own_run(&self, dag_id: &str, run_id: &str) -> Option<DagRunId> {
        let run = &self.asker.as_ref()?.run;
        (run.dag_id == *dag_id && run.run_id == *run_id).then_some(run.id)
    }

    /// The asker, for requests that only a task instance can make.
    fn asker(&self) -> Result<&Asker, Reply> {
        self.asker.as_ref().ok_or_else(|| refused(403, "forbidden", "only a running task may ask this"))
    }

    /// The asker, if it asks about itself.
    fn itself(&self, ti_id: uuid::Uuid) -> Result<&Asker, Reply> {
        let asker = self.asker()?;
        if asker.task_instance.id.0 == ti_id {
            Ok(asker)
        } else {
            Err(refused(403, "forbidden", "a task may ask this only about itself"))
        }
    }

    /// When the buffered writes have to be written, on the monotonic clock; `None` while there are none, or while a
    /// request is being served.
    pub(crate) fn writes_due_at(&self) -> Option<Duration> {
        let buffer = self.buffer.try_lock().ok()?;
        Some(buffer.since()? + self.config.write_delay)
    }

    /// Writes what is buffered.
    pub(crate) async fn flush(&self) -> Result<(), WorkerError> {
        let mut buffer = self.buffer.lock().await;
        self.write_out(&mut buffer).await
    }

    /// Takes what is buffered, for the transaction that ends the try.
    pub(crate) async fn take_writes(&self) -> Vec<Write> {
        self.buffer.lock().await.take()
    }

    /// A renewal of the lease that came with a write since this was last asked.
    pub(crate) fn take_renewal(&self) -> Option<(Duration, Renewal)> {
        self.renewed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn write_out(&self, buffer: &mut Buffer) -> Result<(), WorkerError> {
        if buffer.is_empty() {
            return Ok(());
        }
        let (clock, grace) = (&*self.services.clock, self.config.outage_grace);
        let writes = buffer.writes();
        persistently(clock, grace, || self.write_once(writes)).await?;
        buffer.take();
        Ok(())
    }

    async fn write_once(&self, writes: &[Write]) -> Result<(), WorkerError> {
        let Some(asker) = &self.asker else { return Ok(()) };
        let row = &asker.task_instance;
        let asked_at = self.services.clock.monotonic();
        let mut tx = self.write().await?;
        if let Some((epoch, attempt_id)) = asker.fence {
            // The renewal locks the row and is refused to whoever lost the try: a fence that costs nothing more.
            let renewal = tx
                .renew_lease(row.id, epoch, attempt_id, self.config.lease_ttl)
                .await?
                .ok_or(WorkerError::Revoked(row.id))?;
            *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = Some((asked_at, renewal));
        }
        apply(&mut *tx, asker, writes).await?;
        Ok(tx.commit().await?)
    }
}
