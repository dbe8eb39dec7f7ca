//! The small ports in memory. The metastore's tests are the conformance suite of `gust-metastore`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{FutureExt, StreamExt, poll};
use gust_model::{
    Epoch, QueueName,
    message::{Addressed, WorkKind, WorkMessage},
};
use uuid::Uuid;

use super::{ManualClock, MemoryObjectStore, MemoryQueue, MemoryWakeups, SequentialIds};
use crate::{Clock, Ids, ObjectKey, ObjectStore, PutOutcome, Receipt, TaskQueue, Wake, Wakeups};

const SECOND: Duration = Duration::from_secs(1);

fn clock() -> ManualClock {
    ManualClock::new(DateTime::<Utc>::from_timestamp_micros(1_800_000_000_000_001).unwrap())
}

#[tokio::test]
async fn clock_stands_still_until_it_is_moved() {
    let clock = clock();
    let before = clock.now();
    assert_eq!(clock.now(), before);
    clock.advance(SECOND);
    assert_eq!(clock.now(), before + SECOND);
    assert_eq!(clock.monotonic(), SECOND);
}

#[tokio::test]
async fn sleepers_wake_when_their_time_is_over_and_not_before() {
    let clock = clock();
    let mut short = clock.sleep(SECOND);
    let mut long = clock.sleep(3 * SECOND);
    assert!(poll!(&mut short).is_pending() && poll!(&mut long).is_pending());
    assert_eq!(clock.until_next_wake(), Some(SECOND));
    clock.advance(2 * SECOND);
    assert!(poll!(&mut short).is_ready());
    assert!(poll!(&mut long).is_pending());
    assert_eq!(clock.until_next_wake(), Some(SECOND));
    drop(long);
    assert_eq!(clock.until_next_wake(), None);
    assert!(clock.sleep(Duration::ZERO).now_or_never().is_some());
}

#[tokio::test]
async fn a_jump_of_the_wall_clock_moves_nothing_else() {
    let clock = clock();
    clock.advance(SECOND);
    let mut sleep = clock.sleep(SECOND);
    assert!(poll!(&mut sleep).is_pending());
    let past = clock.now() - 3600 * SECOND;
    clock.set_wall(past);
    assert_eq!((clock.now(), clock.monotonic()), (past, SECOND));
    clock.advance(SECOND);
    assert_eq!(clock.now(), past + SECOND);
    assert!(poll!(&mut sleep).is_ready());
}

#[test]
fn ids_follow_from_their_seed_and_sort_by_age() {
    let draw = |seed| {
        let ids = SequentialIds::new(seed);
        (0..1000).map(|_| ids.fresh()).collect::<Vec<_>>()
    };
    let first = draw(7);
    assert_eq!(first, draw(7));
    assert!(first.is_sorted() && first.windows(2).all(|pair| pair[0] != pair[1]));
    assert!(first.iter().all(|id| !draw(8).contains(id)));
    assert!(first.iter().all(|id| id.get_version_num() == 7));
}

#[tokio::test]
async fn wakeups_reach_every_listener_from_when_it_listens() {
    let wakeups = MemoryWakeups::new(2);
    wakeups.wake(Wake::Queued).await;
    let (mut a, mut b) = (wakeups.listen(), wakeups.listen());
    wakeups.wake(Wake::Admission).await;
    assert_eq!(a.next().await, Some(Wake::Admission));
    wakeups.wake(Wake::Trigger).await;
    wakeups.wake(Wake::Queued).await;
    assert_eq!(a.next().await, Some(Wake::Trigger));
    assert_eq!(b.next().await, Some(Wake::Trigger), "the slow one lost the oldest");
    assert_eq!(b.next().await, Some(Wake::Queued));
}

#[tokio::test]
async fn objects_are_created_once_and_replaced_on_purpose() {
    let store = MemoryObjectStore::new();
    let key = ObjectKey::new("a/b").unwrap();
    assert_eq!(store.read(&key).await.unwrap(), None);
    assert_eq!(store.create(&key, Bytes::from_static(b"1")).await.unwrap(), PutOutcome::Created);
    assert_eq!(store.create(&key, Bytes::from_static(b"1")).await.unwrap(), PutOutcome::AlreadySame);
    assert_eq!(store.create(&key, Bytes::from_static(b"2")).await.unwrap(), PutOutcome::AlreadyDifferent);
    assert_eq!(store.read(&key).await.unwrap(), Some(Bytes::from_static(b"1")));
    store.replace(&key, Bytes::from_static(b"22")).await.unwrap();
    assert_eq!(store.read(&key).await.unwrap(), Some(Bytes::from_static(b"22")));
    store.delete(&key).await.unwrap();
    store.delete(&key).await.unwrap();
    assert_eq!(store.read(&key).await.unwrap(), None);
}

#[tokio::test]
async fn objects_are_listed_in_order_by_any_prefix_and_page() {
    let store = MemoryObjectStore::new();
    for key in ["l/b-2", "l/a", "l/b-1", "m"] {
        store.create(&ObjectKey::new(key).unwrap(), Bytes::from_static(b"xyz")).await.unwrap();
    }
    let list = async |prefix, after: Option<&str>, limit| {
        let after = after.map(|key| ObjectKey::new(key).unwrap());
        let listed = store.list(prefix, after.as_ref(), limit).await.unwrap();
        assert!(listed.iter().all(|meta| meta.size_bytes == 3));
        listed.into_iter().map(|meta| meta.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list("", None, 9).await, ["l/a", "l/b-1", "l/b-2", "m"]);
    assert_eq!(list("l/b", None, 9).await, ["l/b-1", "l/b-2"]);
    assert_eq!(list("l/", Some("l/a"), 1).await, ["l/b-1"]);
    assert_eq!(list("none", None, 9).await, Vec::<String>::new());
}

fn message(number: u128) -> WorkMessage {
    WorkMessage { kind: WorkKind::Try, id: Uuid::from_u128(number), epoch: Epoch(1) }
}

async fn send(queue: &MemoryQueue, name: &str, number: u128) {
    let addressed = Addressed { queue: name.into(), message: message(number) };
    assert_eq!(queue.send(&[addressed]).await.unwrap(), []);
}

#[tokio::test]
async fn queue_gives_the_oldest_first_to_whoever_asks_for_its_name() {
    let queue = MemoryQueue::new(Arc::new(clock()), 30 * SECOND);
    for number in [1, 2, 3] {
        send(&queue, "a", number).await;
    }
    send(&queue, "b", 4).await;
    let name = QueueName::from("a");
    let first = queue.receive(&name, 2, Duration::ZERO).await.unwrap();
    assert_eq!(first.iter().map(|delivery| delivery.message).collect::<Vec<_>>(), [message(1), message(2)]);
    let second = queue.receive(&name, 2, Duration::ZERO).await.unwrap();
    assert_eq!(second[0].message, message(3));
    assert_eq!(queue.receive(&name, 2, Duration::ZERO).await.unwrap(), []);
}

#[tokio::test]
async fn what_is_not_deleted_comes_again() {
    let clock = clock();
    let queue = MemoryQueue::new(Arc::new(clock.clone()), 30 * SECOND);
    let name = QueueName::from("a");
    send(&queue, "a", 1).await;
    send(&queue, "a", 2).await;
    let deliveries = queue.receive(&name, 2, Duration::ZERO).await.unwrap();
    queue.delete(&name, &deliveries[0].receipt).await.unwrap();
    queue.delete(&name, &Receipt("none".to_owned())).await.unwrap();
    clock.advance(29 * SECOND);
    assert_eq!(queue.receive(&name, 2, Duration::ZERO).await.unwrap(), []);
    clock.advance(SECOND);
    let again = queue.receive(&name, 2, Duration::ZERO).await.unwrap();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].message, message(2));
    assert_ne!(again[0].receipt, deliveries[1].receipt);
}

#[tokio::test]
async fn a_receiver_waits_for_an_arrival_a_return_or_its_end() {
    let clock = clock();
    let queue = MemoryQueue::new(Arc::new(clock.clone()), 5 * SECOND);
    let name = QueueName::from("a");
    let mut arrival = queue.receive(&name, 1, 60 * SECOND);
    assert!(poll!(&mut arrival).is_pending());
    send(&queue, "a", 1).await;
    assert_eq!(arrival.await.unwrap()[0].message, message(1));

    let mut return_of_it = queue.receive(&name, 1, 60 * SECOND);
    assert!(poll!(&mut return_of_it).is_pending());
    clock.advance(5 * SECOND);
    assert_eq!(return_of_it.await.unwrap()[0].message, message(1));

    let mut end = queue.receive(&name, 1, 2 * SECOND);
    assert!(poll!(&mut end).is_pending());
    clock.advance(2 * SECOND);
    assert_eq!(end.await.unwrap(), []);
}
