//! Row locks as PostgreSQL keeps them: exclusive, held until the transaction ends, handed to waiters in the order of
//! their arrival, with a search for circles before anybody waits.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    task::Waker,
};

use super::table::{Key, TxId};

/// What can be locked: a row (`index` is empty) or an entry of a unique index, which must be lockable before its row
/// exists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LockKey {
    pub table: &'static str,
    pub index: &'static str,
    pub key: Key,
}

#[derive(Debug)]
struct Lock {
    owner: TxId,
    queue: VecDeque<TxId>,
}

#[derive(Debug)]
struct Wait {
    key: LockKey,
    arrival: u64,
    waker: Option<Waker>,
}

/// All locks that are held and all transactions that wait for one. A transaction waits for one lock at a time.
#[derive(Debug, Default)]
pub(super) struct Locks {
    by_key: BTreeMap<LockKey, Lock>,
    held: BTreeMap<TxId, Vec<LockKey>>,
    waits: BTreeMap<TxId, Wait>,
    arrivals: u64,
}

/// The transaction cannot wait: somebody it would wait for waits for it.
#[derive(Debug)]
pub(super) struct Deadlock;

impl Locks {
    /// Takes a lock that is free or already `tx`'s; false if somebody else has it.
    pub fn try_acquire(&mut self, tx: TxId, key: &LockKey) -> bool {
        if let Some(lock) = self.by_key.get(key) {
            return lock.owner == tx;
        }
        self.by_key.insert(key.clone(), Lock { owner: tx, queue: VecDeque::new() });
        self.held.entry(tx).or_default().push(key.clone());
        true
    }

    /// Whether somebody else has a lock.
    pub fn is_held_by_another(&self, tx: TxId, key: &LockKey) -> bool {
        self.by_key.get(key).is_some_and(|lock| lock.owner != tx)
    }

    /// Puts `tx` at the end of the queue for a lock that somebody else has.
    pub fn enqueue(&mut self, tx: TxId, key: &LockKey) -> Result<(), Deadlock> {
        let Some(lock) = self.by_key.get_mut(key) else { return Ok(()) };
        lock.queue.push_back(tx);
        self.arrivals += 1;
        self.waits.insert(tx, Wait { key: key.clone(), arrival: self.arrivals, waker: None });
        if self.waits_for_itself(tx) {
            self.cancel(tx);
            return Err(Deadlock);
        }
        Ok(())
    }

    /// Whether `tx` has been given what it waits for; if not, `waker` is called once it has.
    pub fn poll(&mut self, tx: TxId, waker: &Waker) -> bool {
        match self.waits.get_mut(&tx) {
            None => true,
            Some(wait) => {
                wait.waker = Some(waker.clone());
                false
            }
        }
    }

    /// Takes `tx` out of the queue that it stands in.
    pub fn cancel(&mut self, tx: TxId) {
        if let Some(wait) = self.waits.remove(&tx)
            && let Some(lock) = self.by_key.get_mut(&wait.key)
        {
            lock.queue.retain(|waiting| *waiting != tx);
        }
    }

    /// Hands every lock of `tx` to the first who waits for it. Returns whom to wake, the longest waiting first.
    pub fn release(&mut self, tx: TxId) -> Vec<Waker> {
        self.cancel(tx);
        let mut granted = BTreeMap::new();
        for key in self.held.remove(&tx).unwrap_or_default() {
            let Some(lock) = self.by_key.get_mut(&key) else { continue };
            let Some(next) = lock.queue.pop_front() else {
                self.by_key.remove(&key);
                continue;
            };
            lock.owner = next;
            self.held.entry(next).or_default().push(key);
            if let Some(wait) = self.waits.remove(&next) {
                granted.insert(wait.arrival, wait.waker);
            }
        }
        granted.into_values().flatten().collect()
    }

    fn waits_for_itself(&self, tx: TxId) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = self.blockers(tx);
        while let Some(blocker) = open.pop() {
            if blocker == tx {
                return true;
            }
            if seen.insert(blocker) {
                open.extend(self.blockers(blocker));
            }
        }
        false
    }

    /// Who has to end before `tx` can go on: the lock's owner and whoever stands ahead in the queue.
    fn blockers(&self, tx: TxId) -> Vec<TxId> {
        let Some(lock) = self.waits.get(&tx).and_then(|wait| self.by_key.get(&wait.key)) else {
            return Vec::new();
        };
        let ahead = lock.queue.iter().copied().take_while(|waiting| *waiting != tx);
        std::iter::once(lock.owner).chain(ahead).collect()
    }
}
