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
    /// Whether a change was taken that nobody has been told of yet.
    is_settling: bool,
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
        Ok(Self { changes, is_settling: false, _watcher: watcher })
    }

    /// Waits for a change, and then until none has come for a moment. False if the watch has ended. It may be dropped
    /// while it waits: a change that it had taken is told of by the next call.
    pub async fn changed(&mut self) -> bool {
        if !self.is_settling && self.changes.recv().await.is_none() {
            return false;
        }
        self.is_settling = true;
        while let Ok(Some(())) = tokio::time::timeout(SETTLE, self.changes.recv()).await {}
        self.is_settling = false;
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

    #[tokio::test]
    async fn a_change_outlives_a_listener_that_gives_up_while_it_settles() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = FolderWatch::new(folder.path()).unwrap();
        std::fs::write(folder.path().join("new.py"), "x").unwrap();
        // Polled until it has taken the change and waits for quiet, then dropped.
        while !watch.is_settling {
            let changed = watch.changed();
            tokio::pin!(changed);
            tokio::select! {
                biased;
                _ = &mut changed => panic!("it settles first"),
                () = tokio::time::sleep(Duration::from_millis(2)) => {}
            }
        }
        assert!(watch.changed().await);
    }
}
