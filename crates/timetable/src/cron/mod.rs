//! Cron expressions as Airflow evaluates them: croniter's dialect, on naive local time, localized afterwards.

mod describe;
mod field;
mod parse;
mod schedule;
mod search;

pub use parse::CronExpression;
pub use schedule::CronSchedule;

/// Airflow's own presets (`airflow/utils/dates.py: cron_presets`), which count only when spelled exactly so.
const PRESETS: [(&str, &str); 6] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@quarterly", "0 0 1 */3 *"),
    ("@yearly", "0 0 1 1 *"),
];

/// The aliases that croniter knows besides, in any case.
const ALIASES: [(&str, &str); 7] = [
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];
