//! One field of a cron expression, read the way croniter reads it.

use std::collections::{BTreeMap, BTreeSet};

/// Which of the seven fields a piece of text stands in; the numbers are croniter's order (seconds come sixth).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FieldKind {
    Minute,
    Hour,
    Day,
    Month,
    Weekday,
    Second,
    Year,
}

impl FieldKind {
    pub(super) const ALL: [Self; 7] =
        [Self::Minute, Self::Hour, Self::Day, Self::Month, Self::Weekday, Self::Second, Self::Year];

    pub(super) const fn range(self) -> (u32, u32) {
        match self {
            Self::Minute | Self::Second => (0, 59),
            Self::Hour => (0, 23),
            Self::Day => (1, 31),
            Self::Month => (1, 12),
            Self::Weekday => (0, 6),
            Self::Year => (1970, 2099),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day-of-month",
            Self::Month => "month",
            Self::Weekday => "day-of-week",
            Self::Second => "second",
            Self::Year => "year",
        }
    }

    fn expected(self) -> String {
        let (low, high) = self.range();
        match self {
            Self::Weekday => "0-7 or SUN-SAT, with #1 to #5 for the n-th and L before it for the last".into(),
            Self::Month => "1-12 or JAN-DEC".into(),
            Self::Day => "1-31, L for the last day or 15W for the weekday nearest the 15th".into(),
            _ => format!("{low}-{high}"),
        }
    }

    fn word(self, text: &str) -> Option<u32> {
        const MONTHS: [&str; 12] =
            ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
        let names: &[&str] = match self {
            Self::Month => &MONTHS,
            Self::Weekday => &WEEKDAYS,
            _ => return None,
        };
        let index = names.iter().position(|name| *name == text)?;
        u32::try_from(index).ok().map(|index| if self == Self::Month { index + 1 } else { index })
    }

    pub(super) fn refuse(self, text: &str, why: &str) -> String {
        format!("{} field {text:?}: {why}; expected {}", self.name(), self.expected())
    }
}

const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Which one of a weekday's days in a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Nth {
    /// The first to the fifth.
    Count(u32),
    Last,
}

/// The values that a field allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Field {
    /// Allowed numbers, ascending.
    pub(super) values: Vec<u32>,
    /// Whether `*` is among the values, so that every value is allowed.
    pub(super) any: bool,
    /// Whether `L` (the last day of the month) is among the values.
    pub(super) last_day: bool,
    /// How many things the field names, counting `*` and `L` as one each.
    pub(super) named: usize,
}

impl Field {
    pub(super) fn allows(&self, value: u32) -> bool {
        self.any || self.values.binary_search(&value).is_ok()
    }

    /// Whether the field is nothing but `*`; `*,5` allows everything and yet is not this.
    pub(super) fn is_only_star(&self) -> bool {
        self.any && self.named == 1
    }

    /// Every allowed number of the field's range, ascending.
    pub(super) fn expand(&self, kind: FieldKind) -> Vec<u32> {
        let (low, high) = kind.range();
        if self.any { (low..=high).collect() } else { self.values.clone() }
    }

    /// What a field becomes that names its whole range.
    pub(super) fn star() -> Self {
        Self { any: true, named: 1, ..Self::default() }
    }
}

/// What a field says beyond its values.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// From day of week: which of that weekday's days in the month.
    pub(super) nth: BTreeMap<u32, BTreeSet<Nth>>,
    /// From day of month: the day to which the nearest weekday is sought.
    pub(super) nearest_weekday: Option<u32>,
}

/// A list item that still waits to be read: text, or a number out of a range, with the `#n` that hung on the range.
enum Item {
    Text(String),
    Number(u32, Option<Nth>),
}

/// Reads one field, in lower case. The error says what is wrong and what would be right.
pub(super) fn read(kind: FieldKind, text: &str, extras: &mut Extras) -> Result<Field, String> {
    let refuse = |why: &str| kind.refuse(text, why);
    if is_hashed(text) {
        return Err(refuse("H (hashed) and R (random) values have no fixed meaning in a schedule"));
    }
    let mut text = text;
    if text.contains('?') {
        if text != "?" {
            return Err(refuse("a question mark stands alone"));
        }
        if !matches!(kind, FieldKind::Day | FieldKind::Weekday) {
            return Err(refuse("a question mark may stand for a day of month or a day of week only"));
        }
        text = "*";
    }
    let mut values = BTreeSet::new();
    let (mut any, mut last_day) = (false, false);
    // croniter takes items from the end and puts the members of a range back at the end.
    let mut items: Vec<Item> = text.split(',').map(|item| Item::Text(item.into())).collect();
    while let Some(item) = items.pop() {
        let (item, mut nth) = match item {
            Item::Text(item) => (item, None),
            Item::Number(number, nth) => {
                accept(kind, text, number, nth, &mut values, extras)?;
                continue;
            }
        };
        let mut item = item.as_str();
        if kind == FieldKind::Weekday
            && let Some((rest, found)) = split_nth(item)
        {
            nth = Some(found.ok_or_else(|| refuse("the number after # is 1 to 5"))?);
            item = rest;
        }
        if kind == FieldKind::Day
            && let Some(day) = nearest_weekday(item)
        {
            if !(1..=31).contains(&day) {
                return Err(refuse("W takes a day from 1 to 31"));
            }
            if !items.is_empty() || !values.is_empty() || any || last_day {
                return Err(refuse("W stands alone, not in a list"));
            }
            extras.nearest_weekday = Some(day);
            values.insert(day);
            continue;
        }
        if let Some(range) = Range::split(kind, item) {
            let hung = nth.filter(|nth| *nth != Nth::Last);
            let members = range.members(kind).map_err(|why| refuse(&why))?;
            items.extend(members.into_iter().map(|number| Item::Number(number, hung)));
        } else if item.starts_with('-') {
            return Err(refuse("negative numbers are not allowed"));
        } else if item == "*" {
            any = true;
        } else if item == "l" && kind == FieldKind::Day {
            last_day = true;
        } else {
            let number =
                number(kind, item).ok_or_else(|| refuse(&format!("{item:?} is not a value of it")))?;
            accept(kind, text, number, nth, &mut values, extras)?;
        }
    }
    let named = values.len() + usize::from(any) + usize::from(last_day);
    Ok(Field { values: values.into_iter().collect(), any, last_day, named })
}

fn accept(
    kind: FieldKind,
    text: &str,
    number: u32,
    nth: Option<Nth>,
    values: &mut BTreeSet<u32>,
    extras: &mut Extras,
) -> Result<(), String> {
    let number = if kind == FieldKind::Weekday && number == 7 { 0 } else { number };
    let (low, high) = kind.range();
    if !(low..=high).contains(&number) {
        return Err(kind.refuse(text, &format!("{number} is out of range")));
    }
    values.insert(number);
    if let Some(nth) = nth {
        extras.nth.entry(number).or_default().insert(nth);
    }
    Ok(())
}

/// A number or a name. Numbers too large for anything become one that is out of every range.
fn number(kind: FieldKind, text: &str) -> Option<u32> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse().unwrap_or(u32::MAX));
    }
    kind.word(text)
}

/// `h`, `r`, `h(1-5)`, `r/3`: Jenkins' hashed values.
fn is_hashed(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(['h', 'r']) else { return false };
    rest.is_empty() || rest.starts_with('(') || rest.starts_with('/')
}

/// `5#3`, `mon-fri#2` and `l5`: the weekday part, and which one of the month (`None` where that is out of range).
fn split_nth(item: &str) -> Option<(&str, Option<Nth>)> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((day, count)) = item.split_once('#') {
        let word =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let named_range =
            day.split_once('-').is_some_and(|(a, b)| WEEKDAYS.contains(&a) && WEEKDAYS.contains(&b));
        if !digits(count) || !(word(day) || named_range) {
            return None;
        }
        let count: u32 = count.parse().unwrap_or(u32::MAX);
        return Some((day, (1..=5).contains(&count).then_some(Nth::Count(count))));
    }
    let day = item.strip_prefix('l')?;
    digits(day).then_some((day, Some(Nth::Last)))
}

/// `15w` and `w15`: the day, which may be out of range.
fn nearest_weekday(item: &str) -> Option<u32> {
    let day = item.strip_suffix('w').or_else(|| item.strip_prefix('w'))?;
    let is_number = !day.is_empty() && day.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| day.parse().unwrap_or(u32::MAX))
}

/// `low-high/step`, out of `5-20`, `5-20/3`, `*/3` and `5/3`.
struct Range {
    low: String,
    high: String,
    step: u64,
    /// Written as `5/3`, so that its end was not written at all.
    open_ended: bool,
}

impl Range {
    fn split(kind: FieldKind, item: &str) -> Option<Self> {
        let (low, high) = kind.range();
        if let Some(step) = item.strip_prefix("*/").filter(|step| !step.is_empty())
            && let Some(range) = Self::parse(&format!("{low}-{high}/{step}"), false)
        {
            return Some(range);
        }
        if let Some(range) = Self::parse(item, false) {
            return Some(range);
        }
        let (start, step) =
            item.rsplit_once('/').filter(|(start, step)| !start.is_empty() && !step.is_empty())?;
        Self::parse(&format!("{start}-{high}/{step}"), true)
    }

    fn parse(text: &str, open_ended: bool) -> Option<Self> {
        let (low, rest) = text.split_once('-')?;
        let (high, step) = match rest.split_once('/') {
            Some((high, step)) => (high, Some(step)),
            None => (rest, None),
        };
        if low.is_empty() || high.is_empty() || high.contains('-') {
            return None;
        }
        let step = match step {
            None => 1,
            Some(step) if !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit()) => {
                step.parse().unwrap_or(u64::MAX)
            }
            Some(_) => return None,
        };
        Some(Self { low: low.into(), high: high.into(), step, open_ended })
    }

    fn members(&self, kind: FieldKind) -> Result<Vec<u32>, String> {
        let bound = |text: &str| {
            let number = number(kind, text).ok_or_else(|| format!("{text:?} is not a value of it"))?;
            Ok::<u32, String>(if kind == FieldKind::Weekday && number == 7 { 0 } else { number })
        };
        let (first, last) = kind.range();
        let mut low = bound(&self.low)?;
        let mut high = if kind == FieldKind::Day && self.high == "l" { 31 } else { bound(&self.high)? };
        if self.step == 0 {
            return Err("a step of 0 never advances".into());
        }
        if low.max(high) > last {
            return Err(format!("{} is out of range", low.max(high)));
        }
        if low == high {
            if self.open_ended {
                return Ok(vec![low]);
            }
            // croniter takes an equal range that was written as one for the whole cycle.
            (low, high) = (first, last);
        }
        let step = |from: u32, to: u32| {
            let step = usize::try_from(self.step).unwrap_or(usize::MAX);
            (from..=to).step_by(step).collect::<Vec<u32>>()
        };
        if low <= high {
            return Ok(step(low, high));
        }
        // A range that wraps, such as `nov-feb` or `22-6/3`, carries its step over the end of the cycle; where the step
        // does not fit the rest of the cycle, croniter goes on one later than counting through would (22, then 2).
        let mut members = step(low, last);
        let reached = members.last().copied().unwrap_or(low);
        let left_over = u64::from(last - reached);
        let position = u64::from(reached.saturating_sub(first));
        let length = u64::from(last - first) + 1;
        let skip = if position.saturating_add(self.step) > length && left_over < self.step {
            u32::try_from(self.step - left_over).unwrap_or(u32::MAX)
        } else {
            0
        };
        members.extend(step(first.saturating_add(skip), high));
        Ok(members)
    }
}
