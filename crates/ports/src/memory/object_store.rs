use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{ObjectKey, ObjectMeta, ObjectStore, ObjectStoreError, PutOutcome};

/// Objects in memory.
#[derive(Debug, Default)]
pub struct MemoryObjectStore {
    objects: Mutex<BTreeMap<ObjectKey, Bytes>>,
}

impl MemoryObjectStore {
    /// A store with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Bytes>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ObjectStore for MemoryObjectStore {
    async fn create(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, ObjectStoreError> {
        let mut objects = self.objects();
        Ok(match objects.get(key) {
            Some(there) if *there == content => PutOutcome::AlreadySame,
            Some(_) => PutOutcome::AlreadyDifferent,
            None => {
                objects.insert(key.clone(), content);
                PutOutcome::Created
            }
        })
    }

    async fn replace(&self, key: &ObjectKey, content: Bytes) -> Result<(), ObjectStoreError> {
        self.objects().insert(key.clone(), content);
        Ok(())
    }

    async fn read(&self, key: &ObjectKey) -> Result<Option<Bytes>, ObjectStoreError> {
        Ok(self.objects().get(key).cloned())
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, ObjectStoreError> {
        let objects = self.objects();
        let listed = objects
            .iter()
            .filter(|(key, _)| key.as_str().starts_with(prefix) && after.is_none_or(|after| *key > after));
        Ok(listed
            .take(limit)
            .map(|(key, content)| ObjectMeta { key: key.clone(), size_bytes: content.len() as u64 })
            .collect())
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), ObjectStoreError> {
        self.objects().remove(key);
        Ok(())
    }
}
