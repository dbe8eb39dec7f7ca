//! When a task instance that is up for retry runs again (`airflow/models/taskinstance.py: next_retry_datetime`).

use chrono::TimeDelta;
use gust_model::{
    DagId,
    dag::{MAX_RETRY_DELAY_S, Task},
    record::Timestamp,
};
use sha1::{Digest, Sha1};

use crate::python_time;

/// The moment at which the next try may begin, after a try that ended at `ended_at`.
///
/// A delay that a retry policy asked for comes before all others. Without back-off the task's `retry_delay` is it. With
/// back-off the wait is between one and two times `retry_delay × factor^(try − 1)` seconds, the same for the same try
/// wherever it is worked out: the place in between comes from a hash of who waits.
#[must_use]
pub fn next_retry_at(
    task: &Task,
    dag_id: &DagId,
    logical_date: Option<Timestamp>,
    try_number: i32,
    delay_override_s: Option<f64>,
    ended_at: Timestamp,
) -> Timestamp {
    let delay = match delay_override_s {
        Some(seconds) => from_seconds(seconds),
        None => delay(task, dag_id, logical_date, try_number),
    };
    ended_at.checked_add_signed(delay).unwrap_or(Timestamp::MAX_UTC)
}

fn delay(task: &Task, dag_id: &DagId, logical_date: Option<Timestamp>, try_number: i32) -> TimeDelta {
    let factor = task.retry_exponential_backoff;
    if factor <= 0.0 || (factor - 1.0).abs() < f64::EPSILON {
        return task.retry_delay;
    }
    let least = least_backoff_s(task.retry_delay, factor, try_number);
    let text = format!("{dag_id}#{}#{}#{try_number}", task.task_id, python_time::text_of(logical_date));
    let jitter = remainder(&Sha1::digest(text.as_bytes()), least);
    let seconds = least.saturating_add(jitter).min(MAX_RETRY_DELAY_S.unsigned_abs());
    let delay = TimeDelta::seconds(i64::try_from(seconds).unwrap_or(MAX_RETRY_DELAY_S));
    // A maximum of zero is Python's false: no maximum.
    match task.max_retry_delay.filter(|longest| *longest != TimeDelta::zero()) {
        Some(longest) => delay.min(longest),
        None => delay,
    }
}

/// `retry_delay × factor^(try − 1)`, rounded up, at least 1. Python's overflow falls back to the longest delay; what
/// does not fit 64 bits is beyond the longest delay either way.
fn least_backoff_s(retry_delay: TimeDelta, factor: f64, try_number: i32) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "Airflow computes with floats as well.")]
    let base = retry_delay.num_microseconds().unwrap_or(i64::MAX) as f64 / 1e6;
    let seconds = (base * factor.powf(f64::from(try_number.saturating_sub(1)))).ceil();
    if !seconds.is_finite() {
        return MAX_RETRY_DELAY_S.unsigned_abs();
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "Bounded on both sides.")]
    let whole = seconds.clamp(1.0, 9e18) as u64;
    whole
}

/// The big-endian number `digest` modulo `divisor`, which is not zero.
fn remainder(digest: &[u8], divisor: u64) -> u64 {
    let rest =
        digest.iter().fold(0_u128, |rest, byte| (rest * 256 + u128::from(*byte)) % u128::from(divisor));
    u64::try_from(rest).unwrap_or(0)
}

fn from_seconds(seconds: f64) -> TimeDelta {
    #[expect(clippy::cast_possible_truncation, reason = "Bounded on both sides.")]
    let microseconds = (seconds * 1e6).round().clamp(-9e18, 9e18) as i64;
    TimeDelta::microseconds(microseconds)
}
