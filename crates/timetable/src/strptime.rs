//! Python's `strptime`, for reading the keys of partitions back.

use chrono::{Datelike, Duration, NaiveDate, NaiveDateTime, Weekday};

/// What has been read so far.
#[derive(Clone, Copy, Default)]
struct Parts {
    year: Option<i32>,
    month: Option<u32>,
    day: Option<u32>,
    hour: Option<u32>,
    hour12: Option<u32>,
    afternoon: bool,
    minute: u32,
    second: u32,
    micros: u32,
    day_of_year: Option<u32>,
    /// 0 for Monday to 6 for Sunday.
    weekday: Option<u32>,
    week: Option<(u32, Weekday)>,
    iso_year: Option<i32>,
    iso_week: Option<u32>,
}

const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// The local time that a text stands for; `None` where it does not have the format, or names no date. A format with
/// `%z` never matches: Airflow wants a time without a zone and fails on such a key.
pub(crate) fn strptime(text: &str, format: &str) -> Option<NaiveDateTime> {
    let format =
        format.replace("%c", "%a %b %d %H:%M:%S %Y").replace("%x", "%m/%d/%y").replace("%X", "%H:%M:%S");
    match_from(&text.to_lowercase(), &format.to_lowercase(), &format, Parts::default())
}

/// Matches with backtracking, since `%m%d` may take one or two digits each. `lower` and `format` are the same text in
/// lower case and as written: literals match in any case, directives are told apart by theirs.
fn match_from(text: &str, lower: &str, format: &str, parts: Parts) -> Option<NaiveDateTime> {
    let Some(sign) = lower.chars().next() else {
        return if text.is_empty() { parts.build() } else { None };
    };
    let after = |length: usize| Some((lower.get(length..)?, format.get(length..)?));
    if sign.is_whitespace() {
        let (rest, text_rest) = (lower.trim_start(), text.trim_start());
        if text_rest.len() == text.len() {
            return None;
        }
        let (lower, format) = after(lower.len() - rest.len())?;
        return match_from(text_rest, lower, format, parts);
    }
    if sign != '%' {
        let (lower, format) = after(sign.len_utf8())?;
        return match_from(text.strip_prefix(sign)?, lower, format, parts);
    }
    let directive = format.chars().nth(1)?;
    let (lower, format) = after(1 + directive.len_utf8())?;
    let go = |length: usize, parts: Parts| match_from(text.get(length..)?, lower, format, parts);
    let numbers = |width: usize, low: u32, high: u32, set: &dyn Fn(&mut Parts, u32)| {
        (1..=width).rev().find_map(|width| {
            let digits =
                text.get(..width).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
            let number: u32 = digits.parse().ok().filter(|number| (low..=high).contains(number))?;
            let mut parts = parts;
            set(&mut parts, number);
            go(width, parts)
        })
    };
    let names = |names: &[&str], length: usize, set: &dyn Fn(&mut Parts, u32)| {
        (0u32..).zip(names).find_map(|(index, name)| {
            let name = name.get(..length.min(name.len()))?;
            text.starts_with(name).then_some(())?;
            let mut parts = parts;
            set(&mut parts, index);
            go(name.len(), parts)
        })
    };
    let year = |number: u32| i32::try_from(number).ok();
    match directive {
        '%' => text.starts_with('%').then(|| go(1, parts)).flatten(),
        'Y' => text.get(..4).filter(|t| t.len() == 4).and_then(|_| {
            let number: u32 =
                text.get(..4).filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
            go(4, Parts { year: year(number), ..parts })
        }),
        'G' => {
            let number: u32 =
                text.get(..4).filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
            go(4, Parts { iso_year: year(number), ..parts })
        }
        'y' => {
            let number: u32 =
                text.get(..2).filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
            go(2, Parts { year: year(if number <= 68 { 2000 + number } else { 1900 + number }), ..parts })
        }
        'm' => numbers(2, 1, 12, &|parts, number| parts.month = Some(number)),
        'd' => numbers(2, 1, 31, &|parts, number| parts.day = Some(number)).or_else(|| {
            let number = text.strip_prefix(' ')?.chars().next()?.to_digit(10).filter(|number| *number > 0)?;
            go(2, Parts { day: Some(number), ..parts })
        }),
        'j' => numbers(3, 1, 366, &|parts, number| parts.day_of_year = Some(number)),
        'H' => numbers(2, 0, 23, &|parts, number| parts.hour = Some(number)),
        'I' => numbers(2, 1, 12, &|parts, number| parts.hour12 = Some(number)),
        'M' => numbers(2, 0, 59, &|parts, number| parts.minute = number),
        'S' => numbers(2, 0, 61, &|parts, number| parts.second = number),
        'f' => (1..=6usize).rev().find_map(|width| {
            let digits =
                text.get(..width).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
            go(width, Parts { micros: format!("{digits:0<6}").parse().ok()?, ..parts })
        }),
        'U' => numbers(2, 0, 53, &|parts, number| parts.week = Some((number, Weekday::Sun))),
        'W' => numbers(2, 0, 53, &|parts, number| parts.week = Some((number, Weekday::Mon))),
        'V' => numbers(2, 0, 53, &|parts, number| parts.iso_week = Some(number)),
        'w' => numbers(1, 0, 6, &|parts, number| parts.weekday = Some((number + 6) % 7)),
        'u' => numbers(1, 1, 7, &|parts, number| parts.weekday = Some(number - 1)),
        'a' => names(&WEEKDAYS, 3, &|parts, index| parts.weekday = Some(index)),
        'A' => names(&WEEKDAYS, 9, &|parts, index| parts.weekday = Some(index)),
        'b' => names(&MONTHS, 3, &|parts, index| parts.month = Some(index + 1)),
        'B' => names(&MONTHS, 9, &|parts, index| parts.month = Some(index + 1)),
        'p' => names(&["am", "pm"], 2, &|parts, index| parts.afternoon = index == 1),
        'Z' => names(&["utc", "gmt"], 3, &|_, _| {}),
        _ => None,
    }
}

impl Parts {
    fn build(self) -> Option<NaiveDateTime> {
        let hour = match self.hour12 {
            Some(hour) => hour % 12 + if self.afternoon { 12 } else { 0 },
            None => self.hour.unwrap_or(0),
        };
        self.date()?.and_hms_micro_opt(hour, self.minute, self.second, self.micros)
    }

    fn date(self) -> Option<NaiveDate> {
        let iso_parts = [self.iso_year.is_some(), self.iso_week.is_some()];
        if iso_parts.contains(&true) {
            let weekday = Weekday::try_from(u8::try_from(self.weekday?).ok()?).ok()?;
            if self.day_of_year.is_some() {
                return None;
            }
            return NaiveDate::from_isoywd_opt(self.iso_year?, self.iso_week?, weekday);
        }
        let year = self.year.unwrap_or(1900);
        let new_year = NaiveDate::from_ymd_opt(year, 1, 1).filter(|_| year >= 1)?;
        let offset = match (self.day_of_year, self.week, self.weekday) {
            (Some(day), _, _) => i64::from(day) - 1,
            (None, Some((week, begins)), Some(weekday)) => {
                // Days of the week count from the one with which weeks begin; days before the first such are week 0.
                let shift = u32::from(begins == Weekday::Sun);
                let first = i64::from((new_year.weekday().num_days_from_monday() + shift) % 7);
                let weekday = i64::from((weekday + shift) % 7);
                match week {
                    0 => weekday - first,
                    week => (7 - first) % 7 + 7 * (i64::from(week) - 1) + weekday,
                }
            }
            _ => return NaiveDate::from_ymd_opt(year, self.month.unwrap_or(1), self.day.unwrap_or(1)),
        };
        new_year.checked_add_signed(Duration::days(offset))
    }
}
