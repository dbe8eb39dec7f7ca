use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use chrono::{DateTime, SubsecRound, Utc};

use crate::Clock;

#[derive(Debug)]
struct Hands {
    /// The wall clock at the moment that [`Clock::monotonic`] counts from.
    wall_at_zero: DateTime<Utc>,
    elapsed: Duration,
    last_sleeper: u64,
    /// Who sleeps until when; those of one moment in the order in which they lay down.
    sleepers: BTreeMap<(Duration, u64), Option<Waker>>,
}

/// A clock that stands still until somebody moves it. Clones show the same time.
#[derive(Debug, Clone)]
pub struct ManualClock {
    hands: Arc<Mutex<Hands>>,
}

impl ManualClock {
    /// A clock whose wall clock shows `now`, to the microsecond.
    #[must_use]
    pub fn new(now: DateTime<Utc>) -> Self {
        let hands = Hands {
            wall_at_zero: now.trunc_subsecs(6),
            elapsed: Duration::ZERO,
            last_sleeper: 0,
            sleepers: BTreeMap::new(),
        };
        Self { hands: Arc::new(Mutex::new(hands)) }
    }

    /// Moves time on and wakes those whose sleep is over, the earliest end first.
    pub fn advance(&self, duration: Duration) {
        let woken = {
            let mut hands = self.hands();
            hands.elapsed += duration;
            let now = hands.elapsed;
            let still_asleep = hands.sleepers.split_off(&(now, u64::MAX));
            std::mem::replace(&mut hands.sleepers, still_asleep)
        };
        woken.into_values().flatten().for_each(Waker::wake);
    }

    /// Makes the wall clock jump; sleepers and [`Clock::monotonic`] do not notice.
    pub fn set_wall(&self, now: DateTime<Utc>) {
        let mut hands = self.hands();
        hands.wall_at_zero = now.trunc_subsecs(6) - hands.elapsed;
    }

    /// How long until the next sleeper's time is over; `None` if nobody sleeps.
    #[must_use]
    pub fn until_next_wake(&self) -> Option<Duration> {
        let hands = self.hands();
        let (end, _) = hands.sleepers.first_key_value()?.0;
        Some(end.saturating_sub(hands.elapsed))
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait::async_trait]
impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        let hands = self.hands();
        (hands.wall_at_zero + hands.elapsed).trunc_subsecs(6)
    }

    fn monotonic(&self) -> Duration {
        self.hands().elapsed
    }

    async fn sleep(&self, duration: Duration) {
        let key = {
            let mut hands = self.hands();
            hands.last_sleeper += 1;
            let key = (hands.elapsed + duration, hands.last_sleeper);
            hands.sleepers.insert(key, None);
            key
        };
        Sleep { clock: self, key }.await;
    }
}

struct Sleep<'c> {
    clock: &'c ManualClock,
    key: (Duration, u64),
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut hands = self.clock.hands();
        if hands.elapsed >= self.key.0 {
            return Poll::Ready(());
        }
        hands.sleepers.insert(self.key, Some(context.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        self.clock.hands().sleepers.remove(&self.key);
    }
}
