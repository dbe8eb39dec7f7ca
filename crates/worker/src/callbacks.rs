//! Callbacks of tries and runs that could not run them themselves.

use std::{sync::Arc, time::Duration};

use gust_model::{
    AttemptId, CallbackId, Epoch, MapIndex,
    record::{Callback, CallbackState, DagRun, TaskInstance, Timestamp},
};
use gust_planner::CallbackKind;
use gust_ports::{Tx, metastore::TxMode};
use gust_python_host::{
    CallbackRequest, Exit, SpawnCallbacks,
    messages::{DagRunContext, EmailRequest, TIRunContext, TaskCallbackRequest},
};
use gust_task_log::TryLog;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    claim::{Claimed, consumed_events, wire_run, wire_task_instance},
    error::WorkerError,
    lines::Level,
    log::LogWriter,
    outcome::{Verdict, verdict},
    persist::persistently,
    redact::Secrets,
    requests::{Asker, Desk},
    supervise::Watch,
    worker::{Limits, Worker},
};

/// How long a callback may run. Its claim holds as long, since it is not renewed.
const TIME_LIMIT: Duration = Duration::from_mins(10);
/// How much longer the claim holds than the process may run.
const CLAIM_MARGIN: Duration = Duration::from_mins(2);

/// The rows for a try that died without a word: its callback and its mail, where the task has them
/// (`airflow/jobs/scheduler_job_runner.py: process_executor_events`).
pub(crate) fn callback_rows(
    claimed: &Claimed,
    kind: CallbackKind,
    cause: &str,
    ids: [CallbackId; 2],
    now: Timestamp,
) -> Vec<Callback> {
    let Some(task) = claimed.task() else { return Vec::new() };
    let (callback_type, email_type, has_callback, wants_mail) = match kind {
        CallbackKind::Failure => ("failed", "failure", task.has_on_failure_callback, task.email_on_failure),
        CallbackKind::Retry => ("up_for_retry", "retry", task.has_on_retry_callback, task.email_on_retry),
    };
    let context = callback_context(claimed);
    let bundle_version = claimed.bundle_version.as_ref().map(ToString::to_string);
    let mut requests = Vec::new();
    if has_callback {
        requests.push(CallbackRequest::Task(TaskCallbackRequest {
            filepath: claimed.relative_fileloc.clone(),
            bundle_name: claimed.bundle_name.to_string(),
            bundle_version: bundle_version.clone(),
            msg: Some(cause.to_owned()),
            ti: claimed.wire(),
            task_callback_type: Some(callback_type.to_owned()),
            context_from_server: Some(context.clone()),
        }));
    }
    if wants_mail && !task.email.is_null() {
        requests.push(CallbackRequest::Email(EmailRequest {
            filepath: claimed.relative_fileloc.clone(),
            bundle_name: claimed.bundle_name.to_string(),
            bundle_version,
            msg: Some(cause.to_owned()),
            ti: claimed.wire(),
            email_type: email_type.to_owned(),
            context_from_server: context,
        }));
    }
    requests
        .into_iter()
        .zip(ids)
        .filter_map(|(request, id)| {
            Some(Callback {
                id,
                state: CallbackState::Queued,
                bundle_name: claimed.bundle_name.clone(),
                bundle_version: claimed.bundle_version.clone(),
                relative_fileloc: claimed.relative_fileloc.clone(),
                dag_id: claimed.run.dag_id.clone(),
                run_id: claimed.run.run_id.clone(),
                task_instance_id: Some(claimed.task_instance.id),
                request: serde_json::to_value(request).ok()?,
                created_at: now,
                epoch: Epoch::default(),
                lease: None,
                error: None,
            })
        })
        .collect()
}

/// What a callback is told of its run: as its try was, without what only a try that goes on needs.
fn callback_context(claimed: &Claimed) -> TIRunContext {
    TIRunContext {
        next_method: None,
        next_kwargs: Value::Null,
        xcom_keys_to_clear: Vec::new(),
        ..claimed.context().clone()
    }
}

impl Worker {
    /// Runs a callback. False if it was not to be had.
    pub(crate) async fn run_callback(
        &self,
        id: CallbackId,
        epoch: Epoch,
        limits: &Limits,
        claimed: impl Future<Output = ()>,
    ) -> Result<bool, WorkerError> {
        let attempt_id = AttemptId(self.services.ids.fresh());
        let (clock, grace) = (&*self.services.clock, self.config.outage_grace);
        let found = persistently(clock, grace, || self.claim_callback(id, epoch, attempt_id)).await?;
        claimed.await;
        let Some((callback, asker)) = found else { return Ok(false) };
        let error = match self.run_claimed_callback(&callback, asker, limits).await {
            Ok(error) => error,
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = &error {
            warn!(callback = %id, error, "a callback failed");
        } else {
            info!(callback = %id, "a callback ended");
        }
        persistently(clock, grace, || self.finish_callback(id, attempt_id, error.as_deref())).await?;
        Ok(true)
    }

    async fn claim_callback(
        &self,
        id: CallbackId,
        epoch: Epoch,
        attempt_id: AttemptId,
    ) -> Result<Option<(Callback, Option<Asker>)>, WorkerError> {
        let mut tx = self.services.metastore.begin(TxMode::Write).await?;
        let ttl = TIME_LIMIT + CLAIM_MARGIN;
        let mut callback = match tx.claim_callback(id, epoch, attempt_id, ttl).await? {
            Some(callback) => callback,
            // The answer to an earlier claim of ours may have been lost.
            None => match tx.callback(id).await? {
                Some(callback) if callback.lease.is_some_and(|lease| lease.attempt_id == attempt_id) => {
                    callback
                }
                _ => return Ok(None),
            },
        };
        let run = tx.dag_run(&callback.dag_id, &callback.run_id).await?;
        let row = match callback.task_instance_id {
            Some(id) => tx.task_instance(id).await?,
            None => None,
        };
        if callback.bundle_version.is_none() {
            // A run that follows its DAG's newest code has its callbacks run with that as well.
            callback.bundle_version = tx.dag(&callback.dag_id).await?.and_then(|dag| dag.bundle_version);
        }
        self.add_context(&mut *tx, &mut callback.request, row.as_ref(), run.as_ref(), attempt_id).await?;
        tx.commit().await?;
        let asker = row.zip(run).map(|(task_instance, run)| Asker { task_instance, run, fence: None });
        Ok(Some((callback, asker)))
    }

    /// Adds what a scheduler that queued a callback left to be read when it runs: its rows hold ids alone
    /// (`airflow/callbacks/callback_requests.py: context_from_server`).
    async fn add_context(
        &self,
        tx: &mut dyn Tx,
        request: &mut Value,
        row: Option<&TaskInstance>,
        run: Option<&DagRun>,
        attempt_id: AttemptId,
    ) -> Result<(), WorkerError> {
        if request.get("context_from_server").is_some_and(|context| !context.is_null()) {
            return Ok(());
        }
        let context = match (request["type"].as_str(), row, run) {
            (Some("DagCallbackRequest"), row, Some(run)) => {
                let events = consumed_events(tx, run).await?;
                serde_json::to_value(DagRunContext {
                    dag_run: Some(wire_run(run, events)),
                    last_ti: row.map(wire_task_instance),
                })
            }
            (Some(_), Some(row), Some(_)) => {
                match Claimed::of_waiting(tx, &self.services, &self.dags, row, attempt_id).await {
                    Ok(claimed) => serde_json::to_value(callback_context(&claimed)),
                    Err(WorkerError::Metastore(error)) => return Err(error.into()),
                    // What cannot be read is named when the callback is run without it.
                    Err(error) => {
                        warn!(%error, "a callback runs without its context");
                        return Ok(());
                    }
                }
            }
            _ => return Ok(()),
        };
        if let (Ok(context), Some(fields)) = (context, request.as_object_mut()) {
            fields.insert("context_from_server".to_owned(), context);
        }
        Ok(())
    }

    async fn finish_callback(
        &self,
        id: CallbackId,
        attempt_id: AttemptId,
        error: Option<&str>,
    ) -> Result<(), WorkerError> {
        let mut tx = self.services.metastore.begin(TxMode::Write).await?;
        tx.finish_callback(id, attempt_id, error).await?;
        Ok(tx.commit().await?)
    }

    /// What went wrong, if anything did.
    async fn run_claimed_callback(
        &self,
        callback: &Callback,
        asker: Option<Asker>,
        limits: &Limits,
    ) -> Result<Option<String>, WorkerError> {
        let request: CallbackRequest = serde_json::from_value(callback.request.clone())
            .map_err(|error| WorkerError::UnreadableCallback(error.to_string()))?;
        let version = callback.bundle_version.as_ref().ok_or_else(|| WorkerError::NoBundleVersion {
            dag: callback.dag_id.to_string(),
            run: callback.run_id.to_string(),
        })?;
        let bundle_path = self.services.bundles.local_path(&callback.bundle_name, version).await?;
        let secrets = Arc::new(Secrets::new(self.config.min_secret_length, &self.config.sensitive_names));
        let (try_log, epoch) = log_of(callback, &request, asker.as_ref());
        let mut log = LogWriter::new(&self.services, &self.config, try_log, epoch, &secrets);
        let desk = Arc::new(Desk::new(&self.services, &self.config, &self.dags, &secrets, asker));
        let spawn = SpawnCallbacks {
            bundle_path,
            bundle_name: callback.bundle_name.to_string(),
            rel_path: callback.relative_fileloc.clone(),
            requests: vec![request],
            env: self.config.env.clone(),
        };
        let mut process = match self.services.processes.start_callbacks(spawn).await {
            Ok(process) => process,
            Err(error) => {
                log.say(Level::Error, &format!("The callback could not be started: {error}"), Map::new());
                log.end().await;
                return Err(error.into());
            }
        };
        let watch = Watch {
            services: self.services.clone(),
            config: Arc::clone(&self.config),
            desk: Arc::clone(&desk),
            lease: None,
            time_limit: Some(TIME_LIMIT),
            deadline: limits.deadline,
            revoked: Arc::new(Notify::new()),
            shutdown: CancellationToken::new(),
        };
        let ended = watch.until_end(&mut *process, &mut log).await;
        desk.flush().await?;
        let error = match (ended.exited.exit, verdict(None, &ended.exited, ended.killed)) {
            (Exit::Code(0), _) if ended.killed.is_none() => None,
            (_, Verdict::Died(cause)) => Some(cause),
            (exit, _) => Some(format!("{exit:?}")),
        };
        if let Some(error) = &error {
            let more = json!({"error": error}).as_object().cloned().unwrap_or_default();
            log.say(Level::Error, "The callback did not end well", more);
        }
        log.end().await;
        Ok(error)
    }
}

/// Where a callback's log goes: behind the log of the try that it is of, or, for a run's, beside those of its tasks.
fn log_of(callback: &Callback, request: &CallbackRequest, asker: Option<&Asker>) -> (TryLog, Epoch) {
    let wire = match request {
        CallbackRequest::Task(request) => Some(&request.ti),
        CallbackRequest::Email(request) => Some(&request.ti),
        CallbackRequest::Dag(_) => None,
    };
    if let Some((wire, asker)) = wire.zip(asker) {
        let try_number = i32::try_from(wire.try_number).unwrap_or(asker.task_instance.try_number);
        let log = TryLog { try_number, ..TryLog::of(&asker.task_instance) };
        // The try itself wrote under its own epoch, and no later epoch writes to this try's log.
        return (log, Epoch(asker.task_instance.epoch.0 + callback.epoch.0));
    }
    let log = TryLog {
        dag_id: callback.dag_id.clone(),
        run_id: callback.run_id.clone(),
        task_id: "__callback__".into(),
        map_index: MapIndex::UNMAPPED,
        try_number: 1,
    };
    (log, callback.epoch)
}
