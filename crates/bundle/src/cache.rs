use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use gust_model::{BundleName, BundleVersion};
use gust_ports::{BundleError, BundleSource, ObjectKey, ObjectStore};

use crate::{Limits, store::archive_key, unpack};

/// Bundle versions unpacked on this machine, fetched from the object store when first asked for. A version is one
/// folder, whole or not there; nobody writes into it.
pub struct BundleCache {
    folder: PathBuf,
    store: Arc<dyn ObjectStore>,
    limits: Limits,
    /// One lock a version, so that many tries of a new version fetch it once.
    under_way: Mutex<BTreeMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>,
}

impl BundleCache {
    /// A cache in `folder`, which is made when it is needed.
    #[must_use]
    pub fn new(folder: PathBuf, store: Arc<dyn ObjectStore>, limits: Limits) -> Self {
        Self { folder, store, limits, under_way: Mutex::default() }
    }

    fn path(&self, name: &BundleName, version: &BundleVersion) -> PathBuf {
        self.folder.join(ObjectKey::segment(name.as_str())).join(ObjectKey::segment(version.as_str()))
    }

    async fn fetch(
        &self,
        name: &BundleName,
        version: &BundleVersion,
        path: &Path,
    ) -> Result<(), BundleError> {
        let unavailable = |reason: String| BundleError::Unavailable {
            name: name.clone(),
            version: version.clone(),
            reason,
        };
        let key = archive_key(name, version).map_err(|error| unavailable(error.to_string()))?;
        let archive = self
            .store
            .read(&key)
            .await
            .map_err(|error| unavailable(error.to_string()))?
            .ok_or_else(|| BundleError::Missing { name: name.clone(), version: version.clone() })?;
        let (limits, wanted, target) = (self.limits, version.clone(), path.to_owned());
        let unpacked = tokio::task::spawn_blocking(move || unpack_beside(&archive, &wanted, &target, limits));
        match unpacked.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Failure::Refused(refusal))) => Err(BundleError::Refused {
                name: name.clone(),
                version: version.clone(),
                reason: refusal.to_string(),
            }),
            Ok(Err(Failure::Io(error))) => Err(unavailable(error.to_string())),
            Err(error) => Err(unavailable(error.to_string())),
        }
    }
}

enum Failure {
    Refused(crate::Refusal),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Unpacks next to the target and renames, so that the target is whole whenever it is there. Another process that was
/// faster did the same work.
fn unpack_beside(
    archive: &[u8],
    version: &BundleVersion,
    target: &Path,
    limits: Limits,
) -> Result<(), Failure> {
    let parent = target.parent().ok_or_else(|| io::Error::other("the cache has no folder"))?;
    std::fs::create_dir_all(parent)?;
    let aside = tempfile::Builder::new().prefix(".unpacking-").tempdir_in(parent)?;
    match unpack(archive, version, aside.path(), limits) {
        Ok(()) => {}
        Err(crate::Refusal::Write(error)) => return Err(Failure::Io(error)),
        Err(refusal) => return Err(Failure::Refused(refusal)),
    }
    let aside = aside.keep();
    make_readable(&aside)?;
    match std::fs::rename(&aside, target) {
        Ok(()) => Ok(()),
        Err(_) if target.is_dir() => Ok(std::fs::remove_dir_all(&aside)?),
        Err(error) => Err(error.into()),
    }
}

/// A temporary folder is its owner's alone; user code may run as somebody else.
#[cfg(unix)]
fn make_readable(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_readable(_folder: &Path) -> io::Result<()> {
    Ok(())
}

#[async_trait]
impl BundleSource for BundleCache {
    async fn local_path(&self, name: &BundleName, version: &BundleVersion) -> Result<PathBuf, BundleError> {
        let path = self.path(name, version);
        if path.is_dir() {
            return Ok(path);
        }
        let lock = {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(under_way.entry(path.clone()).or_default())
        };
        let _turn = lock.lock().await;
        if !path.is_dir() {
            self.fetch(name, version, &path).await?;
            tracing::info!(bundle = %name, %version, "fetched a bundle version");
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use gust_local::FolderStore;
    use tar::EntryType::{Regular, Symlink};

    use super::*;
    use crate::{current_version, pack, pack::version_of, push};

    struct House {
        _home: tempfile::TempDir,
        dags: PathBuf,
        store: Arc<FolderStore>,
        cache: BundleCache,
    }

    fn house() -> House {
        let home = tempfile::tempdir().unwrap();
        let dags = home.path().join("dags");
        fs::create_dir_all(dags.join("include/__pycache__")).unwrap();
        fs::write(dags.join("a.py"), "print(1)").unwrap();
        fs::write(dags.join("include/b.sql"), "select 1").unwrap();
        fs::write(dags.join("include/__pycache__/c.pyc"), "x").unwrap();
        let store = Arc::new(FolderStore::open(&home.path().join("store")).unwrap());
        let cache = BundleCache::new(
            home.path().join("cache"),
            Arc::clone(&store) as Arc<dyn ObjectStore>,
            Limits { total_bytes: 100_000, files: 10 },
        );
        House { _home: home, dags, store, cache }
    }

    #[tokio::test]
    async fn a_pushed_folder_comes_back_without_caches_and_the_pointer_names_it() {
        let house = house();
        let name = "dags".into();
        assert_eq!(current_version(&*house.store, &name).await.unwrap(), None);
        let packed = pack(&house.dags).unwrap();
        push(&*house.store, &name, &packed).await.unwrap();
        assert_eq!(current_version(&*house.store, &name).await.unwrap().as_ref(), Some(&packed.version));
        let path = house.cache.local_path(&name, &packed.version).await.unwrap();
        assert_eq!(fs::read_to_string(path.join("include/b.sql")).unwrap(), "select 1");
        assert!(!path.join("include/__pycache__").exists());
    }

    #[tokio::test]
    async fn a_version_follows_content_and_nothing_else() {
        let house = house();
        let first = pack(&house.dags).unwrap();
        fs::remove_file(house.dags.join("a.py")).unwrap();
        fs::write(house.dags.join("a.py"), "print(1)").unwrap();
        assert_eq!(pack(&house.dags).unwrap().version, first.version);
        fs::write(house.dags.join("a.py"), "print(2)").unwrap();
        assert_ne!(pack(&house.dags).unwrap().version, first.version);
    }

    #[tokio::test]
    async fn what_is_missing_damaged_replaced_or_too_large_is_refused_and_leaves_nothing() {
        let house = house();
        let name: BundleName = "dags".into();
        let packed = pack(&house.dags).unwrap();
        let missing = house.cache.local_path(&name, &packed.version).await;
        assert!(matches!(missing, Err(BundleError::Missing { .. })), "{missing:?}");

        let put = |content: Vec<u8>| {
            let key = archive_key(&name, &packed.version).unwrap();
            let store = Arc::clone(&house.store);
            async move { store.replace(&key, content.into()).await.unwrap() }
        };
        let refusal = || async {
            match house.cache.local_path(&name, &packed.version).await {
                Err(BundleError::Refused { reason, .. }) => reason,
                other => panic!("{other:?}"),
            }
        };
        put(packed.archive[..packed.archive.len() / 2].to_vec()).await;
        assert!(refusal().await.contains("not a whole"));
        put(zstd::stream::encode_all(&b"other"[..], 1).unwrap()).await;
        assert!(refusal().await.contains("damaged or replaced"));
        put(zstd::stream::encode_all(vec![0; 1_000_000].as_slice(), 1).unwrap()).await;
        assert!(refusal().await.contains("unpacks to more"));
        let parent = house.cache.path(&name, &packed.version).parent().unwrap().to_owned();
        assert_eq!(fs::read_dir(parent).map_or(0, Iterator::count), 0);
    }

    #[test]
    fn archives_that_reach_out_or_repeat_are_refused() {
        let archive = |entries: &[(&str, tar::EntryType)]| {
            let mut builder = tar::Builder::new(Vec::new());
            for (name, kind) in entries {
                let mut header = tar::Header::new_gnu();
                // Written past the library's own check, as an attacker would.
                header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_entry_type(*kind);
                header.set_size(0);
                header.set_cksum();
                builder.append(&header, &[][..]).unwrap();
            }
            builder.into_inner().unwrap()
        };
        let outcome = |entries: &[(&str, tar::EntryType)]| {
            let plain = archive(entries);
            let folder = tempfile::tempdir().unwrap();
            let packed = zstd::stream::encode_all(plain.as_slice(), 1).unwrap();
            unpack(&packed, &version_of(&plain), folder.path(), Limits { total_bytes: 1000, files: 2 })
        };
        assert!(matches!(outcome(&[("../x", Regular)]), Err(crate::Refusal::Traversal(_))));
        assert!(matches!(outcome(&[("/etc/x", Regular)]), Err(crate::Refusal::Traversal(_))));
        assert!(matches!(outcome(&[("x", Symlink)]), Err(crate::Refusal::NotAFile(_))));
        assert!(matches!(outcome(&[("x", Regular), ("x", Regular)]), Err(crate::Refusal::Duplicate(_))));
        let many = [("a", Regular), ("b", Regular), ("c", Regular)];
        assert!(matches!(outcome(&many), Err(crate::Refusal::TooMany(2))));
        assert!(outcome(&[("a/b", Regular)]).is_ok());
    }

    #[test]
    #[cfg(unix)]
    fn a_link_out_of_the_folder_is_named_and_one_within_is_packed_as_its_target() {
        let house = house();
        std::os::unix::fs::symlink(house.dags.join("a.py"), house.dags.join("inside.py")).unwrap();
        assert_eq!(pack(&house.dags).unwrap().file_count, 3);
        std::os::unix::fs::symlink("/etc/hostname", house.dags.join("outside.py")).unwrap();
        let error = pack(&house.dags).unwrap_err().to_string();
        assert!(error.contains("outside.py") && error.contains("leads out"), "{error}");
    }
}
