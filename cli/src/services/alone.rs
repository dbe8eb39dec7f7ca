use std::{
    fs::{File, TryLockError},
    path::Path,
};

use anyhow::Context as _;

/// Says, for as long as the file lives, that this process runs tries beside whatever else uses the home: what is
/// running there is not given up because a `gust standalone` starts.
///
/// # Errors
/// When the lock's file cannot be made or locked.
pub fn work_beside(home: &Path) -> anyhow::Result<File> {
    let file = open(home)?;
    file.lock_shared().with_context(|| format!("locking a file in {}", home.display()))?;
    Ok(file)
}

/// Whether no other process works on the home; none begins to while the file lives.
///
/// # Errors
/// As [`work_beside`].
pub fn nobody_beside(home: &Path) -> anyhow::Result<Option<File>> {
    let file = open(home)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("locking a file in {}", home.display()))
        }
    }
}

fn open(home: &Path) -> anyhow::Result<File> {
    let path = home.join("workers.lock");
    File::create(&path).with_context(|| format!("making {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_beside_is_seen_until_it_has_ended() {
        let home = tempfile::tempdir().unwrap();
        drop(nobody_beside(home.path()).unwrap().expect("nobody is there"));
        let (one, other) = (work_beside(home.path()).unwrap(), work_beside(home.path()).unwrap());
        assert!(nobody_beside(home.path()).unwrap().is_none());
        drop(one);
        assert!(nobody_beside(home.path()).unwrap().is_none());
        drop(other);
        assert!(nobody_beside(home.path()).unwrap().is_some());
    }
}
