//! The DAG processor: takes in what a bundle's origin holds, parses it in the Python child behind the parser port, and
//! records what came of each file. It never runs user code itself.

mod facts;
mod record;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use gust_model::{
    BundleName, BundleVersion, DagId,
    record::{Component, ComponentKind, Timestamp},
};
use gust_ports::{
    BundleSource, Clock, DagParser, Ids, Metastore, MetastoreError, ParseJob, ParsedFile, Wake, Wakeups,
    metastore::{TxMode, transact},
};
use tokio::sync::mpsc;

pub use facts::DagFacts;

use crate::SchedulerError;

/// Where a bundle's content comes from: a folder that is packed on each change, or a pointer in an object store.
#[async_trait]
pub trait BundleOrigin: Send + Sync {
    /// The bundle's name.
    fn name(&self) -> &BundleName;

    /// Takes in what is there now and says which version it is. A version that is named can be fetched from then on.
    ///
    /// # Errors
    /// A text that names what cannot be read and why.
    async fn newest(&self) -> Result<BundleVersion, String>;

    /// Waits until there may be something new; false if that cannot be told, and only regular looks find changes.
    async fn changed(&mut self) -> bool;
}

/// How files are parsed.
#[derive(Debug, Clone)]
pub struct DagProcessorSettings {
    /// How often every file is parsed again though nothing changed (`[dag_processor] min_file_process_interval`).
    pub reparse_interval: Duration,
    /// How long one file may take (`[dag_processor] dag_file_processor_timeout`).
    pub file_timeout: Duration,
    /// Whether new DAGs start paused (`[core] dags_are_paused_at_creation`).
    pub paused_at_creation: bool,
    /// What names this process in health reports.
    pub component: String,
}

/// What one look at a bundle came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intake {
    /// The version that was parsed.
    pub version: Option<BundleVersion>,
    /// How many files were looked at.
    pub file_count: usize,
    /// The DAGs that serve now.
    pub dag_ids: BTreeSet<DagId>,
    /// How many errors were found.
    pub error_count: usize,
}

/// The DAG processor of one Gust.
#[derive(Clone)]
pub struct DagProcessor {
    store: Arc<dyn Metastore>,
    bundles: Arc<dyn BundleSource>,
    parser: Arc<dyn DagParser>,
    wakeups: Arc<dyn Wakeups>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    settings: DagProcessorSettings,
    started_at: Timestamp,
}

impl DagProcessor {
    /// Puts a DAG processor together.
    #[must_use]
    pub fn new(
        store: Arc<dyn Metastore>,
        bundles: Arc<dyn BundleSource>,
        parser: Arc<dyn DagParser>,
        wakeups: Arc<dyn Wakeups>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
        settings: DagProcessorSettings,
    ) -> Self {
        let started_at = clock.now();
        Self { store, bundles, parser, wakeups, clock, ids, settings, started_at }
    }

    /// Takes in one bundle for ever: at once, on every change, and after every interval. Ends only with the task that
    /// runs it; what goes wrong is logged and tried again.
    pub async fn run(&self, mut origin: Box<dyn BundleOrigin>) {
        loop {
            if let Err(error) = self.look(&*origin).await {
                tracing::error!(bundle = %origin.name(), %error, "the bundle was not taken in");
            }
            let interval = self.clock.sleep(self.settings.reparse_interval);
            tokio::pin!(interval);
            loop {
                tokio::select! {
                    has_changed = origin.changed() => if has_changed { break } else { interval.await; break },
                    () = &mut interval => break,
                    // A quiet bundle must not look like a dead processor.
                    () = self.clock.sleep(HEARTBEAT) => self.heartbeat().await,
                }
            }
        }
    }

    /// Takes in one bundle once.
    ///
    /// # Errors
    /// [`SchedulerError`] when the bundle as a whole could not be read, fetched, parsed or recorded.
    #[tracing::instrument(skip_all, fields(bundle = %origin.name()))]
    pub async fn look(&self, origin: &dyn BundleOrigin) -> Result<Intake, SchedulerError> {
        self.heartbeat().await;
        let name = origin.name().clone();
        let version = origin.newest().await.map_err(|why| SchedulerError::Origin(name.clone(), why))?;
        let path = self.bundles.local_path(&name, &version).await?;
        let job = ParseJob {
            bundle_name: name.clone(),
            bundle_version: Some(version.clone()),
            bundle_path: path,
            files: Vec::new(),
            file_timeout: self.settings.file_timeout,
        };
        let (out, mut parsed) = mpsc::channel::<ParsedFile>(8);
        let mut intake = Intake { version: Some(version.clone()), ..Intake::default() };
        let mut kept = BTreeSet::new();
        let recording = async {
            while let Some(file) = parsed.recv().await {
                let recorded = match self.record(&name, &version, &job, &file).await {
                    Ok(recorded) => recorded,
                    Err(error) => {
                        // Otherwise the parser would wait for ever for somebody to take the next file.
                        parsed.close();
                        while parsed.recv().await.is_some() {}
                        return Err(error);
                    }
                };
                intake.error_count += recorded.error_count;
                intake.dag_ids.extend(recorded.dag_ids);
                kept.extend(recorded.kept);
            }
            Ok::<_, SchedulerError>(())
        };
        let (files, recorded) = tokio::join!(self.parser.parse(&job, out), recording);
        recorded?;
        let files = files?;
        intake.file_count = files.len();
        let serving: Vec<DagId> = intake.dag_ids.iter().chain(&kept).cloned().collect();
        self.forget_vanished(&name, &version, &files, serving).await?;
        Ok(intake)
    }

    /// Marks DAGs that no file holds any more, and forgets the errors of files that are gone.
    async fn forget_vanished(
        &self,
        name: &BundleName,
        version: &BundleVersion,
        files: &[String],
        serving: Vec<DagId>,
    ) -> Result<(), SchedulerError> {
        let vanished = transact(&*self.store, TxMode::Write, |tx| {
            let (name, version, files, serving) =
                (name.clone(), version.clone(), files.to_vec(), serving.clone());
            Box::pin(async move {
                let vanished = tx.mark_dags_stale(&name, None, &serving).await?;
                for dag_id in &vanished {
                    tx.replace_asset_references(dag_id, &[]).await?;
                }
                tx.keep_import_errors_of(&name, &files).await?;
                let now = tx.now().await?;
                tx.set_current_bundle_version(&name, &version, now).await?;
                Ok::<_, MetastoreError>(vanished)
            })
        })
        .await?;
        for dag_id in vanished {
            tracing::info!(%dag_id, "no file holds this DAG any more");
            self.wakeups.wake(Wake::Dag { dag_id }).await;
        }
        Ok(())
    }

    async fn heartbeat(&self) {
        let beat = transact(&*self.store, TxMode::Write, |tx| {
            let (name, started_at) = (self.settings.component.clone(), self.started_at);
            Box::pin(async move {
                let now = tx.now().await?;
                let component =
                    Component { kind: ComponentKind::DagProcessor, name, heartbeat_at: now, started_at };
                tx.put_component(&component).await
            })
        });
        if let Err(error) = beat.await {
            tracing::warn!(%error, "the DAG processor's heartbeat was not recorded");
        }
    }
}

/// Airflow calls a DAG processor unhealthy after 30 seconds (`[dag_processor] parsing_processes` health threshold).
const HEARTBEAT: Duration = Duration::from_secs(10);
