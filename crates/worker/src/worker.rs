use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::TimeDelta;
use futures::StreamExt as _;
use gust_model::{
    AttemptId, CallbackId, Epoch, QueueName, TaskInstanceId,
    message::{WorkKind, WorkMessage},
    record::{Component, ComponentKind},
};
use gust_ports::{
    Delivery, Wake,
    metastore::{DagGraphs, TxMode},
};
use gust_python_host::SpawnTask;
use gust_task_log::TryLog;
use serde_json::Map;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, debug, error, info, info_span, warn};

use crate::{
    claim::{Claimed, claim},
    config::WorkerConfig,
    error::WorkerError,
    finish::Finish,
    lines::Level,
    log::LogWriter,
    outcome::{Verdict, verdict},
    persist::persistently,
    redact::Secrets,
    requests::{Asker, Desk},
    services::{Process, Services},
    supervise::{LeaseOf, Watch},
};

/// How long one question to the queue may wait.
const LONG_POLL: Duration = Duration::from_secs(10);
/// The same where several queues are asked in turn.
const SHORT_POLL: Duration = Duration::from_millis(200);
/// The wait after a queue did not answer.
const QUEUE_RETRY: Duration = Duration::from_secs(1);
/// Messages asked for at once.
const MAX_BATCH: usize = 10;

/// What bounds a work item from outside.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Until when, on the monotonic clock, it must be over: a function's own deadline.
    pub deadline: Option<Duration>,
    /// Cancelled when running tries are to be given back.
    pub give_back: CancellationToken,
}

/// Runs work items.
pub struct Worker {
    pub(crate) services: Services,
    pub(crate) config: Arc<WorkerConfig>,
    pub(crate) dags: Arc<DagGraphs>,
    /// Who wants to hear that its try was taken away.
    running: Mutex<HashMap<TaskInstanceId, Arc<Notify>>>,
}

/// A try is entered among the running ones as long as this lives.
struct Entered<'a> {
    worker: &'a Worker,
    id: TaskInstanceId,
    revoked: Arc<Notify>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut running = self.worker.entered();
        // A later try of the same task instance may have entered here while this one came to its end.
        if running.get(&self.id).is_some_and(|entered| Arc::ptr_eq(entered, &self.revoked)) {
            running.remove(&self.id);
        }
    }
}

impl Worker {
    /// A worker that has not begun yet.
    #[must_use]
    pub fn new(services: Services, config: WorkerConfig) -> Arc<Self> {
        Arc::new(Self { services, config: Arc::new(config), dags: Arc::default(), running: Mutex::default() })
    }

    fn entered(&self) -> std::sync::MutexGuard<'_, HashMap<TaskInstanceId, Arc<Notify>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, id: TaskInstanceId) -> Entered<'_> {
        let revoked = Arc::new(Notify::new());
        self.entered().insert(id, Arc::clone(&revoked));
        Entered { worker: self, id, revoked }
    }

    /// Runs one work item to its end. False if it was not to be had: the hint was old, or somebody else was faster.
    ///
    /// # Errors
    /// What kept the worker from doing its work. How the task fared is in the metastore.
    pub async fn run(&self, message: WorkMessage, limits: &Limits) -> Result<bool, WorkerError> {
        self.run_and_tell(message, limits, std::future::ready(())).await
    }

    /// The same; `claimed` is awaited once the item is ours, or known not to be had.
    async fn run_and_tell(
        &self,
        message: WorkMessage,
        limits: &Limits,
        claimed: impl Future<Output = ()>,
    ) -> Result<bool, WorkerError> {
        match message.kind {
            WorkKind::Try => self.run_try(TaskInstanceId(message.id), message.epoch, limits, claimed).await,
            WorkKind::Callback => {
                self.run_callback(CallbackId(message.id), message.epoch, limits, claimed).await
            }
        }
    }

    async fn run_try(
        &self,
        id: TaskInstanceId,
        epoch: Epoch,
        limits: &Limits,
        told: impl Future<Output = ()>,
    ) -> Result<bool, WorkerError> {
        let attempt_id = AttemptId(self.services.ids.fresh());
        let (clock, grace) = (&*self.services.clock, self.config.outage_grace);
        let found = persistently(clock, grace, || {
            claim(&self.services, &self.config, &self.dags, id, epoch, attempt_id)
        })
        .await?;
        told.await;
        let Some(claimed) = found else {
            metrics::counter!("gust_hints_dropped_total").increment(1);
            debug!(%id, %epoch, "an old hint was dropped");
            return Ok(false);
        };
        let span = info_span!(
            "try",
            dag_id = %claimed.run.dag_id,
            run_id = %claimed.run.run_id,
            task_id = %claimed.task_instance.task_id,
            map_index = claimed.task_instance.map_index.0,
            try_number = claimed.task_instance.try_number,
            epoch = epoch.0,
        );
        match self.run_claimed(claimed, limits).instrument(span).await {
            // The row is somebody else's by now; what it came to is theirs to say.
            Err(WorkerError::Revoked(_)) | Ok(()) => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn run_claimed(&self, claimed: Claimed, limits: &Limits) -> Result<(), WorkerError> {
        let entered = self.enter(claimed.task_instance.id);
        let claimed = Arc::new(claimed);
        let asker = Asker {
            task_instance: claimed.task_instance.clone(),
            run: claimed.run.clone(),
            fence: Some((claimed.epoch, claimed.attempt_id)),
        };
        let secrets = Arc::new(Secrets::new(self.config.min_secret_length, &self.config.sensitive_names));
        let try_log = TryLog::of(&claimed.task_instance);
        let mut log = LogWriter::new(&self.services, &self.config, try_log, claimed.epoch, &secrets);
        let desk =
            Arc::new(Desk::new(&self.services, &self.config, &self.dags, &secrets, Some(asker.clone())));
        let mut lease = LeaseOf {
            id: claimed.task_instance.id,
            epoch: claimed.epoch,
            attempt_id: claimed.attempt_id,
            asked_at: claimed.asked_at,
        };
        let verdict = match self.start(&claimed, &mut lease).await {
            Ok(mut process) => {
                let watch = self.watch(&claimed, &desk, lease, limits, &entered);
                let ended = watch.until_end(&mut *process, &mut log).await;
                verdict(ended.said, &ended.exited, ended.killed)
            }
            Err(WorkerError::Revoked(_)) => Verdict::Abandoned,
            Err(error) => {
                error!(%error, "a task could not be started");
                log.say(Level::Error, &format!("The task could not be started: {error}"), Map::new());
                Verdict::Died(format!("it could not be started: {error}"))
            }
        };
        if let Verdict::Died(cause) = &verdict {
            log.say(Level::Error, &format!("The try failed: {cause}"), Map::new());
        }
        self.end_log(&mut log, &lease).await;
        let writes = desk.take_writes().await;
        Finish::new(&self.services, &self.config, &claimed, asker, verdict, writes).commit().await?;
        Ok(())
    }

    /// Writes the end of the log, however long the object store takes to answer, and holds the lease meanwhile.
    async fn end_log(&self, log: &mut LogWriter, lease: &LeaseOf) {
        let end = log.end();
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                () = self.services.clock.sleep(self.config.lease_ttl / 3) => {
                    // Whether the try is still ours, its last transaction finds out.
                    if let Err(problem) = self.renew(lease).await {
                        warn!(%problem, "a lease could not be renewed yet");
                    }
                }
            }
        }
    }

    fn watch(
        &self,
        claimed: &Claimed,
        desk: &Arc<Desk>,
        lease: LeaseOf,
        limits: &Limits,
        entered: &Entered<'_>,
    ) -> Watch {
        let time_limit = claimed
            .task()
            .and_then(|task| task.execution_timeout)
            .and_then(|limit: TimeDelta| limit.to_std().ok())
            .map(|limit| limit + self.config.execution_timeout_grace);
        Watch {
            services: self.services.clone(),
            config: Arc::clone(&self.config),
            desk: Arc::clone(desk),
            lease: Some(lease),
            time_limit,
            deadline: limits.deadline,
            revoked: Arc::clone(&entered.revoked),
            shutdown: limits.give_back.clone(),
        }
    }

    /// Fetches the code and starts the process, holding the lease meanwhile.
    async fn start(&self, claimed: &Claimed, lease: &mut LeaseOf) -> Result<Box<dyn Process>, WorkerError> {
        let clock = &self.services.clock;
        let started =
            Wake::Run { dag_id: claimed.run.dag_id.clone(), run_id: claimed.run.run_id.clone(), plan: false };
        let prepare = async {
            let bundle_path = claimed.bundle_path(&self.services).await?;
            let startup = claimed.startup(clock.now());
            let task = SpawnTask { bundle_path, startup, env: self.config.env.clone() };
            Ok(self.services.processes.start_task(task).await?)
        };
        let start = async {
            // Pages hear of it while the process starts.
            let ((), process) = futures::join!(self.services.wakeups.wake(started), prepare);
            process
        };
        tokio::pin!(start);
        loop {
            tokio::select! {
                started = &mut start => return started,
                () = clock.sleep(self.config.lease_ttl / 3) => {
                    let asked_at = clock.monotonic();
                    match self.renew(lease).await {
                        Ok(true) => lease.asked_at = asked_at,
                        Ok(false) => return Err(WorkerError::Revoked(lease.id)),
                        Err(problem) => warn!(%problem, "a lease could not be renewed yet"),
                    }
                }
            }
        }
    }

    async fn renew(&self, lease: &LeaseOf) -> Result<bool, WorkerError> {
        let mut tx = self.services.metastore.begin(TxMode::Write).await?;
        let ttl = self.config.lease_ttl;
        let renewal = tx.renew_lease(lease.id, lease.epoch, lease.attempt_id, ttl).await?;
        tx.commit().await?;
        Ok(renewal.is_some())
    }

    /// Takes work from the queues until `shutdown`, then waits for what runs, and gives back what runs for too long.
    ///
    /// # Errors
    /// [`WorkerError::NoQueues`], and a queue that is not configured.
    pub async fn run_loop(self: Arc<Self>, shutdown: CancellationToken) -> Result<(), WorkerError> {
        if self.config.queues.is_empty() {
            return Err(WorkerError::NoQueues);
        }
        let tracker = TaskTracker::new();
        let limits = Limits::default();
        let stopped = CancellationToken::new();
        self.spawn_beside(stopped.clone());
        info!(worker = self.config.name, concurrency = self.config.concurrency, "the worker takes work");
        let result = self.receive(&shutdown, &tracker, &limits).await;
        tracker.close();
        let clock = &self.services.clock;
        tokio::select! {
            () = tracker.wait() => {}
            () = clock.sleep(self.config.drain_limit) => {
                warn!(running = tracker.len(), "tries run on past the drain limit; they are given back");
                limits.give_back.cancel();
                tracker.wait().await;
            }
        }
        stopped.cancel();
        info!(worker = self.config.name, "the worker has stopped");
        result
    }

    /// Starts what runs beside the work: saying that the worker lives, hearing what was taken from it.
    fn spawn_beside(self: &Arc<Self>, stopped: CancellationToken) {
        let worker = Arc::clone(self);
        let token = stopped.clone();
        self.services
            .spawner
            .spawn("worker-heartbeat", Box::pin(async move { worker.say_alive(&token).await }));
        let worker = Arc::clone(self);
        let mut wakes = self.services.wakeups.listen();
        self.services.spawner.spawn(
            "worker-revocations",
            Box::pin(async move {
                loop {
                    tokio::select! {
                        wake = wakes.next() => match wake {
                            Some(Wake::Revoked { task_instance_id }) => worker.revoked(task_instance_id),
                            Some(_) => {}
                            None => return,
                        },
                        () = stopped.cancelled() => return,
                    }
                }
            }),
        );
    }

    fn revoked(&self, id: TaskInstanceId) {
        if let Some(notify) = self.entered().get(&id) {
            notify.notify_one();
        }
    }

    async fn say_alive(&self, stopped: &CancellationToken) {
        let clock = &self.services.clock;
        let mut started_at = None;
        while !stopped.is_cancelled() {
            let said = async {
                let mut tx = self.services.metastore.begin(TxMode::Write).await?;
                let heartbeat_at = tx.now().await?;
                let component = Component {
                    kind: ComponentKind::Worker,
                    name: self.config.name.clone(),
                    heartbeat_at,
                    started_at: *started_at.get_or_insert(heartbeat_at),
                };
                tx.put_component(&component).await?;
                tx.commit().await
            };
            if let Err(problem) = said.await {
                warn!(%problem, "the worker could not say that it lives");
            }
            tokio::select! {
                () = clock.sleep(self.config.heartbeat_interval) => {}
                () = stopped.cancelled() => {}
            }
        }
    }

    async fn receive(
        self: &Arc<Self>,
        shutdown: &CancellationToken,
        tracker: &TaskTracker,
        limits: &Limits,
    ) -> Result<(), WorkerError> {
        let slots = Arc::new(Semaphore::new(self.config.concurrency.max(1)));
        let queues = &self.config.queues;
        let wait = if queues.len() == 1 { LONG_POLL } else { SHORT_POLL };
        let mut turn = 0;
        loop {
            let permit = tokio::select! {
                permit = Arc::clone(&slots).acquire_owned() => permit,
                () = shutdown.cancelled() => return Ok(()),
            };
            let Ok(permit) = permit else { return Ok(()) };
            let mut permits = vec![permit];
            while permits.len() < MAX_BATCH
                && let Ok(more) = Arc::clone(&slots).try_acquire_owned()
            {
                permits.push(more);
            }
            let queue = &queues[turn % queues.len()];
            turn += 1;
            let received = tokio::select! {
                received = self.services.queue.receive(queue, permits.len(), wait) => received,
                () = shutdown.cancelled() => return Ok(()),
            };
            match received {
                Ok(deliveries) => {
                    for (delivery, permit) in deliveries.into_iter().zip(permits) {
                        self.spawn_item(queue.clone(), delivery, permit, tracker, limits);
                    }
                }
                Err(error @ gust_ports::QueueError::Unknown { .. }) => return Err(error.into()),
                Err(problem) => {
                    warn!(%problem, "no work could be received; trying again");
                    self.services.clock.sleep(QUEUE_RETRY).await;
                }
            }
        }
    }

    fn spawn_item(
        self: &Arc<Self>,
        queue: QueueName,
        delivery: Delivery,
        permit: OwnedSemaphorePermit,
        tracker: &TaskTracker,
        limits: &Limits,
    ) {
        let worker = Arc::clone(self);
        let limits = limits.clone();
        let item = async move {
            let delete = async {
                if let Err(problem) = worker.services.queue.delete(&queue, &delivery.receipt).await {
                    debug!(%problem, "a claimed hint could not be deleted; it will be dropped when it comes again");
                }
            };
            if let Err(error) = worker.run_and_tell(delivery.message, &limits, delete).await {
                error!(%error, message = ?delivery.message, "a work item could not be run");
            }
            drop(permit);
        };
        self.services.spawner.spawn("work-item", Box::pin(tracker.track_future(item)));
    }
}
