//! The reaper: ends tries whose lease nobody renews any more, and wakes task instances whose wait is over. Whoever runs
//! a pass may reap; the one that queued a try has no part in it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use gust_model::{
    CallbackId, Epoch, TaskInstanceState,
    dag::Dag,
    record::{Callback, CallbackState, DagRun, TaskInstance, Timestamp},
    sdk_value,
};
use gust_planner::{CallbackKind, EndedTry, TryOutcome, end_of_try};
use gust_ports::{
    Ids, ObjectStore, Tx, Wake,
    metastore::{
        DagGraphs, Guard, Hitl, LeasePatch, Page, TaskInstanceFilter, TaskInstancePatch, TaskInstanceWrite,
        TxMode, transact,
    },
};
use gust_task_log::{ChunkName, TryLog, encode_chunk, read_log};
use serde_json::{Value, json};

use crate::{Scheduler, SchedulerError, graphs::graph_of};

/// How many tries, or waits, one pass ends.
const BATCH: u32 = 128;

/// Ends tries whose lease has expired by at least `grace`. Returns how many.
pub(crate) async fn reap(scheduler: &Scheduler, grace: Duration) -> Result<usize, SchedulerError> {
    reap_those(scheduler, Which::Expired(grace)).await
}

/// Ends all tries that anybody holds, for a process that knows that no worker but its own, new ones is left.
pub(crate) async fn reap_all(scheduler: &Scheduler) -> Result<usize, SchedulerError> {
    reap_those(scheduler, Which::All).await
}

/// Which tries are given up.
#[derive(Debug, Clone, Copy)]
enum Which {
    /// Those whose lease ended so long ago.
    Expired(Duration),
    /// All.
    All,
}

async fn reap_those(scheduler: &Scheduler, which: Which) -> Result<usize, SchedulerError> {
    let step = Step { graphs: Arc::clone(&scheduler.graphs), ids: Arc::clone(&scheduler.ids) };
    let reaped = transact(&*scheduler.store, TxMode::Write, |tx| {
        let step = step.clone();
        Box::pin(async move { step.reap(tx, which).await })
    })
    .await?;
    for row in &reaped {
        tracing::warn!(dag_id = %row.dag_id, run_id = %row.run_id, task_id = %row.task_id, map_index = %row.map_index,
            try_number = row.try_number, hostname = row.hostname, "its worker went silent; the try was ended");
        close_log(scheduler, row).await;
        let wake = Wake::Run { dag_id: row.dag_id.clone(), run_id: row.run_id.clone(), plan: true };
        scheduler.wakeups.wake(wake).await;
    }
    Ok(reaped.len())
}

/// What a person reads about a try that was reaped.
fn cause(row: &TaskInstance) -> String {
    format!(
        "the worker{} stopped renewing its lease: it was killed, lost its network, or its machine ended",
        row.hostname.as_ref().map(|host| format!(" on {host}")).unwrap_or_default()
    )
}

#[derive(Clone)]
struct Step {
    graphs: Arc<DagGraphs>,
    ids: Arc<dyn Ids>,
}

impl Step {
    async fn reap(&self, tx: &mut dyn Tx, which: Which) -> Result<Vec<TaskInstance>, SchedulerError> {
        let now = tx.now().await?;
        let mut reaped = Vec::new();
        let given_up = match which {
            Which::Expired(grace) => tx.lock_expired_leases(grace, BATCH).await?,
            Which::All => {
                let filter = TaskInstanceFilter {
                    states: vec![TaskInstanceState::Running, TaskInstanceState::Restarting],
                    ..TaskInstanceFilter::default()
                };
                tx.task_instances(&filter, &Page::first(BATCH)).await?.items
            }
        };
        for row in given_up {
            let Some(run) = tx.dag_run_by_id(row.dag_run_id).await? else { continue };
            // A graph that cannot be read must not keep a dead try alive; only its callbacks are lost.
            let dag = graph_of(&self.graphs, tx, &row.dag_id, row.dag_version_id).await.ok();
            let outcome = TryOutcome::Died { cause: cause(&row) };
            let ended = end_of_try(&row, &outcome, dag.as_deref(), run.logical_date, now);
            let write = TaskInstanceWrite {
                id: row.id,
                guard: Guard::ChangeSeq(row.change_seq),
                patch: patch(&ended),
            };
            if tx.update_task_instances(&[write]).await?.is_empty() {
                continue;
            }
            if let Some(history) = &ended.history {
                tx.insert_try(history).await?;
            }
            if let (Some((kind, cause)), Some(dag)) = (&ended.callback, &dag) {
                self.queue_callback(tx, &row, &run, dag, *kind, cause, now).await?;
            }
            reaped.push(row);
        }
        Ok(reaped)
    }

    #[expect(clippy::too_many_arguments, reason = "Each is one fact of the callback's row.")]
    async fn queue_callback(
        &self,
        tx: &mut dyn Tx,
        row: &TaskInstance,
        run: &DagRun,
        dag: &Dag,
        kind: CallbackKind,
        cause: &str,
        now: Timestamp,
    ) -> Result<(), SchedulerError> {
        let missing =
            || SchedulerError::MissingVersion { dag_id: row.dag_id.clone(), version: row.dag_version_id };
        let version = tx.dag_version(row.dag_version_id).await?.ok_or_else(missing)?;
        let relative_fileloc = match &dag.relative_fileloc {
            Some(fileloc) => fileloc.clone(),
            None => tx.dag(&row.dag_id).await?.map(|record| record.relative_fileloc).unwrap_or_default(),
        };
        let Some(task) = dag.index_of(row.task_id.as_str()).map(|index| dag.task(index)) else {
            return Ok(());
        };
        let (state, mail, has_callback, wants_mail) = match kind {
            CallbackKind::Failure => {
                (TaskInstanceState::Failed, "failure", task.has_on_failure_callback, task.email_on_failure)
            }
            CallbackKind::Retry => {
                (TaskInstanceState::UpForRetry, "retry", task.has_on_retry_callback, task.email_on_retry)
            }
        };
        // The try as it was, in the SDK's words; the worker that runs the callback adds the run's context.
        let common = json!({
            "filepath": relative_fileloc,
            "bundle_name": version.bundle_name,
            "bundle_version": run.bundle_version,
            "msg": cause,
            "ti": {
                "id": row.id,
                "task_id": row.task_id,
                "dag_id": row.dag_id,
                "run_id": row.run_id,
                "try_number": row.try_number,
                "dag_version_id": row.dag_version_id,
                "map_index": row.map_index,
                "hostname": row.hostname,
                "queue": row.queue,
            },
        });
        let mut requests = Vec::new();
        if has_callback {
            requests.push(json!({ "type": "TaskCallbackRequest", "task_callback_type": state }));
        }
        if wants_mail && !task.email.is_null() {
            requests.push(json!({ "type": "EmailRequest", "email_type": mail }));
        }
        for mut request in requests {
            if let (Some(fields), Some(common)) = (request.as_object_mut(), common.as_object()) {
                fields.extend(common.clone());
            }
            tx.insert_callback(&Callback {
                id: CallbackId(self.ids.fresh()),
                state: CallbackState::Queued,
                bundle_name: version.bundle_name.clone(),
                bundle_version: run.bundle_version.clone(),
                relative_fileloc: relative_fileloc.clone(),
                dag_id: row.dag_id.clone(),
                run_id: row.run_id.clone(),
                task_instance_id: Some(row.id),
                request,
                created_at: now,
                epoch: Epoch(0),
                lease: None,
                error: None,
            })
            .await?;
        }
        Ok(())
    }
}

/// What the end of a try writes, when it is not its worker that says so.
fn patch(ended: &EndedTry) -> TaskInstancePatch {
    TaskInstancePatch {
        state: Some(ended.state),
        is_dirty: Some(true),
        next_epoch: true,
        lease: LeasePatch::End,
        resend_at: Some(None),
        end_date: Some(Some(ended.end_date)),
        due_at: Some(ended.due_at),
        next_method: Some(None),
        next_kwargs: Some(Value::Null),
        trigger_id: Some(None),
        retry_delay_override: Some(ended.retry_delay_override),
        retry_reason: Some(ended.retry_reason.clone()),
        ..TaskInstancePatch::default()
    }
}

/// Writes the last part of a log that its worker left open. A log that cannot be closed is still readable, so a failure
/// is only logged.
async fn close_log(scheduler: &Scheduler, row: &TaskInstance) {
    if let Err(error) = try_close_log(&*scheduler.logs, row, scheduler.clock.now()).await {
        tracing::warn!(task_instance = %row.id, error, "the log of a reaped try was not closed");
    }
}

async fn try_close_log(logs: &dyn ObjectStore, row: &TaskInstance, now: Timestamp) -> Result<(), String> {
    let log = TryLog::of(row);
    let mut position = None;
    loop {
        let page = read_log(logs, &log, position, usize::MAX).await.map_err(|error| error.to_string())?;
        position = page.position;
        if !page.has_more {
            break;
        }
    }
    let seq = match position {
        Some(last) if last.epoch == row.epoch && last.is_end => return Ok(()),
        Some(last) if last.epoch == row.epoch => last.seq + 1,
        _ => 0,
    };
    let line = json!({
        "timestamp": now, "level": "error", "logger": "gust.reaper", "event": format!("The try was ended: {}.", cause(row)),
    });
    let chunk: Bytes = encode_chunk(format!("{line}\n").as_bytes()).map_err(|error| error.to_string())?;
    let key =
        log.key(ChunkName { epoch: row.epoch, seq, is_end: true }).map_err(|error| error.to_string())?;
    logs.create(&key, chunk).await.map_err(|error| error.to_string())?;
    Ok(())
}

/// Resumes deferred task instances whose moment has come, and those whose trigger took too long. Returns how many.
pub(crate) async fn end_waits(scheduler: &Scheduler) -> Result<usize, SchedulerError> {
    let mut total = 0;
    loop {
        let resumed = end_some_waits(scheduler).await?;
        total += resumed;
        if u32::try_from(resumed).is_ok_and(|resumed| resumed < BATCH) {
            return Ok(total);
        }
    }
}

async fn end_some_waits(scheduler: &Scheduler) -> Result<usize, SchedulerError> {
    let resumed = transact(&*scheduler.store, TxMode::Write, |tx| {
        Box::pin(async move {
            let now = tx.now().await?;
            let mut resumed = Vec::new();
            for row in tx.lock_due_waits(now, BATCH).await? {
                let mut patch = TaskInstancePatch {
                    state: Some(TaskInstanceState::Scheduled),
                    scheduled_at: Some(Some(now)),
                    due_at: Some(None),
                    trigger_id: Some(None),
                    ..TaskInstancePatch::default()
                };
                match row.state {
                    TaskInstanceState::Deferred => {
                        // Without a trigger's row it waited for a time, and its row says already how it goes on.
                        if let Some(trigger_id) = row.trigger_id {
                            tx.delete_trigger(trigger_id).await?;
                            time_out(&mut patch, "Trigger timeout");
                        }
                    }
                    _ => answer_for_nobody(tx, &row, now, &mut patch).await?,
                }
                let guard = Guard::ChangeSeq(row.change_seq);
                if !tx
                    .update_task_instances(&[TaskInstanceWrite { id: row.id, guard, patch }])
                    .await?
                    .is_empty()
                {
                    resumed.push(row);
                }
            }
            Ok::<_, SchedulerError>(resumed)
        })
    })
    .await?;
    for row in &resumed {
        let wake = Wake::Run { dag_id: row.dag_id.clone(), run_id: row.run_id.clone(), plan: false };
        scheduler.wakeups.wake(wake).await;
    }
    Ok(resumed.len())
}

fn time_out(patch: &mut TaskInstancePatch, error: &str) {
    patch.next_method = Some(Some("__fail__".to_owned()));
    patch.next_kwargs = Some(json!({ "error": error }));
}

/// Resumes a task whose question nobody answered in time: with the answer that came at the last moment, with the
/// question's defaults, or with the error that its operator raises
/// (`airflow/jobs/scheduler_job_runner.py: check_awaiting_input_timeouts`).
async fn answer_for_nobody(
    tx: &mut dyn Tx,
    row: &TaskInstance,
    now: Timestamp,
    patch: &mut TaskInstancePatch,
) -> Result<(), SchedulerError> {
    let event = match tx.hitl(row.id).await? {
        Some(Hitl { response: Some(response), .. }) => sdk_value::hitl_event(&response, false),
        Some(mut question) if question.detail["defaults"].is_array() => {
            let response = json!({
                "response_received": true,
                "responded_by_user": null,
                "responded_at": now,
                "chosen_options": question.detail["defaults"],
                "params_input": plain_params(&question.detail["params"]),
            });
            let event = sdk_value::hitl_event(&response, true);
            question.response = Some(response);
            tx.put_hitl(&question).await?;
            event
        }
        _ => json!({
            "error": "The Human-in-the-loop response timeout has passed without a response.",
            "error_type": "timeout",
        }),
    };
    patch.next_kwargs = Some(sdk_value::with_event(&row.next_kwargs, event));
    Ok(())
}

/// The defaults of a question's parameters, which may be written as values or as objects that hold one.
fn plain_params(params: &Value) -> Value {
    let plain = |value: &Value| value.get("value").unwrap_or(value).clone();
    let params = params.as_object().into_iter().flatten();
    Value::Object(params.map(|(name, value)| (name.clone(), plain(value))).collect())
}
