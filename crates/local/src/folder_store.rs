use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use bytes::Bytes;
use gust_ports::{ObjectKey, ObjectMeta, ObjectStore, ObjectStoreError, PutOutcome};

/// An object store in a folder: a key is a path below it. Objects appear whole or not at all, and an answered put
/// survives a power loss.
#[derive(Debug, Clone)]
pub struct FolderStore {
    root: PathBuf,
}

/// Files under way lie here, next to the objects, so that a rename stays within one file system. No key starts so: a
/// segment of a key may, so listings leave it out by its exact place.
const STAGING: &str = ".staging";

impl FolderStore {
    /// Opens a folder, made if it is not there.
    ///
    /// # Errors
    /// The operating system's, when the folder cannot be made.
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root.join(STAGING))?;
        Ok(Self { root: root.to_owned() })
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn stage(&self, path: &Path, content: &[u8]) -> io::Result<tempfile::NamedTempFile> {
        if let Some(parent) = path.parent() {
            create_dir_durably(parent)?;
        }
        let mut file = tempfile::NamedTempFile::new_in(self.root.join(STAGING))?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        Ok(file)
    }

    fn create_blocking(&self, key: &ObjectKey, content: &[u8]) -> io::Result<PutOutcome> {
        let path = self.path(key);
        match self.stage(&path, content)?.persist_noclobber(&path) {
            Ok(_) => {
                sync_parent(&path)?;
                Ok(PutOutcome::Created)
            }
            Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => {
                let same = fs::read(&path)? == content;
                Ok(if same { PutOutcome::AlreadySame } else { PutOutcome::AlreadyDifferent })
            }
            Err(refused) => Err(refused.error),
        }
    }

    fn replace_blocking(&self, key: &ObjectKey, content: &[u8]) -> io::Result<()> {
        let path = self.path(key);
        self.stage(&path, content)?.persist(&path).map_err(|refused| refused.error)?;
        sync_parent(&path)
    }

    fn list_blocking(&self, prefix: &str, after: Option<&str>, limit: usize) -> io::Result<Vec<ObjectMeta>> {
        let mut found = Vec::new();
        // Only the folder that the prefix names whole is walked; its last part filters names.
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        if folder.split('/').any(|segment| segment == "..") {
            return Ok(found);
        }
        let walk = Walk { prefix, after, limit };
        walk.folder(&self.root.join(folder), folder, &mut found)?;
        Ok(found)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, ObjectStoreError> {
        let store = self.clone();
        let outcome = tokio::task::spawn_blocking(move || work(&store)).await;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>, refused: bool| {
            let key = key.to_owned();
            if refused {
                ObjectStoreError::Refused { operation, key, source }
            } else {
                ObjectStoreError::Unavailable { operation, key, source }
            }
        };
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                // A full or failing disk may be mended; a forbidden or impossible path stays so.
                let refused = matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied
                        | io::ErrorKind::InvalidFilename
                        | io::ErrorKind::NotADirectory
                        | io::ErrorKind::IsADirectory
                        | io::ErrorKind::InvalidInput
                );
                Err(failed(error.into(), refused))
            }
            Err(error) => Err(failed(error.into(), false)),
        }
    }
}

/// Walks a folder in the order of keys.
struct Walk<'a> {
    prefix: &'a str,
    after: Option<&'a str>,
    limit: usize,
}

impl Walk<'_> {
    fn folder(&self, path: &Path, key: &str, found: &mut Vec<ObjectMeta>) -> io::Result<()> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if key.is_empty() && name == STAGING {
                continue;
            }
            let is_folder = entry.file_type()?.is_dir();
            // A folder sorts as its keys do: with the slash that follows its name.
            let name = if key.is_empty() { name } else { format!("{key}/{name}") };
            names.push(if is_folder { name + "/" } else { name });
        }
        names.sort_unstable();
        for name in names {
            if found.len() >= self.limit {
                return Ok(());
            }
            if let Some(folder) = name.strip_suffix('/') {
                let may_match = name.starts_with(self.prefix) || self.prefix.starts_with(&name);
                let is_behind =
                    self.after.is_some_and(|after| name.as_str() <= after && !after.starts_with(&name));
                if may_match && !is_behind {
                    let last = folder.rsplit('/').next().unwrap_or(folder);
                    self.folder(&path.join(last), folder, found)?;
                }
            } else if name.starts_with(self.prefix) && self.after.is_none_or(|after| name.as_str() > after) {
                let last = name.rsplit('/').next().unwrap_or(&name);
                let size_bytes = match fs::metadata(path.join(last)) {
                    Ok(metadata) => metadata.len(),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                // A stranger's file whose name is no key is not an object.
                if let Ok(key) = ObjectKey::new(name) {
                    found.push(ObjectMeta { key, size_bytes });
                }
            }
        }
        Ok(())
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes a folder and its parents, each entry durable, as the object in it is to be.
fn create_dir_durably(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_dir_durably(parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[async_trait]
impl ObjectStore for FolderStore {
    async fn create(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, ObjectStoreError> {
        let owned = key.clone();
        self.blocking("create", key.as_str(), move |store| store.create_blocking(&owned, &content)).await
    }

    async fn replace(&self, key: &ObjectKey, content: Bytes) -> Result<(), ObjectStoreError> {
        let owned = key.clone();
        self.blocking("replace", key.as_str(), move |store| store.replace_blocking(&owned, &content)).await
    }

    async fn read(&self, key: &ObjectKey) -> Result<Option<Bytes>, ObjectStoreError> {
        let path = self.path(key);
        self.blocking("read", key.as_str(), move |_| match fs::read(path) {
            Ok(content) => Ok(Some(content.into())),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(error),
        })
        .await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, ObjectStoreError> {
        let (owned, after) = (prefix.to_owned(), after.map(|key| key.as_str().to_owned()));
        self.blocking("list", prefix, move |store| store.list_blocking(&owned, after.as_deref(), limit)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), ObjectStoreError> {
        let path = self.path(key);
        self.blocking("delete", key.as_str(), move |_| match fs::remove_file(&path) {
            Ok(()) => sync_parent(&path),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(())
            }
            Err(error) => Err(error),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> ObjectKey {
        ObjectKey::new(text).unwrap()
    }

    #[tokio::test]
    async fn a_create_only_put_never_changes_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path()).unwrap();
        let object = key("a/b");
        assert_eq!(store.create(&object, "1".into()).await.unwrap(), PutOutcome::Created);
        assert_eq!(store.create(&object, "1".into()).await.unwrap(), PutOutcome::AlreadySame);
        assert_eq!(store.create(&object, "2".into()).await.unwrap(), PutOutcome::AlreadyDifferent);
        assert_eq!(store.read(&object).await.unwrap().unwrap(), "1");
        store.replace(&object, "3".into()).await.unwrap();
        assert_eq!(store.read(&object).await.unwrap().unwrap(), "3");
        store.delete(&object).await.unwrap();
        store.delete(&object).await.unwrap();
        assert_eq!(store.read(&object).await.unwrap(), None);
        assert_eq!(store.read(&key("a/b/c")).await.unwrap(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn listing_is_what_sorting_and_filtering_the_keys_gives(
            keys in prop::collection::btree_set("[ab](-|=|\\.x|/)?[ab0](/[ab-])?", 0..12),
            prefix in "[ab]?[-=/]?[ab]?",
            after in prop::option::of("[ab]/[ab0]"),
            limit in 1_usize..6,
        ) {
            // A key that is another one's folder cannot lie in a folder store beside it; S3 would hold both.
            let keys: Vec<String> = keys
                .iter()
                .filter(|key| !keys.iter().any(|other| other.starts_with(&format!("{key}/"))))
                .cloned()
                .collect();
            let folder = tempfile::tempdir().unwrap();
            let store = FolderStore::open(folder.path()).unwrap();
            for text in &keys {
                store.create_blocking(&key(text), b"x").unwrap();
            }
            let listed: Vec<String> = store
                .list_blocking(&prefix, after.as_deref(), limit)
                .unwrap()
                .into_iter()
                .map(|object| object.key.to_string())
                .collect();
            let mut expected: Vec<String> = keys
                .into_iter()
                .filter(|key| key.starts_with(&prefix) && after.as_ref().is_none_or(|after| key > after))
                .collect();
            expected.sort();
            expected.truncate(limit);
            prop_assert_eq!(listed, expected);
        }
    }
}
