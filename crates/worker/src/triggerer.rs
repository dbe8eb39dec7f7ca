//! Running the triggers of deferred tasks, and waking the tasks.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::StreamExt as _;
use gust_model::{
    AttemptId, CallbackId, TriggerId,
    record::{Component, ComponentKind, Trigger as TriggerRow},
};
use gust_ports::{
    Tx, Wake,
    metastore::{DagGraphs, TxMode},
};
use gust_python_host::{
    Answers, Host, Trigger, TriggerReport,
    messages::{FromTask, Reply},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    claim::wire_task_instance,
    config::WorkerConfig,
    error::WorkerError,
    persist::persistently,
    redact::Secrets,
    requests::Desk,
    services::Services,
    trigger_end::{Fired, Waker},
    trigger_log::TriggerLogs,
    trigger_process::{TriggerProcess, TriggerProcesses},
};

/// Reports that may wait for the loop.
const QUEUE: usize = 256;
/// The wait before a child that ended is started again.
const RESTART: Duration = Duration::from_secs(1);
/// How often a trigger may take its child with it before its task fails.
const MAX_RESTARTS: u32 = 3;

/// How a triggerer works.
#[derive(Debug, Clone)]
pub struct TriggererConfig {
    /// What triggerers and workers share: lease, outage, logs, secrets, environment. Its `name` is the triggerer's.
    pub base: WorkerConfig,
    /// How many triggers it runs at once (`[triggerer] capacity`).
    pub capacity: u32,
    /// How often it looks for triggers though nobody woke it.
    pub poll_interval: Duration,
}

impl TriggererConfig {
    /// The defaults.
    #[must_use]
    pub fn new(name: String) -> Self {
        let base = WorkerConfig { name, ..WorkerConfig::new("", 0) };
        Self { base, capacity: 1000, poll_interval: Duration::from_secs(5) }
    }
}

/// Which child a trigger runs in: Airflow's own need no bundle, others import their DAG's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ChildKey(Option<(PathBuf, String)>);

/// A trigger that runs here.
struct Running {
    row: TriggerRow,
    order: Trigger,
    child: ChildKey,
    restarts: u32,
}

enum Command {
    Add(Box<Trigger>),
    Cancel { id: i64, by_user: bool },
}

enum FromChild {
    Report(TriggerReport),
    Gone { key: ChildKey, generation: u64 },
}

struct ChildLine {
    generation: u64,
    /// Unbounded, as the number of triggers bounds it: were the loop to wait here for a child that waits for the loop
    /// to take its reports, both would wait for ever.
    commands: mpsc::UnboundedSender<Command>,
}

/// Answers what triggers ask, and keeps what they log.
struct TriggerAnswers {
    desk: Desk,
    logs: Arc<Mutex<TriggerLogs>>,
}

#[async_trait]
impl Answers for TriggerAnswers {
    async fn answer(&self, request: &FromTask) -> Reply {
        self.desk.answer(request).await.reply
    }

    fn log(&self, line: &[u8]) {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// Runs triggers until it is told to stop. Several may run against one metastore: each trigger is leased to one.
pub struct Triggerer {
    services: Services,
    config: TriggererConfig,
    base: Arc<WorkerConfig>,
    processes: Arc<dyn TriggerProcesses>,
    answers: Arc<TriggerAnswers>,
    logs: Arc<Mutex<TriggerLogs>>,
    waker: Waker,
    attempt_id: AttemptId,
    running: HashMap<i64, Running>,
    children: HashMap<ChildKey, ChildLine>,
    next_number: i64,
    next_generation: u64,
    reports: mpsc::Sender<FromChild>,
    inbox: mpsc::Receiver<FromChild>,
}

impl Triggerer {
    /// A triggerer of this name with everything else as usual, that has not begun yet.
    #[must_use]
    pub fn new(services: Services, host: Host, name: String) -> Self {
        Self::with(services, TriggererConfig::new(name), Arc::new(host))
    }

    /// A triggerer that has not begun yet.
    #[must_use]
    pub fn with(services: Services, config: TriggererConfig, processes: Arc<dyn TriggerProcesses>) -> Self {
        let base = Arc::new(config.base.clone());
        let secrets = Arc::new(Secrets::new(base.min_secret_length, &base.sensitive_names));
        let dags: Arc<DagGraphs> = Arc::default();
        let logs = Arc::new(Mutex::new(TriggerLogs::new(&services, &base, &secrets)));
        let desk = Desk::new(&services, &base, &dags, &secrets, None);
        let answers = Arc::new(TriggerAnswers { desk, logs: Arc::clone(&logs) });
        let attempt_id = AttemptId(services.ids.fresh());
        let waker = Waker::new(&services, &base, &dags, attempt_id);
        let (reports, inbox) = mpsc::channel(QUEUE);
        Self {
            services,
            config,
            base,
            processes,
            answers,
            logs,
            waker,
            attempt_id,
            running: HashMap::new(),
            children: HashMap::new(),
            next_number: 1,
            next_generation: 1,
            reports,
            inbox,
        }
    }

    /// Runs until `shutdown`. What still runs then is left to whoever takes its lease over; no `on_kill` runs.
    ///
    /// # Errors
    /// None for now: an outage is waited out. Kept for what only this loop can know to be beyond repair.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), WorkerError> {
        let clock = Arc::clone(&self.services.clock);
        let mut wakes = self.services.wakeups.listen();
        let started = clock.monotonic();
        let (mut next_look, mut next_renewal, mut next_word) = (started, started, started);
        info!(triggerer = self.base.name, capacity = self.config.capacity, "the triggerer takes triggers");
        while !shutdown.is_cancelled() {
            let now = clock.monotonic();
            if now >= next_renewal {
                self.renew().await;
                next_renewal = clock.monotonic() + self.base.lease_ttl / 3;
            }
            if now >= next_look {
                self.claim().await;
                next_look = clock.monotonic() + self.config.poll_interval;
            }
            if now >= next_word {
                self.say_alive(started).await;
                next_word = clock.monotonic() + self.base.heartbeat_interval;
            }
            self.write_logs().await;
            let next = next_look.min(next_renewal).min(next_word);
            let wait = next.saturating_sub(clock.monotonic()).min(self.base.log_interval_min);
            tokio::select! {
                word = self.inbox.recv() => if let Some(word) = word { self.hear(word).await },
                wake = wakes.next() => if matches!(wake, Some(Wake::Trigger)) { next_look = Duration::ZERO },
                () = shutdown.cancelled() => {}
                () = clock.sleep(wait) => {}
            }
        }
        info!(triggerer = self.base.name, left = self.running.len(), "the triggerer has stopped");
        Ok(())
    }

    async fn claim(&mut self) {
        let free = self.config.capacity.saturating_sub(u32::try_from(self.running.len()).unwrap_or(u32::MAX));
        if free == 0 {
            return;
        }
        match self.claim_once(free).await {
            Ok(rows) => {
                for (row, ti, bundle) in rows {
                    self.start(row, ti, bundle).await;
                }
            }
            Err(problem) => warn!(%problem, "no triggers could be claimed; trying again"),
        }
    }

    /// Claims triggers, each with its task instance and the bundle that its class may be in.
    async fn claim_once(&self, limit: u32) -> Result<Vec<Claim>, WorkerError> {
        let mut tx = self.services.metastore.begin(TxMode::Write).await?;
        let rows = tx.claim_triggers(self.attempt_id, self.base.lease_ttl, limit).await?;
        let mut claims = Vec::with_capacity(rows.len());
        for row in rows {
            claims.extend(claim_of(&mut *tx, row).await?);
        }
        tx.commit().await?;
        Ok(claims)
    }

    /// Runs a trigger whose lease is ours though it does not run here: the answer to its claim was lost, or what it
    /// brought could not be stored. Nobody else would ever get it, since its lease is renewed with the others.
    async fn adopt(&mut self, id: TriggerId) {
        let found = async {
            let mut tx = self.services.metastore.begin(TxMode::Write).await?;
            let claim = match tx.trigger(id).await? {
                Some(row) => claim_of(&mut *tx, row).await?,
                None => None,
            };
            tx.commit().await?;
            Ok::<_, WorkerError>(claim)
        };
        match found.await {
            Ok(Some((row, ti, bundle))) => self.start(row, ti, bundle).await,
            Ok(None) => {}
            Err(problem) => warn!(%problem, trigger = %id, "a trigger could not be taken up again yet"),
        }
    }

    async fn start(
        &mut self,
        row: TriggerRow,
        ti: gust_model::record::TaskInstance,
        bundle: Option<(gust_model::BundleName, gust_model::BundleVersion)>,
    ) {
        let bundle = match bundle {
            Some((name, version)) => match self.services.bundles.local_path(&name, &version).await {
                Ok(path) => Some((path, name.to_string())),
                Err(problem) => {
                    self.fail(&row, &problem.to_string()).await;
                    return;
                }
            },
            None => None,
        };
        let number = self.next_number;
        self.next_number += 1;
        let order = Trigger {
            id: number,
            classpath: row.classpath.clone(),
            kwargs: row.kwargs.clone(),
            ti: Some(wire_task_instance(&ti)),
            timeout_at: ti.due_at,
        };
        self.with_logs(|logs| logs.open(number, &ti));
        let child = ChildKey(bundle);
        self.running.insert(number, Running { row, order: order.clone(), child: child.clone(), restarts: 0 });
        self.command(&child, Command::Add(Box::new(order)));
    }

    fn with_logs<T>(&self, work: impl FnOnce(&mut TriggerLogs) -> T) -> T {
        work(&mut self.logs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends a command to a child, started if there is none.
    fn command(&mut self, key: &ChildKey, command: Command) {
        if !self.children.contains_key(key) {
            let line = self.start_child(key);
            self.children.insert(key.clone(), line);
        }
        if let Some(line) = self.children.get(key) {
            // A child that is gone says so; its triggers are started again then.
            drop(line.commands.send(command));
        }
    }

    fn start_child(&mut self, key: &ChildKey) -> ChildLine {
        let (commands, inbox) = mpsc::unbounded_channel();
        let generation = self.next_generation;
        self.next_generation += 1;
        let (processes, answers, env) =
            (Arc::clone(&self.processes), Arc::clone(&self.answers), self.base.env.clone());
        let (key, reports) = (key.clone(), self.reports.clone());
        self.services.spawner.spawn(
            "triggers",
            Box::pin(async move {
                match processes.start(key.0.clone(), env, answers).await {
                    Ok(process) => serve(process, inbox, &reports).await,
                    Err(problem) => error!(%problem, "a process for triggers could not be started"),
                }
                drop(reports.send(FromChild::Gone { key, generation }).await);
            }),
        );
        ChildLine { generation, commands }
    }

    async fn hear(&mut self, word: FromChild) {
        match word {
            FromChild::Report(TriggerReport::Fired { id, event_type, payload, xcoms }) => {
                let Some(running) = self.running.get(&id) else { return };
                let fired = Fired::from_report(&event_type, payload, xcoms);
                self.end(running.row.clone(), fired).await;
            }
            FromChild::Report(TriggerReport::Failed { id, error, timed_out }) => {
                let Some(running) = self.running.get(&id) else { return };
                let fired = if timed_out { Fired::TimedOut } else { Fired::Failed(error) };
                self.end(running.row.clone(), fired).await;
            }
            FromChild::Report(TriggerReport::Finished { id }) => {
                self.running.remove(&id);
                self.close_log(id).await;
            }
            FromChild::Report(TriggerReport::LoopBlocked { seconds }) => {
                warn!(seconds, "a trigger held up all others: it blocks the event loop");
            }
            FromChild::Report(TriggerReport::Exited(exited)) => {
                debug!(?exited, "a process of triggers ended");
            }
            FromChild::Gone { key, generation } => self.restart(&key, generation).await,
        }
    }

    /// A child has ended: what ran in it runs in a new one, unless it keeps taking its child with it.
    async fn restart(&mut self, key: &ChildKey, generation: u64) {
        if self.children.get(key).is_none_or(|line| line.generation != generation) {
            return;
        }
        self.children.remove(key);
        let numbers: Vec<i64> = self
            .running
            .iter()
            .filter(|(_, running)| running.child == *key)
            .map(|(&number, _)| number)
            .collect();
        if numbers.is_empty() {
            return;
        }
        warn!(triggers = numbers.len(), "a process of triggers ended; they are started again");
        self.services.clock.sleep(RESTART).await;
        for number in numbers {
            let Some(running) = self.running.get_mut(&number) else { continue };
            running.restarts += 1;
            if running.restarts > MAX_RESTARTS {
                let row = running.row.clone();
                self.running.remove(&number);
                self.fail(&row, "The process that ran the trigger ended again and again.").await;
                self.close_log(number).await;
            } else {
                let order = running.order.clone();
                self.command(key, Command::Add(Box::new(order)));
            }
        }
    }

    async fn fail(&self, row: &TriggerRow, reason: &str) {
        self.end(row.clone(), Fired::Failed(reason.to_owned())).await;
    }

    /// A trigger has fired or failed: its task goes on or ends.
    async fn end(&self, row: TriggerRow, fired: Fired) {
        let ids = [CallbackId(self.services.ids.fresh()), CallbackId(self.services.ids.fresh())];
        let (clock, grace) = (&*self.services.clock, self.base.outage_grace);
        match persistently(clock, grace, || self.waker.end_once(&row, &fired, ids)).await {
            Ok(wakes) => {
                for wake in wakes {
                    self.services.wakeups.wake(wake).await;
                }
            }
            Err(problem) => {
                // The row is there still: whoever holds its lease next runs the trigger again.
                error!(%problem, trigger = %row.id, "what a trigger brought could not be stored");
            }
        }
    }

    async fn renew(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let kept: HashSet<TriggerId> = match self.renew_once().await {
            Ok(kept) => kept.into_iter().collect(),
            Err(problem) => {
                warn!(%problem, "the leases of triggers could not be renewed yet");
                return;
            }
        };
        let here: HashSet<TriggerId> = self.running.values().map(|running| running.row.id).collect();
        for id in kept.difference(&here) {
            self.adopt(*id).await;
        }
        let lost: Vec<(i64, TriggerId, ChildKey)> = self
            .running
            .iter()
            .filter(|(_, running)| !kept.contains(&running.row.id))
            .map(|(&number, running)| (number, running.row.id, running.child.clone()))
            .collect();
        for (number, id, child) in lost {
            self.running.remove(&number);
            // A row that is gone was cleared or marked by a person, or its wait is over; one that is there is
            // another triggerer's by now.
            let by_user = matches!(self.is_there(id).await, Ok(false));
            self.command(&child, Command::Cancel { id: number, by_user });
            self.close_log(number).await;
        }
    }

    async fn renew_once(&self) -> Result<Vec<TriggerId>, WorkerError> {
        let mut tx = self.services.metastore.begin(TxMode::Write).await?;
        let kept = tx.renew_triggers(self.attempt_id, self.base.lease_ttl).await?;
        tx.commit().await?;
        Ok(kept)
    }

    async fn is_there(&self, id: TriggerId) -> Result<bool, WorkerError> {
        let mut tx = self.services.metastore.begin(TxMode::Read).await?;
        Ok(tx.trigger(id).await?.is_some())
    }

    async fn say_alive(&self, started: Duration) {
        let said = async {
            let mut tx = self.services.metastore.begin(TxMode::Write).await?;
            let heartbeat_at = tx.now().await?;
            let age = self.services.clock.monotonic().saturating_sub(started);
            let component = Component {
                kind: ComponentKind::Triggerer,
                name: self.base.name.clone(),
                heartbeat_at,
                started_at: heartbeat_at - chrono::TimeDelta::from_std(age).unwrap_or_default(),
            };
            tx.put_component(&component).await?;
            tx.commit().await
        };
        if let Err(problem) = said.await {
            warn!(%problem, "the triggerer could not say that it lives");
        }
    }

    async fn write_logs(&self) {
        let due = self.with_logs(TriggerLogs::take_due);
        for mut log in due {
            log.write().await;
            self.with_logs(|logs| logs.give_back(log));
        }
    }

    async fn close_log(&self, number: i64) {
        if let Some(mut log) = self.with_logs(|logs| logs.close(number)) {
            log.end().await;
        }
    }
}

type Claim = (
    TriggerRow,
    gust_model::record::TaskInstance,
    Option<(gust_model::BundleName, gust_model::BundleVersion)>,
);

/// A leased trigger with its task instance and the bundle that its class may be in. One whose task has gone on without
/// it is removed.
async fn claim_of(tx: &mut dyn Tx, row: TriggerRow) -> Result<Option<Claim>, WorkerError> {
    let Some(ti) = tx.task_instance(row.task_instance_id).await?.filter(|ti| ti.trigger_id == Some(row.id))
    else {
        tx.delete_trigger(row.id).await?;
        return Ok(None);
    };
    let bundle = if row.classpath.starts_with("airflow.") {
        None
    } else {
        let run = tx.dag_run_by_id(ti.dag_run_id).await?;
        let dag = tx.dag(&ti.dag_id).await?;
        dag.and_then(|dag| {
            let version = run.and_then(|run| run.bundle_version).or(dag.bundle_version)?;
            Some((dag.bundle_name, version))
        })
    };
    Ok(Some((row, ti, bundle)))
}

/// Passes commands on and reports back, until the process or the triggerer ends.
async fn serve(
    mut process: Box<dyn TriggerProcess>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    reports: &mpsc::Sender<FromChild>,
) {
    loop {
        tokio::select! {
            report = process.next() => match report {
                Some(report) => if reports.send(FromChild::Report(report)).await.is_err() { return },
                None => return,
            },
            command = commands.recv() => {
                let done = match command {
                    Some(Command::Add(order)) => process.add(&order).await,
                    Some(Command::Cancel { id, by_user }) => process.cancel(id, by_user).await,
                    None => return,
                };
                if let Err(problem) = done {
                    debug!(%problem, "a process of triggers takes no more commands");
                }
            }
        }
    }
}
