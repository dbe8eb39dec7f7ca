//! What a trigger brings its task (`airflow/models/trigger.py: handle_event_submit`).

use std::sync::Arc;

use gust_model::{
    AttemptId, CallbackId, TaskInstanceState,
    record::{TaskInstance, Timestamp, Trigger, XCom, XComKey},
    sdk_value,
};
use gust_planner::{EndedTry, TryOutcome, end_of_try};
use gust_ports::{
    Tx, Wake,
    metastore::{DagGraphs, Guard, TaskInstancePatch, TaskInstanceWrite, TxMode},
};
use serde_json::{Map, Value, json};

use crate::{
    callbacks::callback_rows,
    claim::Claimed,
    config::WorkerConfig,
    error::WorkerError,
    persist::changed_meanwhile,
    resume::{FAIL_METHOD, TRIGGER_TIMEOUT, failure_kwargs},
    services::Services,
};

/// How a trigger ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fired {
    /// It fired: the task goes on with this event, in the SDK's serialized form.
    Event(Value),
    /// It ends the task itself.
    Ends { outcome: TryOutcome, xcoms: Map<String, Value> },
    /// It raised: a traceback or a reason.
    Failed(String),
    /// It took longer than it may.
    TimedOut,
}

impl Fired {
    /// Reads a report of the triggerer's (`airflow/triggers/base.py: BaseTaskEndEvent`).
    pub(crate) fn from_report(event_type: &str, payload: Value, xcoms: Option<Map<String, Value>>) -> Self {
        let outcome = match event_type {
            "TaskSuccessEvent" => TryOutcome::Success,
            "TaskSkippedEvent" => TryOutcome::Skipped,
            // The callback and mail are the scheduler's to send: no process of the task's is there to do it.
            "TaskFailedEvent" => TryOutcome::Died { cause: "its trigger reported its failure".to_owned() },
            _ => return Self::Event(payload),
        };
        Self::Ends { outcome, xcoms: xcoms.unwrap_or_default() }
    }
}

/// Writes what triggers bring.
pub(crate) struct Waker {
    services: Services,
    config: Arc<WorkerConfig>,
    dags: Arc<DagGraphs>,
    attempt_id: AttemptId,
}

impl Waker {
    pub(crate) fn new(
        services: &Services,
        config: &Arc<WorkerConfig>,
        dags: &Arc<DagGraphs>,
        attempt_id: AttemptId,
    ) -> Self {
        Self { services: services.clone(), config: Arc::clone(config), dags: Arc::clone(dags), attempt_id }
    }

    /// Moves the waiting task on and removes the trigger. Nothing is written if the trigger is not ours any more, or
    /// its task does not wait for it. Returns whom to wake.
    pub(crate) async fn end_once(
        &self,
        row: &Trigger,
        fired: &Fired,
        callback_ids: [CallbackId; 2],
    ) -> Result<Vec<Wake>, WorkerError> {
        let mut tx = self.services.metastore.begin(TxMode::Write).await?;
        let is_ours = tx
            .trigger(row.id)
            .await?
            .is_some_and(|found| found.lease.is_some_and(|lease| lease.attempt_id == self.attempt_id));
        if !is_ours {
            return Ok(Vec::new());
        }
        let waiting = tx
            .task_instance(row.task_instance_id)
            .await?
            .filter(|ti| ti.state == TaskInstanceState::Deferred && ti.trigger_id == Some(row.id));
        let mut wakes = Vec::new();
        if let Some(ti) = waiting {
            let now = tx.now().await?;
            let ends = matches!(fired, Fired::Ends { .. });
            let patch = match fired {
                Fired::Event(event) => resumed(
                    ti.next_method.clone(),
                    sdk_value::with_event(&ti.next_kwargs, event.clone()),
                    now,
                ),
                Fired::Failed(traceback) => {
                    resumed(Some(FAIL_METHOD.to_owned()), failure_kwargs(traceback), now)
                }
                Fired::TimedOut => {
                    resumed(Some(FAIL_METHOD.to_owned()), json!({"error": TRIGGER_TIMEOUT}), now)
                }
                Fired::Ends { outcome, xcoms } => {
                    self.ended(&mut *tx, &ti, outcome, xcoms, callback_ids, now).await?
                }
            };
            let write = TaskInstanceWrite { id: ti.id, guard: Guard::ChangeSeq(ti.change_seq), patch };
            if tx.update_task_instances(&[write]).await?.is_empty() {
                return Err(changed_meanwhile("a deferred task instance"));
            }
            wakes.push(Wake::Admission);
            wakes.push(Wake::Run { dag_id: ti.dag_id, run_id: ti.run_id, plan: ends });
        }
        tx.delete_trigger(row.id).await?;
        tx.commit().await?;
        Ok(wakes)
    }

    /// The task ends without going on.
    async fn ended(
        &self,
        tx: &mut dyn Tx,
        ti: &TaskInstance,
        outcome: &TryOutcome,
        xcoms: &Map<String, Value>,
        callback_ids: [CallbackId; 2],
        now: Timestamp,
    ) -> Result<TaskInstancePatch, WorkerError> {
        let claimed = Claimed::of_waiting(tx, &self.services, &self.dags, ti, self.attempt_id).await?;
        let ended = end_of_try(ti, outcome, Some(&claimed.dag), claimed.run.logical_date, now);
        let EndedTry { state, end_date, due_at, retry_delay_override, retry_reason, history, callback } =
            ended;
        if let Some(history) = &history {
            tx.insert_try(history).await?;
        }
        if let Some((kind, cause)) = &callback {
            for callback in callback_rows(&claimed, *kind, cause, callback_ids, now) {
                tx.insert_callback(&callback).await?;
            }
        }
        if state != TaskInstanceState::UpForRetry && !xcoms.is_empty() {
            let pushed: Vec<XCom> = xcoms
                .iter()
                .filter(|(_, value)| value.to_string().len() <= self.config.max_xcom_bytes)
                .map(|(key, value)| XCom {
                    key: XComKey {
                        dag_run_id: ti.dag_run_id,
                        task_id: ti.task_id.clone(),
                        map_index: ti.map_index,
                        key: key.clone(),
                    },
                    dag_id: ti.dag_id.clone(),
                    run_id: ti.run_id.clone(),
                    value: value.clone(),
                    mapped_length: None,
                    is_dag_result: false,
                    timestamp: now,
                })
                .collect();
            tx.put_xcoms(&pushed).await?;
        }
        Ok(TaskInstancePatch {
            state: Some(state),
            is_dirty: Some(true),
            end_date: Some(Some(end_date)),
            due_at: Some(due_at),
            next_method: Some(None),
            next_kwargs: Some(Value::Null),
            trigger_id: Some(None),
            retry_delay_override: Some(retry_delay_override),
            retry_reason: Some(retry_reason),
            ..TaskInstancePatch::default()
        })
    }
}

/// The task goes on: it waits for a slot again.
fn resumed(next_method: Option<String>, next_kwargs: Value, now: Timestamp) -> TaskInstancePatch {
    TaskInstancePatch {
        state: Some(TaskInstanceState::Scheduled),
        scheduled_at: Some(Some(now)),
        due_at: Some(None),
        next_method: Some(next_method),
        next_kwargs: Some(next_kwargs),
        trigger_id: Some(None),
        ..TaskInstancePatch::default()
    }
}
