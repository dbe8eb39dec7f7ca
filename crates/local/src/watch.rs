use std::{path::Path, time::Duration};

use notify::{RecursiveMode, Watcher as _};
use thiserror::Error;
use tokio::sync::mpsc;

/// Editors write a file in several steps; changes closer together than this count as one.
const SETTLE: Duration = Duration::from_millis(50);

/// Why a folder cannot be watched.
#[derive(Debug, Error)]
#[error("{folder} cannot be watched ({source}); changes are found at the next regular look")]
pub struct WatchError {
    folder: String,
    source: notify::Error,
}

/// Tells when something in a folder changed, soon after it did.
#[derive(Debug)]
pub struct FolderWatch {
    changes: mpsc::Receiver<()>,
    _watcher: notify::RecommendedWatcher,
}

impl FolderWatch {
    /// Watches a folder and all below it, from now on.
    ///
    /// # Errors
    /// [`WatchError`] when the folder is not there or the system's watches are used up.
    pub fn new(folder: &Path) -> Result<Self, WatchError> {
        let failed = |source| WatchError { folder: folder.display().to_string(), source };
        // One waiting change is as good as many: it stands for "look".
        let (sender, changes) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An access is no change: reading the folder must not cause another reading.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = sender.try_send(());
            }
        })
        .map_err(failed)?;
        watcher.watch(folder, RecursiveMode::Recursive).map_err(failed)?;
        Ok(Self { changes, _watcher: watcher })
    }

    /// Waits for a change, and then until none has come for a moment. False if the watch has ended.
    pub async fn changed(&mut self) -> bool {
        if self.changes.recv().await.is_none() {
            return false;
        }
        while let Ok(Some(())) = tokio::time::timeout(SETTLE, self.changes.recv()).await {}
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_written_file_and_a_new_folder_are_changes_and_a_read_is_none() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("old.py"), "x").unwrap();
        let mut watch = FolderWatch::new(folder.path()).unwrap();
        std::fs::read(folder.path().join("old.py")).unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        assert!(watch.changed().await);
        std::fs::write(folder.path().join("sub/new.py"), "y").unwrap();
        assert!(watch.changed().await);
        assert!(FolderWatch::new(&folder.path().join("none")).is_err());
    }
}
