//! A table of versioned rows: what is committed, and what the one transaction that holds a row's lock has made of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gust_model::record::Timestamp;
use uuid::Uuid;

use super::tables::Tables;

/// A transaction's number. They grow in the order of their beginnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TxId(pub u64);

/// One column of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Id(Uuid),
    Number(i64),
    Text(Arc<str>),
}

/// What rows are found, locked and sorted by.
pub(super) type Key = Vec<Part>;

impl From<Uuid> for Part {
    fn from(id: Uuid) -> Self {
        Self::Id(id)
    }
}

impl From<i64> for Part {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<i32> for Part {
    fn from(number: i32) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Part {
    fn from(flag: bool) -> Self {
        Self::Number(flag.into())
    }
}

impl From<&str> for Part {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<Timestamp> for Part {
    fn from(moment: Timestamp) -> Self {
        Self::Number(moment.timestamp_micros())
    }
}

/// Builds a [`Key`] from its columns.
macro_rules! key {
    ($($part:expr),+ $(,)?) => { vec![$($crate::memory::table::Part::from($part)),+] };
}
pub(super) use key;

/// An index's name and a key in it.
pub(super) type IndexKey = (&'static str, Key);

/// What a table holds.
pub(super) trait Row: Clone + Send + Sync + 'static {
    /// The table's name, for locks and errors.
    const TABLE: &'static str;

    /// The primary key. It never changes.
    fn key(&self) -> Key;

    /// Further keys that no two rows share.
    fn unique(&self) -> Vec<IndexKey>;

    /// Keys that rows are found by.
    fn indexed(&self) -> Vec<IndexKey>;

    fn table(tables: &Tables) -> &Table<Self>;

    fn table_mut(tables: &mut Tables) -> &mut Table<Self>;
}

#[derive(Debug)]
struct Slot<R> {
    committed: Option<Arc<R>>,
    /// What the holder of the row's lock has written; `None` inside is a deletion.
    pending: Option<(TxId, Option<Arc<R>>)>,
}

impl<R: Row> Slot<R> {
    fn seen_by(&self, tx: TxId) -> Option<&Arc<R>> {
        match &self.pending {
            Some((writer, row)) if *writer == tx => row.as_ref(),
            _ => self.committed.as_ref(),
        }
    }

    fn index_keys(&self) -> BTreeSet<IndexKey> {
        let pending = self.pending.as_ref().and_then(|(_, row)| row.as_ref());
        let versions = self.committed.iter().chain(pending);
        versions.flat_map(|row| row.unique().into_iter().chain(row.indexed())).collect()
    }
}

#[derive(Debug)]
pub(super) struct Table<R> {
    slots: BTreeMap<Key, Slot<R>>,
    /// Every slot that has the key in any of its versions.
    index: BTreeMap<IndexKey, BTreeSet<Key>>,
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self { slots: BTreeMap::new(), index: BTreeMap::new() }
    }
}

impl<R: Row> Table<R> {
    /// The row as `tx` sees it.
    pub fn get(&self, tx: TxId, key: &Key) -> Option<&Arc<R>> {
        self.slots.get(key)?.seen_by(tx)
    }

    /// All rows that `tx` sees, by key.
    pub fn rows(&self, tx: TxId) -> impl Iterator<Item = &Arc<R>> {
        self.slots.values().filter_map(move |slot| slot.seen_by(tx))
    }

    /// The rows that `tx` sees under a key of an index, by primary key.
    pub fn find(&self, tx: TxId, index: &'static str, key: Key) -> impl Iterator<Item = &Arc<R>> {
        let wanted = (index, key);
        let slots = self.index.get(&wanted).into_iter().flatten();
        slots.filter_map(move |slot| self.get(tx, slot)).filter(move |row| {
            // The slot may be there because of a version that `tx` does not see.
            row.unique().contains(&wanted) || row.indexed().contains(&wanted)
        })
    }

    /// Writes or deletes a row on behalf of the transaction that holds its lock.
    pub fn write(&mut self, tx: TxId, key: &Key, row: Option<Arc<R>>) {
        self.change(key, |slot| slot.pending = Some((tx, row)));
    }

    /// Makes what `tx` wrote of a row everybody's, or forgets it.
    pub fn settle(&mut self, tx: TxId, key: &Key, is_committed: bool) {
        self.change(key, |slot| {
            if slot.pending.as_ref().is_some_and(|(writer, _)| *writer == tx)
                && let Some((_, row)) = slot.pending.take()
                && is_committed
            {
                slot.committed = row;
            }
        });
    }

    fn change(&mut self, key: &Key, change: impl FnOnce(&mut Slot<R>)) {
        let slot = self.slots.entry(key.clone()).or_insert(Slot { committed: None, pending: None });
        let before = slot.index_keys();
        change(slot);
        let after = slot.index_keys();
        let is_empty = slot.committed.is_none() && slot.pending.is_none();
        if is_empty {
            self.slots.remove(key);
        }
        for gone in before.difference(&after) {
            if let Some(slots) = self.index.get_mut(gone) {
                slots.remove(key);
                if slots.is_empty() {
                    self.index.remove(gone);
                }
            }
        }
        for new in after.difference(&before) {
            self.index.entry(new.clone()).or_default().insert(key.clone());
        }
    }
}
