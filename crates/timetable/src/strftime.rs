//! `strftime` as glibc does it in the C locale, for the keys of partitions.

use chrono::{DateTime, Datelike, NaiveDateTime, Timelike, Utc};

use crate::Zone;

/// Formats what a zone's clocks show at an instant, as `DateTime.strftime(format)` in Python.
pub(crate) fn strftime(at: DateTime<Utc>, zone: Zone, format: &str) -> String {
    let local = zone.to_naive(at);
    let mut out = String::new();
    let mut rest = format.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut written = String::from("%");
        let mut flag = None;
        while let Some(&c @ ('-' | '_' | '0' | '^' | '#')) = rest.peek() {
            flag = Some(c);
            written.push(c);
            rest.next();
        }
        let Some(directive) = rest.next() else {
            out.push_str(&written);
            break;
        };
        written.push(directive);
        out.push_str(&expand(at, local, zone, directive, flag).unwrap_or(written));
    }
    out
}

fn expand(
    at: DateTime<Utc>,
    local: NaiveDateTime,
    zone: Zone,
    directive: char,
    flag: Option<char>,
) -> Option<String> {
    let again = |format: &str| Some(strftime(at, zone, format));
    let number = |value: i64, width: usize, pad: char| {
        let text = match flag {
            Some('-') => value.to_string(),
            Some('_') => format!("{value:>width$}"),
            Some('0') => format!("{value:0>width$}"),
            _ if pad == ' ' => format!("{value:>width$}"),
            _ => format!("{value:0>width$}"),
        };
        Some(text)
    };
    let word = |text: String| {
        Some(match flag {
            Some('^' | '#') => text.to_uppercase(),
            _ => text,
        })
    };
    let named = |format: &str| word(local.format(format).to_string());
    let hour12 = |hour: u32| i64::from(if hour.is_multiple_of(12) { 12 } else { hour % 12 });
    let iso = local.iso_week();
    match directive {
        'Y' => Some(local.year().to_string()),
        'C' => number(i64::from(local.year().div_euclid(100)), 2, '0'),
        'y' => number(i64::from(local.year().rem_euclid(100)), 2, '0'),
        'G' => Some(iso.year().to_string()),
        'g' => number(i64::from(iso.year().rem_euclid(100)), 2, '0'),
        'm' => number(i64::from(local.month()), 2, '0'),
        'd' => number(i64::from(local.day()), 2, '0'),
        'e' => number(i64::from(local.day()), 2, ' '),
        'j' => number(i64::from(local.ordinal()), 3, '0'),
        'H' => number(i64::from(local.hour()), 2, '0'),
        'k' => number(i64::from(local.hour()), 2, ' '),
        'I' => number(hour12(local.hour()), 2, '0'),
        'l' => number(hour12(local.hour()), 2, ' '),
        'M' => number(i64::from(local.minute()), 2, '0'),
        'S' => number(i64::from(local.second()), 2, '0'),
        'f' => Some(format!("{:06}", local.nanosecond() / 1_000)),
        'U' => number(i64::from((local.ordinal() + 6 - local.weekday().num_days_from_sunday()) / 7), 2, '0'),
        'W' => number(i64::from((local.ordinal() + 6 - local.weekday().num_days_from_monday()) / 7), 2, '0'),
        'V' => number(i64::from(iso.week()), 2, '0'),
        'u' => Some(local.weekday().number_from_monday().to_string()),
        'w' => Some(local.weekday().num_days_from_sunday().to_string()),
        's' => Some(at.timestamp().to_string()),
        'a' => named("%a"),
        'A' => named("%A"),
        'b' | 'h' => named("%b"),
        'B' => named("%B"),
        'p' if flag == Some('#') => Some(local.format("%P").to_string()),
        'p' => Some(local.format("%p").to_string()),
        'P' => Some(local.format("%P").to_string()),
        'z' => Some(offset_text(zone.offset_at(at).num_seconds())),
        'Z' if flag == Some('#') => Some(zone.abbreviation(at).to_lowercase()),
        'Z' => Some(zone.abbreviation(at)),
        'n' => Some("\n".into()),
        't' => Some("\t".into()),
        '%' => Some("%".into()),
        'D' | 'x' => again("%m/%d/%y"),
        'F' => again("%Y-%m-%d"),
        'T' | 'X' => again("%H:%M:%S"),
        'R' => again("%H:%M"),
        'r' => again("%I:%M:%S %p"),
        'c' => again("%a %b %e %H:%M:%S %Y"),
        _ => None,
    }
}

fn offset_text(seconds: i64) -> String {
    let (sign, size) = if seconds < 0 { ('-', -seconds) } else { ('+', seconds) };
    let text = format!("{sign}{:02}{:02}", size / 3600, size / 60 % 60);
    if size % 60 == 0 { text } else { format!("{text}{:02}", size % 60) }
}
