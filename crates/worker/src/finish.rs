//! The end of a try: one fenced transaction, then the wake-ups.

use std::sync::Arc;

use gust_model::{
    CallbackId, EventId, TaskInstanceState, TriggerId,
    record::{TaskInstance, TaskReschedule, Timestamp, Trigger},
    sdk_value,
};
use gust_planner::{CallbackKind, EndedTry, TryOutcome, end_of_try};
use gust_ports::{
    Tx, Wake,
    metastore::{Guard, LeasePatch, TaskInstancePatch, TaskInstanceWrite, TxMode},
};
use gust_python_host::messages::{AwaitInputTask, DeferTask, EndState, TaskState};
use serde_json::Value;
use tracing::{info, warn};

use crate::{
    callbacks::callback_rows,
    claim::Claimed,
    config::WorkerConfig,
    error::WorkerError,
    outcome::{Terminal, Verdict},
    outlets::register_outlets,
    persist::persistently,
    requests::{Asker, Write, apply},
    resume::{Deferral, defer},
    services::Services,
};

/// Everything that the end of a try needs. Ids are drawn once, so that a commit whose answer was lost can be told from
/// one that never happened.
pub(crate) struct Finish {
    services: Services,
    config: Arc<WorkerConfig>,
    claimed: Arc<Claimed>,
    asker: Asker,
    verdict: Verdict,
    writes: Vec<Write>,
    trigger_id: TriggerId,
    callback_ids: [CallbackId; 2],
}

/// What a committed end wakes.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) state: Option<TaskInstanceState>,
    wakes: Vec<Wake>,
}

/// What the transaction writes to the row, and what comes with it.
struct Change {
    patch: TaskInstancePatch,
    state: TaskInstanceState,
    end_date: Option<Timestamp>,
    history: Option<TaskInstance>,
    reschedule: Option<TaskReschedule>,
    trigger: Option<Trigger>,
    callback: Option<(CallbackKind, String)>,
}

impl Finish {
    pub(crate) fn new(
        services: &Services,
        config: &Arc<WorkerConfig>,
        claimed: &Arc<Claimed>,
        asker: Asker,
        verdict: Verdict,
        writes: Vec<Write>,
    ) -> Self {
        let fresh = || services.ids.fresh();
        Self {
            services: services.clone(),
            config: Arc::clone(config),
            claimed: Arc::clone(claimed),
            asker,
            verdict,
            writes,
            trigger_id: TriggerId(fresh()),
            callback_ids: [CallbackId(fresh()), CallbackId(fresh())],
        }
    }

    /// Commits the end and wakes whoever waits for it. [`WorkerError::Revoked`] if the try is no longer ours.
    pub(crate) async fn commit(self) -> Result<Outcome, WorkerError> {
        if self.verdict == Verdict::Abandoned {
            return Ok(Outcome::default());
        }
        let (clock, grace) = (&*self.services.clock, self.config.outage_grace);
        let outcome = persistently(clock, grace, || self.commit_once()).await?;
        for wake in &outcome.wakes {
            self.services.wakeups.wake(wake.clone()).await;
        }
        let state = outcome.state.map_or("released", TaskInstanceState::as_str);
        metrics::counter!("gust_tries_ended_total", "state" => state).increment(1);
        info!(
            dag_id = %self.claimed.run.dag_id,
            run_id = %self.claimed.run.run_id,
            task_id = %self.claimed.task_instance.task_id,
            map_index = %self.claimed.task_instance.map_index,
            state,
            "a try ended"
        );
        Ok(outcome)
    }

    async fn commit_once(&self) -> Result<Outcome, WorkerError> {
        let mut tx = self.services.metastore.begin(TxMode::Write).await?;
        let now = tx.now().await?;
        let change = self.change(&mut *tx, now).await?;
        let row = &self.claimed.task_instance;
        let write = TaskInstanceWrite {
            id: row.id,
            guard: Guard::Fence(self.claimed.epoch, self.claimed.attempt_id),
            patch: change.patch.clone(),
        };
        if tx.update_task_instances(&[write]).await?.is_empty() {
            return self.read_back(&mut *tx, &change).await;
        }
        apply(&mut *tx, &self.asker, &self.writes).await?;
        if let Some(history) = &change.history {
            tx.insert_try(history).await?;
        }
        if let Some(reschedule) = &change.reschedule {
            tx.insert_reschedule(reschedule).await?;
        }
        if let Some(trigger) = &change.trigger {
            tx.insert_trigger(trigger).await?;
        }
        let mut wakes = self.wakes(&change);
        self.after_end(&mut *tx, &change, now, &mut wakes).await?;
        tx.commit().await?;
        Ok(Outcome { state: Some(change.state), wakes })
    }

    /// What hangs on certain ends: asset events, callbacks, the end of the others.
    async fn after_end(
        &self,
        tx: &mut dyn Tx,
        change: &Change,
        now: Timestamp,
        wakes: &mut Vec<Wake>,
    ) -> Result<(), WorkerError> {
        if let Verdict::Said(Terminal::Succeed(said)) = &self.verdict {
            let fresh = || EventId(self.services.ids.fresh());
            let fresh_asset = || gust_model::AssetId(self.services.ids.fresh());
            wakes.extend(register_outlets(tx, &self.claimed, said, now, &fresh, &fresh_asset).await?);
            if self.config.clear_state_on_success {
                let row = &self.claimed.task_instance;
                let scope = gust_model::record::StateStoreScope::Task(
                    row.dag_run_id,
                    row.task_id.clone(),
                    row.map_index,
                );
                tx.state_store_delete(&scope, None).await?;
            }
        }
        if let Some((kind, cause)) = &change.callback {
            for callback in callback_rows(&self.claimed, *kind, cause, self.callback_ids, now) {
                tx.insert_callback(&callback).await?;
            }
        }
        if change.state == TaskInstanceState::Failed && self.claimed.dag.fail_fast {
            stop_the_others(tx, &self.claimed, now).await?;
        }
        Ok(())
    }

    fn wakes(&self, change: &Change) -> Vec<Wake> {
        let run = &self.claimed.run;
        let mut wakes = vec![
            Wake::Run { dag_id: run.dag_id.clone(), run_id: run.run_id.clone(), plan: true },
            Wake::Admission,
        ];
        if change.trigger.is_some() {
            wakes.push(Wake::Trigger);
        }
        if change.state == TaskInstanceState::Queued {
            wakes.push(Wake::Queued);
        }
        wakes
    }

    /// The fence refused: either somebody took the try, or an earlier commit of this very end got through.
    async fn read_back(&self, tx: &mut dyn Tx, change: &Change) -> Result<Outcome, WorkerError> {
        let row = &self.claimed.task_instance;
        let found = tx.task_instance(row.id).await?;
        let is_ours = found.is_some_and(|found| {
            found.epoch == self.claimed.epoch
                && found.state == change.state
                && found.lease.is_none()
                && (change.end_date.is_none() || found.end_date.is_some())
        });
        if is_ours {
            return Ok(Outcome { state: Some(change.state), wakes: self.wakes(change) });
        }
        warn!(task_instance = %row.id, "the end of a try was refused: it is no longer this worker's");
        Err(WorkerError::Revoked(row.id))
    }

    async fn change(&self, tx: &mut dyn Tx, now: Timestamp) -> Result<Change, WorkerError> {
        let mut change = match &self.verdict {
            Verdict::Said(said) => self.said(tx, said, now).await?,
            Verdict::Died(cause) => self.ended(&TryOutcome::Died { cause: cause.clone() }, now),
            Verdict::Released | Verdict::Abandoned => Self::released(now),
        };
        change.patch.lease = LeasePatch::End;
        if let Some(index) = self.rendered_map_index() {
            change.patch.rendered_map_index = Some(Some(index.to_owned()));
        }
        Ok(change)
    }

    fn rendered_map_index(&self) -> Option<&str> {
        let Verdict::Said(said) = &self.verdict else { return None };
        match said {
            Terminal::Succeed(m) => m.rendered_map_index.as_deref(),
            Terminal::Retry(m) => m.rendered_map_index.as_deref(),
            Terminal::Defer(m) => m.rendered_map_index.as_deref(),
            Terminal::AwaitInput(m) => m.rendered_map_index.as_deref(),
            Terminal::State(m) => m.rendered_map_index.as_deref(),
            Terminal::Reschedule(_) => None,
        }
    }

    async fn said(&self, tx: &mut dyn Tx, said: &Terminal, now: Timestamp) -> Result<Change, WorkerError> {
        Ok(match said {
            Terminal::Succeed(m) => self.ended(&TryOutcome::Success, self.end_date(m.end_date)),
            Terminal::Retry(m) => {
                let reason = m.retry_reason.as_ref().map(|reason| reason.chars().take(500).collect());
                let outcome = TryOutcome::Retry { delay_s: m.retry_delay_seconds, reason };
                self.ended(&outcome, self.end_date(m.end_date))
            }
            Terminal::State(TaskState { state, end_date, .. }) => {
                let end_date = self.end_date(end_date.unwrap_or(now));
                match state {
                    // It was told whether it may be tried again, and says that it is not.
                    EndState::Failed => self.ended(&TryOutcome::FailedForGood, end_date),
                    EndState::Skipped => self.ended(&TryOutcome::Skipped, end_date),
                    EndState::Removed => {
                        let mut change = self.ended(&TryOutcome::Skipped, end_date);
                        change.state = TaskInstanceState::Removed;
                        change.patch.state = Some(TaskInstanceState::Removed);
                        change
                    }
                }
            }
            Terminal::Reschedule(m) => {
                let end_date = self.end_date(m.end_date);
                let mut change = self.ended(&TryOutcome::Reschedule(m.reschedule_date), end_date);
                let row = &self.claimed.task_instance;
                change.reschedule = Some(TaskReschedule {
                    task_instance_id: row.id,
                    try_number: row.try_number,
                    start_date: row.start_date.unwrap_or(end_date),
                    end_date,
                    reschedule_date: m.reschedule_date,
                });
                change
            }
            Terminal::Defer(m) => self.deferred(m, now),
            Terminal::AwaitInput(m) => self.awaiting(tx, m, now).await?,
        })
    }

    /// The child's clock is not the metastore's: a try does not end before it began.
    fn end_date(&self, said: Timestamp) -> Timestamp {
        self.claimed.task_instance.start_date.map_or(said, |start| said.max(start))
    }

    fn ended(&self, outcome: &TryOutcome, end_date: Timestamp) -> Change {
        let row = &self.claimed.task_instance;
        let EndedTry { state, end_date, due_at, retry_delay_override, retry_reason, history, callback } =
            end_of_try(row, outcome, Some(&self.claimed.dag), self.claimed.run.logical_date, end_date);
        let patch = TaskInstancePatch {
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
        };
        Change { patch, state, end_date: Some(end_date), history, reschedule: None, trigger: None, callback }
    }

    fn deferred(&self, m: &DeferTask, now: Timestamp) -> Change {
        let row = &self.claimed.task_instance;
        let Deferral { due_at, next_method, next_kwargs, needs_trigger } = defer(m, now);
        let trigger = needs_trigger.then(|| Trigger {
            id: self.trigger_id,
            task_instance_id: row.id,
            classpath: m.classpath.clone(),
            kwargs: m.trigger_kwargs.clone(),
            created_at: now,
            epoch: gust_model::Epoch::default(),
            lease: None,
        });
        let patch = TaskInstancePatch {
            state: Some(TaskInstanceState::Deferred),
            is_dirty: Some(true),
            due_at: Some(due_at),
            next_method: Some(Some(next_method)),
            next_kwargs: Some(next_kwargs),
            trigger_id: Some(trigger.as_ref().map(|trigger| trigger.id)),
            ..TaskInstancePatch::default()
        };
        Change { trigger, ..Change::waiting(patch, TaskInstanceState::Deferred) }
    }

    /// Waits for a person, unless the answer is there already
    /// (`airflow/api_fastapi/execution_api/routes/task_instances.py`, `TIAwaitingInputStatePayload`).
    async fn awaiting(
        &self,
        tx: &mut dyn Tx,
        m: &AwaitInputTask,
        now: Timestamp,
    ) -> Result<Change, WorkerError> {
        let asked = tx.hitl(self.claimed.task_instance.id).await?;
        let next_kwargs = Value::Object(m.next_kwargs.clone().unwrap_or_default());
        let answer = asked.and_then(|asked| asked.response);
        let (state, next_kwargs, due_at) = match answer {
            Some(answer) => {
                let event = sdk_value::hitl_event(&answer, false);
                (TaskInstanceState::Scheduled, sdk_value::with_event(&next_kwargs, event), None)
            }
            None => (TaskInstanceState::AwaitingInput, next_kwargs, m.timeout.map(|limit| now + limit.0)),
        };
        let patch = TaskInstancePatch {
            state: Some(state),
            is_dirty: Some(true),
            due_at: Some(due_at),
            next_method: Some(Some(m.next_method.clone())),
            next_kwargs: Some(next_kwargs),
            trigger_id: Some(None),
            scheduled_at: (state == TaskInstanceState::Scheduled).then_some(Some(now)),
            ..TaskInstancePatch::default()
        };
        Ok(Change::waiting(patch, state))
    }

    /// Back into the queue, under its next epoch, to be sent again at once.
    fn released(now: Timestamp) -> Change {
        let patch = TaskInstancePatch {
            state: Some(TaskInstanceState::Queued),
            next_epoch: true,
            queued_at: Some(Some(now)),
            resend_at: Some(Some(now)),
            send_count: Some(0),
            ..TaskInstancePatch::default()
        };
        Change::waiting(patch, TaskInstanceState::Queued)
    }
}

impl Change {
    fn waiting(patch: TaskInstancePatch, state: TaskInstanceState) -> Self {
        Self { patch, state, end_date: None, history: None, reschedule: None, trigger: None, callback: None }
    }
}

/// The first failed task of such a DAG stops what is not a teardown
/// (`airflow/models/taskinstance.py: _stop_remaining_tasks`).
async fn stop_the_others(tx: &mut dyn Tx, claimed: &Claimed, now: Timestamp) -> Result<(), WorkerError> {
    let rows = tx.task_instances_of(claimed.run.id, &[]).await?;
    let is_teardown = |row: &TaskInstance| {
        crate::dags::task_of(&claimed.dag, row.task_id.as_str()).is_some_and(|task| task.is_teardown)
    };
    let writes: Vec<TaskInstanceWrite> = rows
        .iter()
        .filter(|row| {
            row.task_id != claimed.task_instance.task_id && !row.state.is_finished() && !is_teardown(row)
        })
        .map(|row| {
            let runs = row.state == TaskInstanceState::Running;
            let state = if runs { TaskInstanceState::Failed } else { TaskInstanceState::Skipped };
            let patch = TaskInstancePatch {
                state: Some(state),
                is_dirty: Some(true),
                // Its worker, if it has one, is refused at the next renewal.
                next_epoch: true,
                lease: LeasePatch::End,
                start_date: row.start_date.is_none().then_some(Some(now)),
                end_date: Some(Some(now)),
                due_at: Some(None),
                ..TaskInstancePatch::default()
            };
            TaskInstanceWrite { id: row.id, guard: Guard::ChangeSeq(row.change_seq), patch }
        })
        .collect();
    if tx.update_task_instances(&writes).await?.len() < writes.len() {
        return Err(crate::persist::changed_meanwhile("a task instance to stop"));
    }
    Ok(())
}
