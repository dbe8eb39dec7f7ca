//! Waiting for what can be seen, with a bound.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(50);

/// Looks until there is something to see, and returns it.
///
/// # Panics
/// If there is nothing after `limit`: the test fails with `what` was awaited.
pub async fn eventually<T>(what: &str, limit: Duration, look: impl AsyncFnMut() -> Option<T>) -> T {
    match keep_looking(limit, look).await {
        Some(seen) => seen,
        None => panic!("{what}: not so after {} s", limit.as_secs()),
    }
}

/// Looks until there is something to see, or the time is over.
pub async fn keep_looking<T>(limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(seen) = look().await {
            return Some(seen);
        }
        if Instant::now() > deadline {
            return None;
        }
    }
}
