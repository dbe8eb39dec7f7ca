//! Reading a cron expression in croniter's dialect.

use std::collections::{BTreeMap, BTreeSet};

use super::field::{self, Extras, Field, FieldKind, Nth};
use super::{ALIASES, PRESETS};
use crate::TimetableError;

/// A cron expression in the dialect of croniter 7, which Airflow uses.
///
/// Five fields (minute, hour, day of month, month, day of week), then optionally second and year. Names, ranges that
/// wrap, steps, lists, `L`, `15W`, `5#3` (the third Friday) and `L5` (the last Friday) are understood. Where day of
/// month and day of week are both restricted, either suffices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronExpression {
    pub(super) text: String,
    pub(super) minute: Field,
    pub(super) hour: Field,
    pub(super) day: Field,
    pub(super) month: Field,
    pub(super) weekday: Field,
    pub(super) second: Option<Field>,
    pub(super) year: Option<Field>,
    pub(super) nth: BTreeMap<u32, BTreeSet<Nth>>,
    pub(super) nearest_weekday: Option<u32>,
}

impl CronExpression {
    /// Reads an expression, a preset of Airflow (`@quarterly`) or an alias of croniter (`@midnight`).
    pub fn parse(text: &str) -> Result<Self, TimetableError> {
        let text = PRESETS.iter().find(|(name, _)| *name == text).map_or(text, |(_, meaning)| meaning);
        let bad = |problem: String| TimetableError::BadCron { expression: text.into(), problem };
        let lower = text.to_lowercase();
        let expanded =
            ALIASES.iter().find(|(name, _)| *name == lower).map_or(lower.as_str(), |(_, meaning)| meaning);
        let words: Vec<&str> = expanded
            .split(|c: char| c.is_ascii_whitespace() || c == '\u{b}')
            .filter(|word| !word.is_empty())
            .collect();
        if !(5..=7).contains(&words.len()) {
            return Err(bad(format!(
                "it has {} fields; expected minute, hour, day of month, month and day of week (and optionally second \
                 and year), or one of @hourly, @daily, @weekly, @monthly, @quarterly, @yearly",
                words.len()
            )));
        }
        let mut extras = Extras::default();
        let mut fields = Vec::with_capacity(words.len());
        for (kind, word) in FieldKind::ALL.into_iter().zip(&words) {
            let mut field = field::read(kind, word, &mut extras).map_err(bad)?;
            let (low, high) = kind.range();
            // A field that names its whole range is a star; but a day field beside a restricted other one stays a
            // list, since either of two restricted day fields suffices.
            let other = match kind {
                FieldKind::Day => words.get(4),
                FieldKind::Weekday => words.get(2),
                _ => None,
            };
            let may_collapse = other.is_none_or(|other| other.contains('*'));
            if field.named == usize::try_from(high - low + 1).unwrap_or(0) && may_collapse {
                field = Field::star();
            }
            fields.push(field);
        }
        let mut fields = fields.into_iter();
        let mut take = || fields.next().unwrap_or_else(Field::star);
        let (minute, hour, day, month, weekday) = (take(), take(), take(), take(), take());
        let (second, year) = (fields.next(), fields.next());
        let plain = weekday.values.iter().any(|value| !extras.nth.contains_key(value));
        if !extras.nth.is_empty() && plain && weekday.named != 7 {
            return Err(bad(
                "day-of-week field mixes plain days with # or L; write every day in it with # or L, or none"
                    .into(),
            ));
        }
        Ok(Self {
            text: text.into(),
            minute,
            hour,
            day,
            month,
            weekday,
            second,
            year,
            nth: extras.nth,
            nearest_weekday: extras.nearest_weekday,
        })
    }

    /// The expression as Airflow shows it: presets expanded, otherwise as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it runs in every hour, which decides how it crosses a change of the clocks
    /// (`airflow/timetables/_cron.py: _covers_every_hour`).
    #[must_use]
    pub fn covers_every_hour(&self) -> bool {
        self.hour.is_only_star()
    }

    /// The expression in words, in English, as Airflow shows it; empty where Airflow shows nothing.
    #[must_use]
    pub fn description(&self) -> String {
        if self.second.is_some() {
            String::new()
        } else {
            super::describe::describe(&self.text).unwrap_or_default()
        }
    }
}
