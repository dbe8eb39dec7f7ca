//! The supervisor against processes that the test plays: no Python, time at the test's command.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use gust_model::{BundleName, BundleVersion, TaskInstanceState as S, dag::Dag};
use gust_ports::{
    BundleError, BundleSource, ObjectKey, ObjectMeta, ObjectStore, ObjectStoreError, PutOutcome,
    TokioSpawner,
    memory::{
        Fault, FaultHook, FaultPoint, ManualClock, MemoryMetastore, MemoryObjectStore, MemoryQueue,
        MemoryWakeups, NoFaults, SequentialIds,
    },
};
use gust_python_host::{
    Error, Event, Exit, Exited, Request, Signal, SpawnCallbacks, SpawnTask, Usage,
    messages::{FromTask, Reply, ToTask},
};
use gust_worker::{Limits, Process, Processes, Services, Worker, WorkerConfig};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use crate::house::{House, InHand, Sealer};

/// What the test hears of a process, and tells it.
#[derive(Default)]
struct Stage {
    replies: Mutex<Vec<(i64, Reply)>>,
    signals: Mutex<Vec<Signal>>,
    replied: Notify,
    signalled: Notify,
    started: Notify,
    events: Mutex<Option<mpsc::UnboundedSender<Event>>>,
}

impl Stage {
    fn play(&self, event: Event) {
        let events = self.events.lock().unwrap();
        events.as_ref().expect("a process was started").send(event).expect("the process is watched");
    }

    fn ask(&self, id: i64, body: Value) {
        let body = FromTask::from_json(body);
        self.play(Event::Request(Request { id, body, carrier: None }));
    }

    fn exit(&self, exit: Exit) {
        self.play(Event::Exited(Exited { exit, usage: Usage::default() }));
    }

    async fn reply_to(&self, id: i64) -> Reply {
        loop {
            let replied = self.replied.notified();
            if let Some((_, reply)) = self.replies.lock().unwrap().iter().find(|(to, _)| *to == id) {
                return reply.clone();
            }
            replied.await;
        }
    }

    async fn signal(&self, count: usize) -> Signal {
        loop {
            let signalled = self.signalled.notified();
            if let Some(signal) = self.signals.lock().unwrap().get(count - 1) {
                return *signal;
            }
            signalled.await;
        }
    }
}

struct Actor {
    stage: Arc<Stage>,
    events: mpsc::UnboundedReceiver<Event>,
}

#[async_trait]
impl Process for Actor {
    async fn next_event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    fn pid(&self) -> u32 {
        1
    }

    async fn reply(&self, id: i64, reply: Reply) -> Result<(), Error> {
        self.stage.replies.lock().unwrap().push((id, reply));
        self.stage.replied.notify_waiters();
        Ok(())
    }

    fn kill(&self, signal: Signal) {
        self.stage.signals.lock().unwrap().push(signal);
        self.stage.signalled.notify_waiters();
    }
}

struct Theatre(Arc<Stage>);

#[async_trait]
impl Processes for Theatre {
    async fn start_task(&self, _: SpawnTask) -> Result<Box<dyn Process>, Error> {
        let (sender, events) = mpsc::unbounded_channel();
        *self.0.events.lock().unwrap() = Some(sender);
        self.0.started.notify_one();
        Ok(Box::new(Actor { stage: Arc::clone(&self.0), events }))
    }

    async fn start_callbacks(&self, _: SpawnCallbacks) -> Result<Box<dyn Process>, Error> {
        Err(Error::ChildFailed("no callbacks here".to_owned()))
    }
}

struct Nowhere;

#[async_trait]
impl BundleSource for Nowhere {
    async fn local_path(&self, _: &BundleName, _: &BundleVersion) -> Result<PathBuf, BundleError> {
        Ok(PathBuf::from("/nowhere"))
    }
}

pub struct Play {
    pub house: House,
    pub hand: InHand,
    stage: Arc<Stage>,
    clock: Arc<ManualClock>,
}

fn dag() -> Value {
    let task = |id: &str| {
        json!({"__type": "operator", "__var": {
            "task_id": id, "task_type": "T", "_task_module": "m", "retries": 1, "retry_delay": 60.0,
            "downstream_task_ids": [], "template_fields": [],
        }})
    };
    json!({
        "__version": 3,
        "dag": {
            "dag_id": "d",
            "fileloc": "d.py",
            "relative_fileloc": "d.py",
            "timezone": "UTC",
            "timetable": {"__type": "airflow.timetables.simple.NullTimetable", "__var": {}},
            "task_group": {
                "_group_id": null, "prefix_group_id": true, "tooltip": "", "children": {"t": ["operator", "t"]},
                "upstream_group_ids": [], "downstream_group_ids": [], "upstream_task_ids": [],
                "downstream_task_ids": [],
            },
            "tasks": [task("t")],
        },
    })
}

impl Play {
    pub async fn begin(faults: Arc<dyn FaultHook>) -> Self {
        Self::begin_with(faults, Arc::new(MemoryObjectStore::new())).await
    }

    async fn begin_with(faults: Arc<dyn FaultHook>, objects: Arc<dyn ObjectStore>) -> Self {
        let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
        let stage = Arc::new(Stage::default());
        let services = Services {
            metastore: Arc::new(MemoryMetastore::with_faults(clock.clone(), faults)),
            queue: Arc::new(MemoryQueue::new(clock.clone(), Duration::from_mins(1))),
            objects,
            clock: clock.clone(),
            ids: Arc::new(SequentialIds::new(1)),
            wakeups: Arc::new(MemoryWakeups::new(16)),
            spawner: Arc::new(TokioSpawner),
            cipher: Arc::new(Sealer),
            bundles: Arc::new(Nowhere),
            processes: Arc::new(Theatre(Arc::clone(&stage))),
        };
        let worker = Worker::new(services.clone(), WorkerConfig::new("test-host", 7));
        let house = House::of(services, worker);
        let dag = dag();
        Dag::from_serialized(&dag).unwrap();
        let hand = house.keep("d.py", &dag).await;
        Self { house, hand, stage, clock }
    }

    /// Runs the task beside the test, and waits until its process is there.
    async fn start(&self) -> tokio::task::JoinHandle<()> {
        let message = self.house.queue(&self.hand, "t", -1).await;
        let worker = Arc::clone(&self.house.worker);
        let running = tokio::spawn(async move {
            assert!(worker.run(message, &Limits::default()).await.unwrap());
        });
        self.stage.started.notified().await;
        running
    }

    /// Moves the clock from one waking to the next until `done` is.
    pub async fn pass_time_until<T>(&self, done: impl Future<Output = T>) -> T {
        tokio::pin!(done);
        loop {
            tokio::select! {
                biased;
                value = &mut done => return value,
                () = tokio::task::yield_now() => {
                    for _ in 0..20 {
                        tokio::task::yield_now().await;
                    }
                    if let Some(wait) = self.clock.until_next_wake() {
                        self.clock.advance(wait);
                    }
                }
            }
        }
    }
}

fn succeed() -> Value {
    json!({"type": "SucceedTask", "end_date": "2026-01-01T00:00:01Z"})
}

#[tokio::test]
async fn what_nobody_knows_is_refused_and_said_and_the_task_goes_on() {
    let play = Play::begin(Arc::new(NoFaults)).await;
    let running = play.start().await;
    play.stage.ask(1, json!({"type": "GetTheMoon", "phase": "full"}));
    play.stage.ask(2, json!({"type": "GetXCom", "key": 7}));
    play.stage.ask(3, succeed());
    for id in [1, 2] {
        assert!(matches!(play.stage.reply_to(id).await, Reply::Error(_)), "request {id}");
    }
    assert_eq!(play.stage.reply_to(3).await, Reply::Empty);
    // Requests after the last word are served until the end.
    play.stage.ask(4, json!({"type": "GetVariable", "key": "nothing"}));
    assert!(matches!(play.stage.reply_to(4).await, Reply::Body(ToTask::ErrorResponse(_))));
    play.stage.exit(Exit::Code(0));
    running.await.unwrap();
    let row = play.house.row(&play.hand, "t", -1).await;
    assert_eq!(row.state, S::Success);
    assert!(play.house.log(&row).await.contains("GetTheMoon"));
}

#[tokio::test]
async fn a_lease_is_renewed_while_the_task_runs() {
    let play = Play::begin(Arc::new(NoFaults)).await;
    let running = play.start().await;
    let before = play.house.row(&play.hand, "t", -1).await.lease.unwrap().expires_at;
    let renewed = async {
        while play.house.row(&play.hand, "t", -1).await.lease.unwrap().expires_at
            < before + chrono::TimeDelta::minutes(2)
        {
            tokio::task::yield_now().await;
        }
    };
    play.pass_time_until(renewed).await;
    play.stage.ask(1, succeed());
    play.stage.exit(Exit::Code(0));
    running.await.unwrap();
    assert_eq!(play.house.row(&play.hand, "t", -1).await.state, S::Success);
}

/// The metastore is silent while this is set.
#[derive(Default)]
struct Switch(std::sync::atomic::AtomicBool);

impl FaultHook for Switch {
    fn at(&self, _: FaultPoint) -> Fault {
        if self.0.load(std::sync::atomic::Ordering::SeqCst) { Fault::Unavailable } else { Fault::None }
    }
}

#[tokio::test]
async fn a_short_silence_is_an_outage_and_a_long_one_ends_the_task() {
    use std::sync::atomic::Ordering::SeqCst;
    let silence = Arc::new(Switch::default());
    let play = Play::begin(silence.clone()).await;
    let running = play.start().await;
    silence.0.store(true, SeqCst);
    let began = gust_ports::Clock::monotonic(&*play.clock);
    let term = play.pass_time_until(play.stage.signal(1)).await;
    let silent = gust_ports::Clock::monotonic(&*play.clock).saturating_sub(began);
    assert_eq!(term, Signal::SIGTERM);
    assert!(silent >= Duration::from_secs(290) && silent < Duration::from_secs(330), "{silent:?}");
    let kill = play.pass_time_until(play.stage.signal(2)).await;
    assert_eq!(kill, Signal::SIGKILL);
    silence.0.store(false, SeqCst);
    play.stage.exit(Exit::Signal(9));
    play.pass_time_until(running).await.unwrap();
    let row = play.house.row(&play.hand, "t", -1).await;
    assert_eq!(row.state, S::UpForRetry);
    assert!(play.house.log(&row).await.contains("silent for too long"));
}

/// An object store that takes nothing for a while.
struct Slow {
    inner: MemoryObjectStore,
    is_down: Switch,
}

#[async_trait]
impl ObjectStore for Slow {
    async fn create(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, ObjectStoreError> {
        if self.is_down.0.load(std::sync::atomic::Ordering::SeqCst) {
            let source = "it is down".into();
            return Err(ObjectStoreError::Unavailable { operation: "create", key: key.to_string(), source });
        }
        self.inner.create(key, content).await
    }

    async fn replace(&self, key: &ObjectKey, content: Bytes) -> Result<(), ObjectStoreError> {
        self.inner.replace(key, content).await
    }

    async fn read(&self, key: &ObjectKey) -> Result<Option<Bytes>, ObjectStoreError> {
        self.inner.read(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, ObjectStoreError> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), ObjectStoreError> {
        self.inner.delete(key).await
    }
}

#[tokio::test]
async fn a_try_stays_its_workers_while_the_end_of_its_log_is_written() {
    use std::sync::atomic::Ordering::SeqCst;
    let objects = Arc::new(Slow { inner: MemoryObjectStore::new(), is_down: Switch::default() });
    let play = Play::begin_with(Arc::new(NoFaults), objects.clone()).await;
    let running = play.start().await;
    objects.is_down.0.store(true, SeqCst);
    play.stage.ask(1, succeed());
    play.stage.reply_to(1).await;
    play.stage.exit(Exit::Code(0));
    let began = gust_ports::Clock::monotonic(&*play.clock);
    let later = async {
        while gust_ports::Clock::monotonic(&*play.clock).saturating_sub(began) < Duration::from_secs(45) {
            tokio::task::yield_now().await;
        }
    };
    play.pass_time_until(later).await;
    let row = play.house.row(&play.hand, "t", -1).await;
    assert_eq!(row.state, S::Running, "its log is being written");
    let now = gust_ports::Clock::now(&*play.clock);
    assert!(row.lease.unwrap().expires_at > now, "nobody may take it for dead");
    objects.is_down.0.store(false, SeqCst);
    play.pass_time_until(running).await.unwrap();
    assert_eq!(play.house.row(&play.hand, "t", -1).await.state, S::Success);
}

#[tokio::test]
async fn a_process_that_goes_on_after_its_last_word_is_ended_and_its_word_stands() {
    let play = Play::begin(Arc::new(NoFaults)).await;
    let running = play.start().await;
    play.stage.ask(1, succeed());
    assert_eq!(play.pass_time_until(play.stage.signal(1)).await, Signal::SIGTERM);
    play.stage.exit(Exit::Signal(15));
    play.pass_time_until(running).await.unwrap();
    assert_eq!(play.house.row(&play.hand, "t", -1).await.state, S::Success);
}

#[tokio::test]
async fn a_quiet_write_is_visible_to_others_after_a_moment() {
    let play = Play::begin(Arc::new(NoFaults)).await;
    let running = play.start().await;
    let pushed = json!({
        "type": "SetXCom", "key": "k", "value": [1], "dag_id": "d", "run_id": "manual__1", "task_id": "t",
    });
    play.stage.ask(1, pushed);
    assert_eq!(play.stage.reply_to(1).await, Reply::Empty);
    assert!(play.house.xcom(&play.hand, "t", -1, "k").await.is_none(), "nobody waits for it yet");
    let seen = async {
        while play.house.xcom(&play.hand, "t", -1, "k").await.is_none() {
            tokio::task::yield_now().await;
        }
    };
    play.pass_time_until(seen).await;
    play.stage.ask(
        2,
        json!({
            "type": "GetXCom", "key": "k", "dag_id": "d", "run_id": "manual__1", "task_id": "t",
        }),
    );
    match play.stage.reply_to(2).await {
        Reply::Body(ToTask::XComResult(found)) => assert_eq!(found.value, json!([1])),
        other => panic!("{other:?}"),
    }
    play.stage.exit(Exit::Code(1));
    running.await.unwrap();
    let row = play.house.row(&play.hand, "t", -1).await;
    assert_eq!(row.state, S::UpForRetry);
    assert_eq!(row.due_at.unwrap() - row.end_date.unwrap(), chrono::TimeDelta::minutes(1));
}
