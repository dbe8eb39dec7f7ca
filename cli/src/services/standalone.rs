use std::{
    fs::{self, File, TryLockError},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use gust_config::Config;
use gust_model::QueueName;
use gust_scheduler::Target;
use gust_web::AuthMode;
use gust_worker::Worker;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    alone,
    parts::{
        DEFAULT_QUEUE, is_loopback, listen, make_host, make_scheduler, make_triggerer, own_queue,
        process_dags, run_triggerer, run_worker, services, web_state, worker_config,
    },
    shutdown,
};
use crate::house::House;

/// How `gust standalone` differs from the configuration.
#[derive(Debug, Clone, Default)]
pub struct StandaloneOptions {
    /// How many tries run at once.
    pub concurrency: Option<u32>,
}

/// The DAGs that a fresh home starts with.
const SAMPLES: [(&str, &str); 3] = [
    ("hello.py", include_str!("../samples/hello.py")),
    ("fan_out.py", include_str!("../samples/fan_out.py")),
    ("nightly.py", include_str!("../samples/nightly.py")),
];

/// Runs all of Gust in this process: scheduler, DAG processor, workers, triggerer and web, everybody an administrator,
/// on loopback only. Ends on Ctrl-C, after what runs has ended.
///
/// # Errors
/// When a part cannot be started: which, why, and what helps.
pub async fn standalone(config: Config, options: StandaloneOptions) -> anyhow::Result<()> {
    let stop = shutdown::on_signal();
    let house = House::open(config).await?;
    let _only_one = lock_home(&house.config.gust.home)?;
    put_samples(&house.config)?;
    house.migrate().await.context("migrating the metastore")?;
    let listener = listen(&house).await?;
    let address = listener.local_addr()?;
    anyhow::ensure!(
        is_loopback(address),
        "standalone lets everybody in as an administrator, so it listens on loopback only, not on {address}; \
         use --host 127.0.0.1, or `gust web` for a server with tokens"
    );
    let host = make_host(&house).await?;

    // The web server goes last, so that pages still show how the rest comes to its end.
    let web_stop = CancellationToken::new();
    let state = web_state(&house, AuthMode::AllAdmins)?;
    let web = tokio::spawn(gust_web::serve(listener, state, web_stop.clone().cancelled_owned()));

    let queue = own_queue();
    let scheduler = make_scheduler(&house, queue.clone(), Target::One(QueueName::from(DEFAULT_QUEUE)));
    if house.config.metastore.url.is_sqlite() {
        // The locks say that no other process works on this home, so what was under way is nobody's. Beside a worker
        // it is left to the leases, as between any processes.
        if let Some(_alone) = alone::nobody_beside(&house.config.gust.home)? {
            scheduler.take_over().await.context("taking over from the last run")?;
        } else {
            tracing::info!("a worker uses this home as well; what runs is left to it");
        }
    }
    let worker = Worker::new(
        services(&house, queue, &host),
        worker_config(&house, vec![QueueName::from(DEFAULT_QUEUE)], options.concurrency),
    );
    let triggerer = make_triggerer(&house, &host);

    let mut looks = JoinSet::new();
    process_dags(&house, &host, &mut looks);
    let mut parts = JoinSet::new();
    let token = stop.clone();
    parts.spawn(async move { scheduler.run(token.cancelled_owned()).await });
    let token = stop.clone();
    parts.spawn(run_triggerer(triggerer, token));
    let token = stop.clone();
    parts.spawn(run_worker(worker, token));

    announce(address, &stop, &house).await;
    tokio::select! {
        () = stop.cancelled() => {}
        Some(ended) = parts.join_next() => {
            // A part ends by itself only by a panic, which has been logged.
            stop.cancel();
            if let Err(error) = ended {
                tracing::error!(%error, "a part of Gust ended; stopping the others");
            }
        }
        Some(ended) = looks.join_next() => {
            stop.cancel();
            if let Err(error) = ended {
                tracing::error!(%error, "the DAG processor ended; stopping the others");
            }
        }
    }
    looks.shutdown().await;
    while parts.join_next().await.is_some() {}
    web_stop.cancel();
    web.await.context("the web server's task")??;
    house.sql.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// Holds the home folder for this process, for as long as the file lives.
fn lock_home(home: &Path) -> anyhow::Result<File> {
    let path = home.join("standalone.lock");
    let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            anyhow::bail!(
                "another `gust standalone` uses {}; stop it, or give another --home",
                home.display()
            )
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {}", path.display())),
    }
}

/// Puts the shipped DAGs into the default DAG folder of a home that has none.
fn put_samples(config: &Config) -> anyhow::Result<()> {
    let folder = &config.core.dags_folder;
    if folder.exists() {
        return Ok(());
    }
    anyhow::ensure!(
        *folder == config.gust.home.join("dags"),
        "the DAG folder {} does not exist; make it, or give another with --dags",
        folder.display()
    );
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    for (name, text) in SAMPLES {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Prints where Gust is to be found, once it says that it is well.
async fn announce(address: SocketAddr, stop: &CancellationToken, house: &House) {
    loop {
        if stop.is_cancelled() {
            return;
        }
        match is_healthy(address).await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "the web server does not answer yet"),
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
            () = stop.cancelled() => return,
        }
    }
    let config = &house.config;
    println!();
    println!("  Gust is ready:  http://{address}");
    println!("  DAG folder      {}", config.core.dags_folder.display());
    println!("  Home            {}", config.gust.home.display());
    println!("  Metastore       {}", house.store.describe());
    println!();
    println!("  Everybody on this machine is an administrator here. Ctrl-C stops.");
    println!();
}

/// Asks the health endpoint as a client would.
async fn is_healthy(address: SocketAddr) -> anyhow::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let request =
        format!("GET /api/v2/monitor/health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let health: serde_json::Value = serde_json::from_str(body.trim()).unwrap_or_default();
    let is = |component: &str| health[component]["status"] == "healthy";
    Ok(is("metadatabase") && is("scheduler") && is("dag_processor"))
}
