//! Going on through conflicts and outages of the metastore.

use std::time::Duration;

use gust_ports::{Clock, MetastoreError};
use tracing::warn;

use crate::error::WorkerError;

/// How often a transaction that keeps losing is run again.
const MAX_CONFLICTS: usize = 12;
/// The first wait in an outage; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait in an outage.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Runs `work` until it is done, again at once when its transaction lost against another one, and again after a while
/// when the metastore is silent, for `grace` at most. What it does must bear being done again: a commit that was not
/// acknowledged may have happened.
pub(crate) async fn persistently<T, F, Fut>(
    clock: &dyn Clock,
    grace: Duration,
    mut work: F,
) -> Result<T, WorkerError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, WorkerError>>,
{
    let mut conflicts = 0;
    let mut silent_since: Option<Duration> = None;
    let mut wait = FIRST_WAIT;
    loop {
        let error = match work().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        match error {
            WorkerError::Metastore(problem) if problem.is_conflict() && conflicts < MAX_CONFLICTS => {
                conflicts += 1;
                tokio::task::yield_now().await;
            }
            WorkerError::Metastore(problem) if problem.is_outage() => {
                let now = clock.monotonic();
                let since = *silent_since.get_or_insert(now);
                let silent = now.saturating_sub(since);
                if silent >= grace {
                    return Err(WorkerError::Outage { silent, last: problem });
                }
                warn!(%problem, "the metastore does not answer; trying again");
                clock.sleep(wait.min(grace.saturating_sub(silent))).await;
                wait = (wait * 2).min(LAST_WAIT);
            }
            other => return Err(other),
        }
    }
}

/// A conflict as an error of this crate's, for guarded writes that found their rows changed.
pub(crate) fn changed_meanwhile(what: &str) -> WorkerError {
    WorkerError::Metastore(MetastoreError::Conflict(format!("{what} changed meanwhile")))
}
