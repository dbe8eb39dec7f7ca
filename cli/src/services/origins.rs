use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use gust_bundle::{current_version, pack, push};
use gust_local::FolderWatch;
use gust_model::{BundleName, BundleVersion};
use gust_ports::{Clock, ObjectStore};
use gust_scheduler::dag_processor::BundleOrigin;

/// A folder of DAG files on this machine: each change of it is packed as a version.
pub struct FolderOrigin {
    name: BundleName,
    folder: PathBuf,
    store: Arc<dyn ObjectStore>,
    watch: Option<FolderWatch>,
}

impl FolderOrigin {
    /// Watches a folder. One that cannot be watched is looked at regularly all the same.
    pub fn new(name: BundleName, folder: PathBuf, store: Arc<dyn ObjectStore>) -> Self {
        let watch = FolderWatch::new(&folder)
            .inspect_err(|error| tracing::warn!(%error, "changes of the bundle are noticed late"))
            .ok();
        Self { name, folder, store, watch }
    }
}

#[async_trait]
impl BundleOrigin for FolderOrigin {
    fn name(&self) -> &BundleName {
        &self.name
    }

    async fn newest(&self) -> Result<BundleVersion, String> {
        let folder = self.folder.clone();
        let packed = tokio::task::spawn_blocking(move || pack(&folder))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        push(&*self.store, &self.name, &packed).await.map_err(|error| error.to_string())?;
        Ok(packed.version)
    }

    async fn changed(&mut self) -> bool {
        match &mut self.watch {
            Some(watch) => watch.changed().await,
            None => std::future::pending().await,
        }
    }
}

/// A bundle that is pushed to the object store: its pointer names the newest version.
pub struct PointerOrigin {
    name: BundleName,
    store: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    seen: Option<BundleVersion>,
}

/// How often the pointer is read. A folder store tells of no changes.
const POLL: Duration = Duration::from_secs(1);

impl PointerOrigin {
    /// Follows a bundle's pointer.
    pub fn new(name: BundleName, store: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>) -> Self {
        Self { name, store, clock, seen: None }
    }
}

#[async_trait]
impl BundleOrigin for PointerOrigin {
    fn name(&self) -> &BundleName {
        &self.name
    }

    async fn newest(&self) -> Result<BundleVersion, String> {
        current_version(&*self.store, &self.name).await.map_err(|error| error.to_string())?.ok_or_else(|| {
            format!("nothing was pushed yet; `gust bundle push DIR --name {}` does", self.name)
        })
    }

    async fn changed(&mut self) -> bool {
        loop {
            match current_version(&*self.store, &self.name).await {
                Ok(current) if current != self.seen => {
                    self.seen = current;
                    return true;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(bundle = %self.name, %error, "the bundle's pointer was not read");
                }
            }
            self.clock.sleep(POLL).await;
        }
    }
}
