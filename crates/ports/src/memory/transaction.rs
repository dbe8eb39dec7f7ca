//! A transaction over the tables, read committed: a statement sees what was committed when it began and what its own
//! transaction wrote; it waits for the rows that others have locked, and then looks at their newest version again.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use gust_model::record::Timestamp;

use super::{
    faults::{Fault, FaultHook, FaultPoint},
    locks::{LockKey, Locks},
    table::{IndexKey, Key, Row, TxId},
    tables::Tables,
};
use crate::{
    Clock, MetastoreError,
    metastore::{LockWait, TxMode},
};

/// Settles one row of one table when a transaction ends.
type Settle = fn(&mut Tables, TxId, &Key, bool);

/// All that transactions share.
#[derive(Default)]
struct State {
    tables: Tables,
    locks: Locks,
    touched: BTreeMap<TxId, BTreeMap<(&'static str, Key), Settle>>,
    last_transaction: u64,
    last_number: i64,
}

pub(super) struct Shared {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    faults: Arc<dyn FaultHook>,
}

impl Shared {
    pub fn new(clock: Arc<dyn Clock>, faults: Arc<dyn FaultHook>) -> Self {
        Self { state: Mutex::default(), clock, faults }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Statements change the state as a whole under this lock; a panic of a caller between two of them leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tables as one statement sees them.
pub(super) struct View<'s> {
    tables: &'s Tables,
    tx: TxId,
}

impl View<'_> {
    /// A row by its key.
    pub fn get<R: Row>(&self, key: &Key) -> Option<&R> {
        R::table(self.tables).get(self.tx, key).map(|row| &**row)
    }

    /// All rows, by key.
    pub fn rows<R: Row>(&self) -> impl Iterator<Item = &R> {
        R::table(self.tables).rows(self.tx).map(|row| &**row)
    }

    /// Rows by an index.
    pub fn find<R: Row>(&self, index: &'static str, key: Key) -> impl Iterator<Item = &R> {
        R::table(self.tables).find(self.tx, index, key).map(|row| &**row)
    }

    /// The keys of the rows that meet a condition.
    pub fn keys_where<R: Row>(&self, condition: impl Fn(&R) -> bool) -> Vec<Key> {
        self.rows::<R>().filter(|row| condition(row)).map(Row::key).collect()
    }
}

/// A transaction of the in-memory metastore.
pub(super) struct Transaction {
    shared: Arc<Shared>,
    id: TxId,
    mode: TxMode,
    is_over: bool,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("id", &self.id).field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl Transaction {
    pub async fn begin(shared: Arc<Shared>, mode: TxMode) -> Result<Self, MetastoreError> {
        meet(&shared, FaultPoint::Begin).await?;
        let id = {
            let mut state = shared.state();
            state.last_transaction += 1;
            TxId(state.last_transaction)
        };
        Ok(Self { shared, id, mode, is_over: false })
    }

    /// Begins a statement: whatever is to go wrong goes wrong here.
    pub async fn statement(&mut self, name: &'static str) -> Result<(), MetastoreError> {
        self.check_open()?;
        let point = FaultPoint::Statement { transaction: self.id.0, name };
        meet(&self.shared, point).await.map_err(|error| self.fail(error))
    }

    /// The database's clock, to be asked while the transaction is borrowed.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.shared.clock.clone()
    }

    /// The database's clock now.
    pub fn clock_now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Reads all tables at one moment.
    pub fn read<T>(&self, look: impl FnOnce(&View<'_>) -> T) -> T {
        let state = self.shared.state();
        look(&View { tables: &state.tables, tx: self.id })
    }

    /// The next value of the one sequence. As in PostgreSQL, a rollback does not give it back.
    pub fn next_number(&self) -> i64 {
        let mut state = self.shared.state();
        state.last_number += 1;
        state.last_number
    }

    /// Locks a row that meets a condition, waits for whoever has it, and returns its newest version if it still does.
    /// As in PostgreSQL, a row whose committed version does not meet the condition is not waited for.
    pub async fn lock_row<R: Row>(
        &mut self,
        key: &Key,
        condition: impl Fn(&R) -> bool + Send,
    ) -> Result<Option<R>, MetastoreError> {
        if !self.read(|view| view.get::<R>(key).is_some_and(&condition)) {
            return Ok(None);
        }
        self.lock(row_lock::<R>(key)).await?;
        Ok(self.read(|view| view.get::<R>(key).filter(|row| condition(row)).cloned()))
    }

    /// Locks rows in the order of `keys` until `limit` of them still meet the condition.
    pub async fn lock_rows<R: Row>(
        &mut self,
        keys: Vec<Key>,
        wait: LockWait,
        limit: u32,
        condition: impl Fn(&R) -> bool + Send + Sync,
    ) -> Result<Vec<R>, MetastoreError> {
        let mut rows = Vec::new();
        for key in keys {
            if rows.len() as u64 == u64::from(limit) {
                break;
            }
            if wait == LockWait::SkipLocked && !self.try_lock(&row_lock::<R>(&key))? {
                continue;
            }
            // The condition held when the statement began, on the version that it saw then.
            self.lock(row_lock::<R>(&key)).await?;
            rows.extend(self.read(|view| view.get::<R>(&key).filter(|row| condition(row)).cloned()));
        }
        Ok(rows)
    }

    /// Inserts a row; false if one of its keys is taken. Waits for whoever may be taking or freeing one.
    pub async fn insert<R: Row>(&mut self, row: R) -> Result<bool, MetastoreError> {
        let key = row.key();
        for index_key in std::iter::once((PRIMARY, key.clone())).chain(row.unique()) {
            if !self.claim_unique::<R>(&index_key, &key).await? {
                return Ok(false);
            }
        }
        self.lock(row_lock::<R>(&key)).await?;
        self.write(&key, Some(row));
        Ok(true)
    }

    /// Inserts a row that must be new.
    pub async fn insert_new<R: Row>(
        &mut self,
        row: R,
        name: impl FnOnce() -> String + Send,
    ) -> Result<(), MetastoreError> {
        if self.insert(row).await? { Ok(()) } else { Err(self.fail(MetastoreError::Exists(name()))) }
    }

    /// Writes a row whose lock the transaction holds.
    pub async fn update<R: Row>(&mut self, row: R) -> Result<(), MetastoreError> {
        let key = row.key();
        let before = self.read(|view| view.get::<R>(&key).map(Row::unique)).unwrap_or_default();
        let after = row.unique();
        for freed in before.iter().filter(|unique| !after.contains(unique)) {
            self.lock(unique_lock::<R>(freed)).await?;
        }
        for taken in after.iter().filter(|unique| !before.contains(unique)) {
            if !self.claim_unique::<R>(taken, &key).await? {
                let what = format!("{} with this {}", R::TABLE, taken.0);
                return Err(self.fail(MetastoreError::Exists(what)));
            }
        }
        self.write(&key, Some(row));
        Ok(())
    }

    /// Writes a row, new or not.
    pub async fn upsert<R: Row>(&mut self, row: R) -> Result<(), MetastoreError> {
        let key = row.key();
        loop {
            if self.lock_row::<R>(&key, |_| true).await?.is_some() {
                return self.update(row).await;
            }
            if self.insert(row.clone()).await? {
                return Ok(());
            }
            // Somebody's insert was committed while this one waited. If the primary key is free, the clash is with
            // another row, which an upsert by primary key does not cover.
            if self.read(|view| view.get::<R>(&key).is_none()) {
                return Err(self.fail(MetastoreError::Exists(R::TABLE.to_owned())));
            }
        }
    }

    /// Deletes the rows with these keys, waiting for whoever has them. Returns what was there.
    pub async fn delete<R: Row>(&mut self, keys: Vec<Key>) -> Result<Vec<R>, MetastoreError> {
        let rows = self.lock_rows::<R>(keys, LockWait::Wait, u32::MAX, |_| true).await?;
        for row in &rows {
            let key = row.key();
            for freed in std::iter::once((PRIMARY, key.clone())).chain(row.unique()) {
                self.lock(unique_lock::<R>(&freed)).await?;
            }
            self.write::<R>(&key, None);
        }
        Ok(rows)
    }

    /// Deletes the rows that meet a condition. Returns what was there.
    pub async fn delete_where<R: Row>(
        &mut self,
        condition: impl Fn(&R) -> bool + Send + Sync,
    ) -> Result<Vec<R>, MetastoreError> {
        let keys = self.read(|view| view.keys_where(&condition));
        self.delete(keys).await
    }

    /// Deletes the rows under one key of an index. Returns what was there.
    pub async fn delete_found<R: Row>(
        &mut self,
        index: &'static str,
        key: Key,
    ) -> Result<Vec<R>, MetastoreError> {
        let keys = self.read(|view| view.find::<R>(index, key).map(Row::key).collect());
        self.delete(keys).await
    }

    pub async fn commit(mut self) -> Result<(), MetastoreError> {
        self.check_open()?;
        let point = FaultPoint::Commit { transaction: self.id.0 };
        let is_answer_lost = match self.shared.faults.at(point) {
            Fault::AnswerLost => true,
            fault => {
                suffer(&self.shared, fault).await.map_err(|error| self.fail(error))?;
                false
            }
        };
        self.end(true);
        if is_answer_lost {
            return Err(MetastoreError::Unavailable("the connection broke during the commit".to_owned()));
        }
        Ok(())
    }

    pub fn roll_back(mut self) {
        self.end(false);
    }

    /// An error ends the transaction, as it does in PostgreSQL.
    fn fail(&mut self, error: MetastoreError) -> MetastoreError {
        self.end(false);
        error
    }

    fn check_open(&self) -> Result<(), MetastoreError> {
        if self.is_over {
            let reason = "an earlier error ended the transaction; nothing of it was kept";
            return Err(MetastoreError::Refused(reason.to_owned()));
        }
        Ok(())
    }

    fn check_writable(&mut self) -> Result<(), MetastoreError> {
        if self.mode == TxMode::Read {
            let reason = "a transaction begun with TxMode::Read can neither lock nor write";
            return Err(self.fail(MetastoreError::Refused(reason.to_owned())));
        }
        Ok(())
    }

    /// Takes an entry of a unique index; false if a row other than `key` has it.
    async fn claim_unique<R: Row>(
        &mut self,
        index_key: &IndexKey,
        key: &Key,
    ) -> Result<bool, MetastoreError> {
        self.check_writable()?;
        let lock = unique_lock::<R>(index_key);
        let is_taken = |view: &View<'_>| match index_key {
            (PRIMARY, primary) => view.get::<R>(primary).is_some(),
            (index, unique) => view.find::<R>(index, unique.clone()).any(|row| row.key() != *key),
        };
        let is_settled = !self.shared.state().locks.is_held_by_another(self.id, &lock);
        if is_settled && self.read(is_taken) {
            return Ok(false);
        }
        self.lock(lock).await?;
        Ok(!self.read(is_taken))
    }

    fn try_lock(&mut self, lock: &LockKey) -> Result<bool, MetastoreError> {
        self.check_writable()?;
        Ok(self.shared.state().locks.try_acquire(self.id, lock))
    }

    async fn lock(&mut self, lock: LockKey) -> Result<(), MetastoreError> {
        self.check_writable()?;
        let queued = {
            let mut state = self.shared.state();
            if state.locks.try_acquire(self.id, &lock) {
                return Ok(());
            }
            state.locks.enqueue(self.id, &lock)
        };
        if queued.is_err() {
            let what = format!("a deadlock over a {}", lock.table);
            return Err(self.fail(MetastoreError::Conflict(what)));
        }
        let place = PlaceInQueue { shared: &self.shared, tx: self.id };
        poll_fn(|context| {
            let is_granted = place.shared.state().locks.poll(place.tx, context.waker());
            if is_granted { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        Ok(())
    }

    fn write<R: Row>(&self, key: &Key, row: Option<R>) {
        let mut state = self.shared.state();
        R::table_mut(&mut state.tables).write(self.id, key, row.map(Arc::new));
        let touched = state.touched.entry(self.id).or_default();
        touched.insert((R::TABLE, key.clone()), |tables, tx, key, is_committed| {
            R::table_mut(tables).settle(tx, key, is_committed);
        });
    }

    fn end(&mut self, is_committed: bool) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let wakers: Vec<Waker> = {
            let mut state = self.shared.state();
            let state = &mut *state;
            for ((_, key), settle) in state.touched.remove(&self.id).unwrap_or_default() {
                settle(&mut state.tables, self.id, &key, is_committed);
            }
            state.locks.release(self.id)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Leaves the queue of a lock if the statement is given up while it waits.
struct PlaceInQueue<'t> {
    shared: &'t Shared,
    tx: TxId,
}

impl Drop for PlaceInQueue<'_> {
    fn drop(&mut self) {
        self.shared.state().locks.cancel(self.tx);
    }
}

/// The index of primary keys.
const PRIMARY: &str = "primary key";

fn row_lock<R: Row>(key: &Key) -> LockKey {
    LockKey { table: R::TABLE, index: "", key: key.clone() }
}

fn unique_lock<R: Row>((index, key): &IndexKey) -> LockKey {
    LockKey { table: R::TABLE, index, key: key.clone() }
}

async fn meet(shared: &Shared, point: FaultPoint) -> Result<(), MetastoreError> {
    suffer(shared, shared.faults.at(point)).await
}

async fn suffer(shared: &Shared, fault: Fault) -> Result<(), MetastoreError> {
    match fault {
        Fault::None => Ok(()),
        Fault::Yield => {
            give_way().await;
            Ok(())
        }
        Fault::Delay(duration) => {
            shared.clock.sleep(duration).await;
            Ok(())
        }
        Fault::Conflict => Err(MetastoreError::Conflict("injected".to_owned())),
        Fault::Unavailable | Fault::AnswerLost => Err(MetastoreError::Unavailable("injected".to_owned())),
    }
}

/// Lets others run once.
async fn give_way() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
