use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use gust_model::record::{Component, ComponentKind, Timestamp};
use gust_planner::AdvanceSettings;
use gust_ports::{
    Clock, Ids, Metastore, MetastoreError, ObjectStore, TaskQueue, Wake, Wakeups,
    metastore::{DagGraphs, TxMode, transact},
};

use crate::{
    ExecutorSettings, SchedulerError,
    executor::{self, SentCallbacks},
    reaper,
    task_scheduler::{self, Advanced},
};

/// How a scheduler works.
#[derive(Debug, Clone)]
pub struct SchedulerSettings {
    /// Limits and defaults that the planner needs.
    pub advance: AdvanceSettings,
    /// Limits and targets of admission.
    pub executor: ExecutorSettings,
    /// How long after its end a lease is taken as given up. Covers a renewal under way.
    pub lease_grace: Duration,
    /// How long the metastore must have answered without a break before leases are taken as given up, so that workers
    /// get to renew after an outage before anybody counts them as dead (DESIGN §1, 11).
    pub steady_before_reaping: Duration,
    /// The longest time between two looks without a wake-up.
    pub idle_interval: Duration,
    /// How many runs one pass advances before it admits.
    pub runs_per_pass: u32,
    /// What names this process in health reports.
    pub component: String,
}

impl Default for SchedulerSettings {
    fn default() -> Self {
        Self {
            advance: AdvanceSettings::default(),
            executor: ExecutorSettings::default(),
            lease_grace: Duration::from_secs(5),
            steady_before_reaping: Duration::from_secs(20),
            idle_interval: Duration::from_secs(5),
            runs_per_pass: 64,
            component: "scheduler".to_owned(),
        }
    }
}

/// What a pass did, and when the next one has something to do by time alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pass {
    /// Runs that were made.
    pub created: usize,
    /// Runs that were started.
    pub started: usize,
    /// Runs that were advanced.
    pub advanced: usize,
    /// Task instances that were admitted and sent.
    pub admitted: usize,
    /// Tries that were ended because their worker went silent.
    pub reaped: usize,
    /// Whether runs were left over for the next pass, which should follow at once.
    pub has_more: bool,
    /// The next moment at which something is due; none if nothing is.
    pub next_due_at: Option<Timestamp>,
    /// How long until then on the database's clock, which need not be this process's.
    pub next_due_in: Option<Duration>,
}

impl Pass {
    fn count(&self) {
        metrics::counter!("gust_runs_created_total").increment(self.created as u64);
        metrics::counter!("gust_runs_started_total").increment(self.started as u64);
        metrics::counter!("gust_runs_advanced_total").increment(self.advanced as u64);
        metrics::counter!("gust_tries_admitted_total").increment(self.admitted as u64);
        metrics::counter!("gust_tries_reaped_total").increment(self.reaped as u64);
    }
}

/// What a scheduler stands on.
pub struct Scheduler {
    pub(crate) store: Arc<dyn Metastore>,
    pub(crate) queue: Arc<dyn TaskQueue>,
    pub(crate) logs: Arc<dyn ObjectStore>,
    pub(crate) wakeups: Arc<dyn Wakeups>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) graphs: Arc<DagGraphs>,
    pub(crate) settings: SchedulerSettings,
    pub(crate) sent_callbacks: SentCallbacks,
    started_at: Timestamp,
}

impl Scheduler {
    /// Puts a scheduler together.
    #[must_use]
    pub fn new(
        store: Arc<dyn Metastore>,
        queue: Arc<dyn TaskQueue>,
        logs: Arc<dyn ObjectStore>,
        wakeups: Arc<dyn Wakeups>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
        settings: SchedulerSettings,
    ) -> Self {
        let started_at = clock.now();
        let graphs = Arc::new(DagGraphs::default());
        let sent_callbacks = SentCallbacks::default();
        Self { store, queue, logs, wakeups, clock, ids, graphs, settings, sent_callbacks, started_at }
    }

    /// Does all that is due: makes and starts runs, advances those with changes, admits, sends again, reaps. Running it
    /// twice, or two at once, changes nothing more.
    ///
    /// # Errors
    /// [`SchedulerError`] when the metastore fails. What is wrong with one run is logged and keeps no other from its
    /// turn.
    #[tracing::instrument(skip_all)]
    pub async fn pass(&self) -> Result<Pass, SchedulerError> {
        self.full_pass(Some(self.settings.lease_grace)).await
    }

    /// Takes over from a process of which nothing is left, queue and workers included: what was queued is sent again,
    /// and what was running is ended as a try whose worker died. Only for a Gust that is one process.
    ///
    /// # Errors
    /// [`SchedulerError`] when the metastore fails.
    pub async fn take_over(&self) -> Result<(), SchedulerError> {
        while reaper::reap_all(self).await? > 0 {}
        executor::send_again(self, true).await?;
        Ok(())
    }

    async fn full_pass(&self, lease_grace: Option<Duration>) -> Result<Pass, SchedulerError> {
        let mut pass = Pass::default();
        pass.created += alone("making due runs", task_scheduler::create_due_runs(self).await)?;
        pass.created += alone("making runs for assets", task_scheduler::create_asset_runs(self).await)?;
        alone("ending waits", reaper::end_waits(self).await)?;
        if let Some(grace) = lease_grace {
            pass.reaped = alone("reaping", reaper::reap(self, grace).await)?;
        }
        alone("sending again", executor::send_again(self, false).await)?;
        self.quick_pass(&mut pass).await?;
        (pass.next_due_at, pass.next_due_in) = self.next_due().await?;
        Ok(pass)
    }

    /// The part of a pass that follows a change: starts, advances and admits, and what the end of a run gives room for.
    async fn quick_pass(&self, pass: &mut Pass) -> Result<(), SchedulerError> {
        pass.started += task_scheduler::start_queued_runs(self).await?;
        let limit = self.settings.runs_per_pass;
        let runs = task_scheduler::runs_to_advance(self, limit).await?;
        let is_full_page = u32::try_from(runs.len()).is_ok_and(|count| count == limit);
        let (mut ended_any, mut is_any_unfinished) = (false, false);
        for id in runs {
            match task_scheduler::advance_run(self, id).await {
                Ok(Advanced { was_taken, ended, is_unfinished, .. }) => {
                    pass.advanced += usize::from(was_taken);
                    is_any_unfinished |= is_unfinished;
                    ended_any |= ended;
                }
                Err(error) if error.concerns_all() => return Err(error),
                Err(error) => {
                    tracing::error!(dag_run = %id, %error, "the run was not advanced");
                    task_scheduler::put_last(self, id).await?;
                }
            }
        }
        // A full page of runs that cannot be advanced is no reason to look again at once.
        pass.has_more = (is_full_page && pass.advanced > 0) || is_any_unfinished;
        pass.admitted += alone("admission", executor::admit_and_send(self).await)?;
        if ended_any {
            // An ended run may have made room for the next, updated an asset, or left a callback.
            pass.created += alone("making due runs", task_scheduler::create_due_runs(self).await)?;
            pass.created += alone("making runs for assets", task_scheduler::create_asset_runs(self).await)?;
            alone("sending again", executor::send_again(self, false).await)?;
            pass.has_more = true;
        }
        Ok(())
    }

    /// When something is due by time alone, and how long until then on the database's clock.
    async fn next_due(&self) -> Result<(Option<Timestamp>, Option<Duration>), SchedulerError> {
        let mut tx = self.store.begin(TxMode::Read).await?;
        let now = tx.now().await?;
        let due = [
            // A DAG that is due and at its limit waits for a run's end, not for time.
            tx.next_due_dag_at(now).await?,
            tx.next_due_run_at(now).await?,
            tx.next_due_task_instance_at().await?,
        ];
        tx.rollback().await?;
        let due_at = due.into_iter().flatten().min();
        Ok((due_at, due_at.map(|at| (at - now).to_std().unwrap_or(PAST_DUE))))
    }

    /// Passes for ever: on every wake-up, when something is due, and after the idle interval. Ends when `shutdown`
    /// does; what goes wrong is logged and tried again.
    pub async fn run(&self, shutdown: impl Future<Output = ()> + Send) {
        tokio::pin!(shutdown);
        let mut wakes = self.wakeups.listen();
        let mut steady_since = self.clock.monotonic();
        let mut full_at = Duration::ZERO;
        let mut heartbeat_at = Duration::ZERO;
        loop {
            let now = self.clock.monotonic();
            if now >= heartbeat_at {
                self.heartbeat().await;
                heartbeat_at = now + self.settings.idle_interval;
            }
            let is_steady = now.saturating_sub(steady_since) >= self.settings.steady_before_reaping;
            let grace = is_steady.then_some(self.settings.lease_grace);
            let outcome = if now >= full_at {
                self.full_pass(grace).await
            } else {
                let mut pass = Pass::default();
                self.quick_pass(&mut pass).await.map(|()| pass)
            };
            let mut wait = match outcome {
                Ok(pass) => {
                    pass.count();
                    if now >= full_at {
                        full_at = self.clock.monotonic() + self.until(pass.next_due_in);
                    }
                    if pass.has_more {
                        tokio::select! {
                            biased;
                            () = &mut shutdown => return,
                            () = std::future::ready(()) => continue,
                        }
                    }
                    full_at.saturating_sub(self.clock.monotonic())
                }
                Err(error) => {
                    steady_since = self.clock.monotonic();
                    metrics::counter!("gust_passes_failed_total").increment(1);
                    tracing::error!(%error, "a scheduler pass failed; it is tried again");
                    AFTER_FAILURE
                }
            };
            wait = wait.min(self.settings.idle_interval);
            let is_full = tokio::select! {
                () = &mut shutdown => return,
                wake = next_plan(&mut wakes) => wake,
                () = self.clock.sleep(wait) => false,
            };
            if is_full {
                full_at = Duration::ZERO;
            }
        }
    }

    /// How long to wait for what is due, at least a little, at most the idle interval.
    fn until(&self, due_in: Option<Duration>) -> Duration {
        due_in.unwrap_or(self.settings.idle_interval).clamp(SHORTEST_TIMER, self.settings.idle_interval)
    }

    async fn heartbeat(&self) {
        let beat = transact(&*self.store, TxMode::Write, |tx| {
            let (name, started_at) = (self.settings.component.clone(), self.started_at);
            Box::pin(async move {
                let heartbeat_at = tx.now().await?;
                let component = Component { kind: ComponentKind::Scheduler, name, heartbeat_at, started_at };
                tx.put_component(&component).await?;
                // Each start of a process leaves a row; those that ended long ago say nothing any more.
                tx.forget_components(heartbeat_at - COMPONENTS_KEPT).await?;
                Ok::<_, MetastoreError>(())
            })
        });
        if let Err(error) = beat.await {
            tracing::warn!(%error, "the scheduler's heartbeat was not recorded");
        }
    }
}

/// How long the last word of a process is kept.
const COMPONENTS_KEPT: chrono::TimeDelta = chrono::TimeDelta::days(1);

/// How long a scheduler waits after a failed pass.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Timers that are due again at once must not make a busy loop.
const SHORTEST_TIMER: Duration = Duration::from_millis(20);

/// The wait for what is due and was left: a lease within its grace, or a row that another scheduler holds.
const PAST_DUE: Duration = Duration::from_millis(500);

/// Lets one step fail without the others: what is wrong with a row that it cannot get past must not stop the rest.
fn alone<T: Default>(step: &str, outcome: Result<T, SchedulerError>) -> Result<T, SchedulerError> {
    match outcome {
        Err(error) if !error.concerns_all() => {
            tracing::error!(%error, "{step} failed; the pass goes on without it");
            Ok(T::default())
        }
        outcome => outcome,
    }
}

/// Waits for a wake-up that concerns planning, and takes those that have come with it. True if one asks for more than
/// a quick pass.
async fn next_plan(wakes: &mut gust_ports::WakeStream) -> bool {
    loop {
        let Some(wake) = wakes.next().await else { return std::future::pending().await };
        let mut is_full = match wake {
            Wake::Run { plan, .. } if !plan => continue,
            Wake::Queued | Wake::Revoked { .. } | Wake::Trigger => continue,
            Wake::Run { .. } | Wake::Admission => false,
            Wake::Dag { .. } => true,
        };
        // One pass serves all that is waiting.
        while let Some(Some(wake)) = futures::FutureExt::now_or_never(wakes.next()) {
            is_full |= matches!(wake, Wake::Dag { .. });
        }
        return is_full;
    }
}
