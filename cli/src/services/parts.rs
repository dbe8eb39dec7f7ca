use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use gust_config::Config;
use gust_local::ChannelQueue;
use gust_metastore::MetastoreQueue;
use gust_model::QueueName;
use gust_planner::AdmissionSettings;
use gust_ports::{TaskQueue, TokioSpawner};
use gust_python_host::{Environment, EnvironmentConfig, Host, HostConfig};
use gust_scheduler::{
    ExecutorSettings, Scheduler, SchedulerSettings, Target,
    dag_processor::{BundleOrigin, DagProcessor, DagProcessorSettings},
};
use gust_web::{AppState, Auth, AuthMode, Role};
use gust_worker::{ParseAnswers, Services, Triggerer, Worker, WorkerConfig};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    alone,
    origins::{FolderOrigin, PointerOrigin},
    parser::ChildParser,
    python::ensure_environment,
    shutdown,
};
use crate::house::House;

/// The queue of task instances that name none.
pub(super) const DEFAULT_QUEUE: &str = "default";

/// Runs a scheduler in this process until it is told to stop.
///
/// # Errors
/// When the house cannot be opened or its schema is not the one needed.
pub async fn scheduler(config: Config) -> anyhow::Result<()> {
    let house = open(config).await?;
    let queue = shared_queue(&house);
    let stop = shutdown::on_signal();
    make_scheduler(&house, queue, Target::ByName).run(stop.cancelled_owned()).await;
    Ok(())
}

/// Runs a DAG processor in this process until it is told to stop.
///
/// # Errors
/// As [`scheduler`], and when Python cannot be started.
pub async fn dag_processor(config: Config) -> anyhow::Result<()> {
    let house = open(config).await?;
    let host = make_host(&house).await?;
    let stop = shutdown::on_signal();
    let mut looks = JoinSet::new();
    process_dags(&house, &host, &mut looks);
    tokio::select! {
        () = stop.cancelled() => {}
        _ = looks.join_next() => anyhow::bail!("the DAG processor ended by itself"),
    }
    Ok(())
}

/// Runs a worker on some queues until it is told to stop; it then waits for what it runs.
///
/// # Errors
/// As [`dag_processor`].
pub async fn worker(config: Config, queues: Vec<QueueName>, concurrency: Option<u32>) -> anyhow::Result<()> {
    let house = open(config).await?;
    let host = make_host(&house).await?;
    let stop = shutdown::on_signal();
    let _beside = alone::work_beside(&house.config.gust.home)?;
    let settings = worker_config(&house, queues, concurrency);
    let worker = Worker::new(services(&house, shared_queue(&house), &host), settings);
    worker.run_loop(stop).await?;
    Ok(())
}

/// Runs a triggerer until it is told to stop.
///
/// # Errors
/// As [`dag_processor`].
pub async fn triggerer(config: Config) -> anyhow::Result<()> {
    let house = open(config).await?;
    let host = make_host(&house).await?;
    let stop = shutdown::on_signal();
    make_triggerer(&house, &host).run(stop).await?;
    Ok(())
}

/// Runs the web server until it is told to stop. Nothing is answered without a token.
///
/// # Errors
/// As [`scheduler`], and when the address cannot be listened on.
pub async fn web(config: Config) -> anyhow::Result<()> {
    let house = open(config).await?;
    let stop = shutdown::on_signal();
    let listener = listen(&house).await?;
    tracing::info!(address = %listener.local_addr()?, "the web server listens");
    let state = web_state(&house, AuthMode::TokensOnly)?;
    gust_web::serve(listener, state, stop.cancelled_owned()).await?;
    Ok(())
}

/// A token for the REST API, signed with the secret that [`web`] checks with.
///
/// # Errors
/// When the house or its secret cannot be opened.
pub async fn token(config: Config, user: &str, viewer: bool) -> anyhow::Result<String> {
    let house = House::open(config).await?;
    let auth = Auth::new(AuthMode::TokensOnly, &house.token_secret()?)?;
    let role = if viewer { Role::Viewer } else { Role::Admin };
    Ok(auth.token(user, role, house.clock.now())?)
}

/// Opens the house for a service, which does not begin on a schema that it does not know.
async fn open(config: Config) -> anyhow::Result<House> {
    let house = House::open(config).await?;
    house.store.check().await?;
    Ok(house)
}

/// The queue between processes: the metastore's own queued rows.
fn shared_queue(house: &House) -> Arc<dyn TaskQueue> {
    Arc::new(MetastoreQueue::new(
        Arc::clone(&house.store),
        Arc::clone(&house.wakeups),
        Arc::clone(&house.clock),
        QueueName::from(DEFAULT_QUEUE),
    ))
}

/// The queue within one process.
pub(super) fn own_queue() -> Arc<dyn TaskQueue> {
    Arc::new(ChannelQueue::default())
}

/// What names this process in health reports and on task instances.
fn component() -> String {
    format!("{}:{}", hostname(), std::process::id())
}

fn hostname() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".to_owned())
}

pub(super) fn make_scheduler(house: &House, queue: Arc<dyn TaskQueue>, target: Target) -> Scheduler {
    let config = &house.config;
    let page = config.scheduler.max_tis_per_query;
    let admission = AdmissionSettings {
        parallelism: config.core.parallelism,
        batch: if page == 0 { config.core.parallelism } else { page },
        ..AdmissionSettings::default()
    };
    let settings = SchedulerSettings {
        executor: ExecutorSettings {
            admission,
            target,
            callback_queue: QueueName::from(DEFAULT_QUEUE),
            ..ExecutorSettings::default()
        },
        // SQLite has no way to tell one process of another's commit, so a scheduler looks more often.
        idle_interval: if config.metastore.url.is_sqlite() {
            std::time::Duration::from_secs(1)
        } else {
            *config.scheduler.scheduler_heartbeat_sec
        },
        component: component(),
        ..SchedulerSettings::default()
    };
    Scheduler::new(
        Arc::clone(&house.store),
        queue,
        Arc::clone(&house.objects),
        Arc::clone(&house.wakeups),
        Arc::clone(&house.clock),
        Arc::clone(&house.ids),
        settings,
    )
}

/// Makes the Python environment if it is not there, and the host that starts children in it.
pub(super) async fn make_host(house: &House) -> anyhow::Result<Host> {
    let config = &house.config;
    let environment: Environment = ensure_environment(&EnvironmentConfig {
        home: config.python.env_dir.clone(),
        python: config.python.interpreter.clone(),
    })
    .await?;
    let mut settings = HostConfig::new(environment, config.gust.home.join("python-host"));
    settings.env = child_env(config);
    settings.file_zygote_max_age = *config.python.zygote_refresh_s;
    Ok(Host::new(settings)?)
}

/// The environment of user code: this process's, without what Gust keeps to itself, with the settings that the Python
/// side reads.
fn child_env(config: &Config) -> BTreeMap<String, String> {
    let mut env = gust_python_host::inherited_env();
    env.retain(|name, _| !gust_config::withheld_from_children(name));
    env.extend(config.child_env().clone());
    env
}

/// Starts taking in every configured bundle.
pub(super) fn process_dags(house: &House, host: &Host, looks: &mut JoinSet<()>) {
    let config = &house.config;
    let answers = ParseAnswers::new(Arc::clone(&house.store), Arc::clone(&house.cipher));
    let children = usize::try_from(config.dag_processor.parsing_processes).unwrap_or(usize::MAX);
    let parser =
        ChildParser::new(host.clone(), Arc::new(answers), config.core.dag_discovery_safe_mode, children);
    let settings = DagProcessorSettings {
        reparse_interval: *config.dag_processor.min_file_process_interval,
        file_timeout: *config.dag_processor.dag_file_processor_timeout,
        paused_at_creation: config.core.dags_are_paused_at_creation,
        component: component(),
    };
    let processor = DagProcessor::new(
        Arc::clone(&house.store),
        Arc::clone(&house.bundles),
        Arc::new(parser),
        Arc::clone(&house.wakeups),
        Arc::clone(&house.clock),
        Arc::clone(&house.ids),
        settings,
    );
    for origin in origins(house) {
        let processor = processor.clone();
        looks.spawn(async move { processor.run(origin).await });
    }
}

/// Where the configured bundles come from. A bundle whose folder is not there may be pushed.
fn origins(house: &House) -> Vec<Box<dyn BundleOrigin>> {
    let origin = |(name, folder, _): (String, std::path::PathBuf, _)| -> Box<dyn BundleOrigin> {
        let store = Arc::clone(&house.objects);
        if folder.is_dir() {
            Box::new(FolderOrigin::new(name.into(), folder, store))
        } else {
            Box::new(PointerOrigin::new(name.into(), store, Arc::clone(&house.clock)))
        }
    };
    house.config.bundles().into_iter().map(origin).collect()
}

pub(super) fn services(house: &House, queue: Arc<dyn TaskQueue>, host: &Host) -> Services {
    Services {
        metastore: Arc::clone(&house.store),
        queue,
        objects: Arc::clone(&house.objects),
        clock: Arc::clone(&house.clock),
        ids: Arc::clone(&house.ids),
        wakeups: Arc::clone(&house.wakeups),
        spawner: Arc::new(TokioSpawner),
        cipher: Arc::clone(&house.cipher),
        bundles: Arc::clone(&house.bundles),
        processes: Arc::new(host.clone()),
    }
}

pub(super) fn worker_config(house: &House, queues: Vec<QueueName>, concurrency: Option<u32>) -> WorkerConfig {
    let config = &house.config;
    let pid = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    let concurrency = concurrency.or(config.worker.concurrency).unwrap_or_else(default_concurrency);
    WorkerConfig {
        queues,
        concurrency: usize::try_from(concurrency).unwrap_or(usize::MAX),
        lease_ttl: house.lease_ttl(),
        outage_grace: *config.worker.outage_grace_s,
        killed_task_cleanup_time: *config.core.killed_task_cleanup_time,
        end_overtime: *config.core.task_success_overtime,
        log_interval_min: *config.worker.log_flush_min_s,
        log_interval_max: *config.worker.log_flush_max_s,
        max_map_length: i64::from(config.core.max_map_length),
        sensitive_names: config.core.sensitive_var_conn_names.clone(),
        ..WorkerConfig::new(hostname(), pid)
    }
}

/// Tasks wait more than they compute, so several share a core.
fn default_concurrency() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cores).unwrap_or(u32::MAX).saturating_mul(4).max(8)
}

pub(super) fn make_triggerer(house: &House, host: &Host) -> Triggerer {
    Triggerer::new(services(house, own_queue(), host), host.clone(), component())
}

/// Listens where the configuration says.
pub(super) async fn listen(house: &House) -> anyhow::Result<TcpListener> {
    let (host, port) = (&house.config.api.host, house.config.api.port);
    TcpListener::bind((host.as_str(), port)).await.with_context(|| {
        format!("listening on {host}:{port}; is another server there? `--port N` takes another port")
    })
}

pub(super) fn web_state(house: &House, mode: AuthMode) -> anyhow::Result<AppState> {
    let config = &house.config;
    let health_threshold = config.scheduler.scheduler_health_check_threshold.as_secs();
    let mut settings = gust_web::Settings {
        health_threshold_s: u32::try_from(health_threshold).unwrap_or(u32::MAX),
        ..gust_web::Settings::default()
    };
    settings.allowed_hosts.extend(config.web.allowed_hosts.iter().cloned());
    let auth = Auth::new(mode, &house.token_secret()?)?;
    Ok(AppState::new(
        Arc::clone(&house.store),
        Arc::clone(&house.objects),
        Arc::clone(&house.wakeups),
        Arc::clone(&house.ids),
        Arc::clone(&house.clock),
        Arc::clone(&house.cipher),
        auth,
        settings,
    ))
}

/// Whether an address can be reached from this machine only.
pub(super) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().is_loopback()
}

/// Runs a worker beside other parts; what ends it early is logged.
pub(super) async fn run_worker(worker: Arc<Worker>, stop: CancellationToken) {
    if let Err(error) = worker.run_loop(stop).await {
        tracing::error!(%error, "the worker ended");
    }
}

/// Runs a triggerer beside other parts; what ends it early is logged.
pub(super) async fn run_triggerer(triggerer: Triggerer, stop: CancellationToken) {
    if let Err(error) = triggerer.run(stop).await {
        tracing::error!(%error, "the triggerer ended");
    }
}
