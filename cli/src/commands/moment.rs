use chrono::{DateTime, LocalResult, NaiveDate, NaiveDateTime, TimeZone as _, Utc};
use gust_config::Config;
use gust_model::record::Timestamp;

use super::UsageError;

const FORMATS: [&str; 4] =
    ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];

/// Reads a moment as people write it; one without an offset is meant in the configured time zone.
pub fn read(text: &str, config: &Config) -> Option<Timestamp> {
    let text = text.trim();
    // In addresses and shells a plus sign may have become a space.
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Some(moment.with_timezone(&Utc));
    }
    if let Ok(moment) = DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z") {
        return Some(moment.with_timezone(&Utc));
    }
    let naive = FORMATS
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))?;
    match config.core.default_timezone.0.from_local_datetime(&naive) {
        LocalResult::Single(moment) | LocalResult::Ambiguous(moment, _) => Some(moment.with_timezone(&Utc)),
        LocalResult::None => None,
    }
}

/// Reads an option's moment.
///
/// # Errors
/// [`UsageError`] naming the option.
pub fn option(name: &str, text: Option<&str>, config: &Config) -> Result<Option<Timestamp>, UsageError> {
    let Some(text) = text else { return Ok(None) };
    let moment = read(text, config).ok_or_else(|| {
        UsageError(format!(
            "{name}: {text:?} is no moment; write it as 2026-01-31, 2026-01-31T06:30 or 2026-01-31T06:30:00+01:00"
        ))
    })?;
    Ok(Some(moment))
}
