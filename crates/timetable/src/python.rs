//! Small pieces of Python's arithmetic and text, bit for bit where a schedule depends on it.

use chrono::{DateTime, Duration, Timelike, Utc};

/// The microseconds of `timedelta(days=…, hours=…, …)`: whole parts exactly, then the fractions' sum rounded half to
/// even. `None` where Python's timedelta overflows.
pub(crate) fn timedelta_micros(
    days: f64,
    hours: f64,
    minutes: f64,
    seconds: f64,
    microseconds: f64,
) -> Option<i64> {
    const MAX_DAYS: i64 = 999_999_999;
    let mut sum: i64 = 0;
    let mut left_over = 0.0;
    for (value, factor) in [
        (microseconds, 1),
        (seconds, 1_000_000),
        (minutes, 60_000_000),
        (hours, 3_600_000_000),
        (days, 86_400_000_000),
    ] {
        #[expect(clippy::cast_precision_loss, reason = "the factors are exact in f64")]
        let fraction = value.fract() * factor as f64;
        sum = sum
            .checked_add(whole(value.trunc())?.checked_mul(factor)?)?
            .checked_add(whole(fraction.trunc())?)?;
        left_over += fraction.fract();
    }
    let mut rounded: f64 = f64::round(left_over);
    #[expect(clippy::float_cmp, reason = "a tie is exactly one half")]
    if (rounded - left_over).abs() == 0.5 {
        let odd = if sum % 2 == 0 { 0.0 } else { 1.0 };
        rounded = 2.0 * f64::round((left_over + odd) * 0.5) - odd;
    }
    let micros = sum.checked_add(whole(rounded)?)?;
    (micros / 86_400_000_000 <= MAX_DAYS).then_some(micros)
}

fn whole(value: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be well within i64")]
    (value.abs() < 9.0e18).then_some(value as i64)
}

/// `str(timedelta)`: `1 day, 2:03:04.000005`.
pub(crate) fn timedelta_text(length: Duration) -> String {
    let micros = length.num_microseconds().unwrap_or(i64::MAX);
    let (days, rest) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
    let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
    let whole_days = match days {
        0 => String::new(),
        1 | -1 => format!("{days} day, "),
        _ => format!("{days} days, "),
    };
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:06}") };
    format!("{whole_days}{}:{:02}:{:02}{fraction}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// `format(value, "+g")`: six significant digits, without trailing zeros.
pub(crate) fn signed_general(value: f64) -> String {
    let scientific = format!("{value:+.5e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    if (-4..6).contains(&exponent) {
        let digits = usize::try_from(5 - exponent).unwrap_or(0);
        trim(&format!("{value:+.digits$}"))
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", trim(mantissa), exponent.abs())
    }
}

/// `datetime.isoformat()` of an instant in UTC.
pub(crate) fn iso_format(at: DateTime<Utc>) -> String {
    let micros = at.nanosecond() / 1_000 % 1_000_000;
    let text = at.format("%Y-%m-%dT%H:%M:%S").to_string();
    if micros == 0 { format!("{text}+00:00") } else { format!("{text}.{micros:06}+00:00") }
}

/// `datetime.timestamp()`: seconds since 1970.
pub(crate) fn timestamp(at: DateTime<Utc>) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "Python rounds the same quotient the same way")]
    let micros = at.timestamp_micros() as f64;
    micros / 1e6
}

/// `datetime.fromtimestamp(…)`: to the nearest microsecond, half to even.
pub(crate) fn from_timestamp(seconds: f64) -> Option<DateTime<Utc>> {
    let micros = whole((seconds.fract() * 1e6).round_ties_even())?;
    let total = whole(seconds.trunc())?.checked_mul(1_000_000)?.checked_add(micros)?;
    DateTime::from_timestamp_micros(total)
}

/// `a % b` of Python's floats: the result has the sign of `b`.
pub(crate) fn float_modulo(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest != 0.0 && (b < 0.0) != (rest < 0.0) { rest + b } else { rest }
}
