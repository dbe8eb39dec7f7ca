//! The executor: admits scheduled task instances to the queue under all limits, sends the hints, and sends again what
//! nobody claimed. The queued row is the outbox: sending happens after its commit, and nothing is lost if it fails.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::TimeDelta;
use gust_model::{
    CallbackId, Epoch, PoolName, QueueName, TaskInstanceState,
    message::{Addressed, WorkKind, WorkMessage},
    record::{PoolUsage, TaskInstance, Timestamp},
};
use gust_planner::{
    ActiveCount, Admission, AdmissionPlan, AdmissionSettings, Candidate, CandidateRequest, RefusalReason,
};
use gust_ports::{
    Tx, Wake,
    metastore::{
        AsMetastoreError as _, CandidateQuery, DagGraphs, Guard, TaskInstancePatch, TaskInstanceWrite,
        TxMode, transact,
    },
};

use crate::{Scheduler, SchedulerError, graphs::graph_of};

/// To which queue of the deployment a logical queue's messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Each logical queue is a queue of its own.
    ByName,
    /// All go to one, as where one process serves everything.
    One(QueueName),
}

/// How the executor works.
#[derive(Debug, Clone)]
pub struct ExecutorSettings {
    /// Limits that are not in the database.
    pub admission: AdmissionSettings,
    /// After how long a message that nobody claimed is sent again; it doubles with every time.
    pub resend_after: Duration,
    /// The longest wait before it is sent again.
    pub resend_at_most: Duration,
    /// Where messages go.
    pub target: Target,
    /// The logical queue of callbacks.
    pub callback_queue: QueueName,
}

impl Default for ExecutorSettings {
    fn default() -> Self {
        Self {
            admission: AdmissionSettings::default(),
            resend_after: Duration::from_secs(30),
            resend_at_most: Duration::from_mins(15),
            target: Target::ByName,
            callback_queue: QueueName::from("default"),
        }
    }
}

impl ExecutorSettings {
    fn address(&self, queue: &QueueName, message: WorkMessage) -> Addressed {
        let queue = match &self.target {
            Target::ByName => queue.clone(),
            Target::One(queue) => queue.clone(),
        };
        Addressed { queue, message }
    }

    /// When a message that has been sent `send_count` times is sent again.
    fn resend_at(&self, send_count: i32, now: Timestamp) -> Timestamp {
        let doublings = u32::try_from(send_count.saturating_sub(1)).unwrap_or(0).min(16);
        let wait = self.resend_after.saturating_mul(1 << doublings).min(self.resend_at_most);
        now + TimeDelta::from_std(wait).unwrap_or(TimeDelta::MAX)
    }
}

/// When each callback was last sent, so that a pass does not send all of them each time. It is no truth: without it a
/// callback is sent more often.
#[derive(Debug, Default)]
pub(crate) struct SentCallbacks(Mutex<BTreeMap<(CallbackId, Epoch), Timestamp>>);

/// Admits and sends. Returns how many were sent.
pub(crate) async fn admit_and_send(scheduler: &Scheduler) -> Result<usize, SchedulerError> {
    let mut sent = 0;
    loop {
        let step =
            Step { graphs: Arc::clone(&scheduler.graphs), settings: scheduler.settings.executor.clone() };
        let (queued, may_have_more) = transact(&*scheduler.store, TxMode::Write, |tx| {
            let step = step.clone();
            Box::pin(async move { step.admit(tx).await })
        })
        .await?;
        sent += queued.len();
        let has_queued = !queued.is_empty();
        send(scheduler, &queued).await;
        if !may_have_more || !has_queued {
            return Ok(sent);
        }
    }
}

/// Sends hints. What cannot be sent is sent again when its time has come, so a failure is only logged.
async fn send(scheduler: &Scheduler, queued: &[TaskInstance]) {
    if queued.is_empty() {
        return;
    }
    let messages: Vec<_> = queued
        .iter()
        .map(|row| {
            let message = WorkMessage { kind: WorkKind::Try, id: row.id.0, epoch: row.epoch };
            scheduler.settings.executor.address(&row.queue, message)
        })
        .collect();
    send_all(scheduler, &messages).await;
    for row in queued {
        let wake = Wake::Run { dag_id: row.dag_id.clone(), run_id: row.run_id.clone(), plan: false };
        scheduler.wakeups.wake(wake).await;
    }
}

async fn send_all(scheduler: &Scheduler, messages: &[Addressed]) {
    match scheduler.queue.send(messages).await {
        Ok(refused) if refused.is_empty() => {}
        Ok(refused) => {
            tracing::warn!(count = refused.len(), "the queue did not take all messages; they are sent again");
        }
        Err(error) => tracing::warn!(%error, "messages were not sent; they are sent again"),
    }
    scheduler.wakeups.wake(Wake::Queued).await;
}

#[derive(Clone)]
struct Step {
    graphs: Arc<DagGraphs>,
    settings: ExecutorSettings,
}

impl Step {
    async fn admit(&self, tx: &mut dyn Tx) -> Result<(Vec<TaskInstance>, bool), SchedulerError> {
        let pools = tx.lock_pools().await?;
        let usage: BTreeMap<PoolName, PoolUsage> = tx.pool_usage().await?.into_iter().collect();
        let pools = pools.into_iter().map(|pool| {
            let usage = usage.get(&pool.name).copied().unwrap_or_default();
            (pool, usage)
        });
        let active = tx.active_tasks().await?.into_iter().map(|active| ActiveCount {
            dag_id: active.dag_id,
            dag_run_id: active.dag_run_id,
            task_id: active.task_id,
            executing: active.executing,
            waiting: active.waiting,
        });
        let mut admission = Admission::begin(pools, active, self.settings.admission);
        while let Some(request) = admission.request().map(query) {
            let mut page = Vec::new();
            for candidate in tx.candidates(&request).await? {
                page.push(self.with_limits(tx, candidate).await?);
            }
            admission.offer(page);
        }
        let plan = admission.finish();
        report(&plan);
        let queued = self.queue(tx, &plan.admitted).await?;
        Ok((queued, plan.may_have_more))
    }

    /// Adds the limits that only the DAG's graph knows.
    async fn with_limits(
        &self,
        tx: &mut dyn Tx,
        candidate: gust_ports::metastore::Candidate,
    ) -> Result<Candidate, SchedulerError> {
        let row = candidate.task_instance;
        let dag = match graph_of(&self.graphs, tx, &row.dag_id, row.dag_version_id).await {
            Ok(dag) => Some(dag),
            Err(error) if error.as_metastore_error().is_some() => return Err(error),
            // It goes to a worker, which fails it and says why, rather than keep all others from being admitted.
            Err(error) => {
                tracing::error!(task_instance = %row.id, %error, "its task's own limits are not known");
                None
            }
        };
        let task = dag.as_ref().and_then(|dag| dag.index_of(row.task_id.as_str()).map(|at| dag.task(at)));
        Ok(Candidate {
            logical_date: candidate.logical_date,
            run_after: candidate.run_after,
            max_active_tasks: u32::try_from(candidate.max_active_tasks).unwrap_or(0),
            max_active_tis_per_dag: task.and_then(|task| task.max_active_tis_per_dag),
            max_active_tis_per_dagrun: task.and_then(|task| task.max_active_tis_per_dagrun),
            task_instance: row,
        })
    }

    /// Makes the admitted rows queued. One that somebody took away meanwhile is left out.
    async fn queue(
        &self,
        tx: &mut dyn Tx,
        admitted: &[TaskInstance],
    ) -> Result<Vec<TaskInstance>, SchedulerError> {
        let now = tx.now().await?;
        let writes: Vec<_> = admitted
            .iter()
            .map(|row| TaskInstanceWrite {
                id: row.id,
                guard: Guard::ChangeSeq(row.change_seq),
                patch: TaskInstancePatch {
                    state: Some(TaskInstanceState::Queued),
                    next_epoch: true,
                    queued_at: Some(Some(now)),
                    resend_at: Some(Some(self.settings.resend_at(1, now))),
                    send_count: Some(1),
                    ..TaskInstancePatch::default()
                },
            })
            .collect();
        let written = tx.update_task_instances(&writes).await?;
        Ok(admitted
            .iter()
            .filter(|row| written.contains(&row.id))
            .map(|row| TaskInstance { epoch: row.epoch.next(), ..row.clone() })
            .collect())
    }
}

fn query(request: &CandidateRequest) -> CandidateQuery {
    CandidateQuery {
        limit: request.limit,
        starved_pools: request.starved_pools.iter().cloned().collect(),
        starved_runs: request.starved_runs.iter().copied().collect(),
        starved_tasks: request.starved_tasks.iter().cloned().collect(),
        starved_tasks_of_runs: request.starved_tasks_of_runs.iter().cloned().collect(),
        except: request.except.iter().copied().collect(),
    }
}

/// Says what a person has to mend; full pools and runs mend themselves.
fn report(plan: &AdmissionPlan) {
    for refusal in &plan.refused {
        match &refusal.reason {
            RefusalReason::UnknownPool => {
                tracing::warn!(task_instance = %refusal.id, "its pool does not exist; make the pool or change the DAG");
            }
            RefusalReason::TooManySlots { wanted, total } => {
                tracing::warn!(task_instance = %refusal.id, wanted, total, "it wants more slots than its pool has");
            }
            _ => {}
        }
    }
}

/// Sends again what nobody claimed in time, and callbacks that wait. `everything` sends all queued ones whatever their
/// time, as after a start where the queue is known to be empty.
pub(crate) async fn send_again(scheduler: &Scheduler, everything: bool) -> Result<usize, SchedulerError> {
    let settings = scheduler.settings.executor.clone();
    let due = transact(&*scheduler.store, TxMode::Write, |tx| {
        let settings = settings.clone();
        Box::pin(async move {
            let now = tx.now().await?;
            let horizon = if everything { now + TimeDelta::days(3_650) } else { now };
            let due = tx.lock_resends(horizon, RESENDS).await?;
            let writes: Vec<_> = due
                .iter()
                .map(|row| {
                    let send_count = row.send_count.saturating_add(1);
                    TaskInstanceWrite {
                        id: row.id,
                        guard: Guard::ChangeSeq(row.change_seq),
                        patch: TaskInstancePatch {
                            resend_at: Some(Some(settings.resend_at(send_count, now))),
                            send_count: Some(send_count),
                            ..TaskInstancePatch::default()
                        },
                    }
                })
                .collect();
            tx.update_task_instances(&writes).await?;
            Ok::<_, SchedulerError>(due)
        })
    })
    .await?;
    if !due.is_empty() && !everything {
        tracing::warn!(
            count = due.len(),
            "task instances were not claimed in time; their messages are sent again"
        );
    }
    send(scheduler, &due).await;
    Ok(due.len() + send_callbacks(scheduler).await?)
}

/// How many unclaimed rows, and callbacks, one pass sends.
const RESENDS: u32 = 512;

async fn send_callbacks(scheduler: &Scheduler) -> Result<usize, SchedulerError> {
    let mut tx = scheduler.store.begin(TxMode::Read).await?;
    let now = tx.now().await?;
    let waiting = tx.callbacks_to_run(RESENDS).await?;
    tx.rollback().await?;
    let again = TimeDelta::from_std(scheduler.settings.executor.resend_after).unwrap_or(TimeDelta::MAX);
    let messages: Vec<_> = {
        let mut sent = scheduler.sent_callbacks.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sent.retain(|key, _| waiting.iter().any(|callback| (callback.id, callback.epoch) == *key));
        waiting
            .iter()
            .filter(|callback| {
                let key = (callback.id, callback.epoch);
                let is_due = sent.get(&key).is_none_or(|at| now - at >= again);
                if is_due {
                    sent.insert(key, now);
                }
                is_due
            })
            .map(|callback| {
                let message =
                    WorkMessage { kind: WorkKind::Callback, id: callback.id.0, epoch: callback.epoch };
                scheduler.settings.executor.address(&scheduler.settings.executor.callback_queue, message)
            })
            .collect()
    };
    if !messages.is_empty() {
        send_all(scheduler, &messages).await;
    }
    Ok(messages.len())
}
