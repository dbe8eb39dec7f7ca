//! A cron expression in words, as the cron-descriptor package 2.2 says it in English with a 24-hour clock.
//!
//! Airflow shows this text next to a schedule, so its wording (and where it says nothing) is kept, oddities included.

/// Describes an expression of five fields; `None` where cron-descriptor fails, for which Airflow shows nothing.
///
/// Where day of month and day of week are both restricted, Airflow describes each alone and joins the two.
pub(super) fn describe(expression: &str) -> Option<String> {
    let fields: Vec<&str> = expression.split_whitespace().collect();
    match fields.as_slice() {
        [minute, hour, day, month, weekday] if *day != "*" && *weekday != "*" => {
            let by_day = Descriptor::new([minute, hour, day, month, "*"]).describe()?;
            let by_weekday = Descriptor::new([minute, hour, "*", month, weekday]).describe()?;
            Some(format!("{by_day} (or) {by_weekday}"))
        }
        [minute, hour, day, month, weekday] => {
            Descriptor::new([minute, hour, day, month, weekday]).describe()
        }
        _ => None,
    }
}

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Minute,
    Hour,
    Day,
    Month,
    Weekday,
    /// A list of weekdays whose step is told apart from it ("every 2 weeks, only on …").
    WeekdayList,
}

/// The five fields, normalized for description.
struct Descriptor {
    minute: String,
    hour: String,
    day: String,
    month: String,
    weekday: String,
}

impl Descriptor {
    fn new(fields: [&str; 5]) -> Self {
        let [minute, hour, day, month, weekday] = fields.map(str::to_owned);
        let from_start = |field: String, start: &str| {
            if field.starts_with(start) { field.replace(start, "*/") } else { field }
        };
        let minute = from_start(minute, "0/");
        let mut hour = from_start(hour, "0/");
        let day = from_start(day.replace('?', "*"), "1/");
        let mut month = from_start(month, "1/").to_uppercase();
        let weekday = from_start(weekday.replace('?', "*"), "1/");
        let mut weekday = sunday_as_zero(&weekday).to_uppercase();
        for (number, name) in WEEKDAYS.iter().enumerate() {
            weekday = weekday.replace(&name[..3].to_uppercase(), &number.to_string());
        }
        for (index, name) in MONTHS.iter().enumerate() {
            month = month.replace(&name[..3].to_uppercase(), &(index + 1).to_string());
        }
        // A single hour beside a stepping minute is told as the range from that hour to its end.
        if !hour.contains(['*', '-', ',', '/']) && minute.contains(['*', '/']) {
            hour = format!("{hour}-{hour}");
        }
        let every = |field: String| if field == "*/1" { "*".into() } else { field };
        let through = |field: String, end: &str| match field.split('/').collect::<Vec<_>>().as_slice() {
            [start, step, ..] if !field.contains(['*', '-', ',']) => format!("{start}-{end}/{step}"),
            _ => field,
        };
        Self {
            minute: every(minute),
            hour: every(hour),
            day: every(day),
            month: through(every(month), "12"),
            weekday: through(every(weekday), "6"),
        }
    }

    fn describe(&self) -> Option<String> {
        let time = self.time_of_day()?;
        let (day, month, weekday) =
            (self.day_of_month()?, self.segment(Part::Month, &self.month)?, self.weekday()?);
        let mut text = format!("{time}{day}{weekday}{month}");
        for noise in [", every minute", ", every hour", ", every day"] {
            text = text.replace(noise, "");
        }
        let text = text.strip_suffix(", ").or_else(|| text.strip_suffix(',')).unwrap_or(&text);
        let mut letters = text.chars();
        let first = letters.next()?;
        Some(first.to_uppercase().chain(letters).collect())
    }

    fn time_of_day(&self) -> Option<String> {
        let special = |field: &str| field.contains(['/', '-', ',', '*']);
        let (minute, hour) = (&self.minute, &self.hour);
        if !special(minute) && !special(hour) {
            return Some(format!("At {}", clock(hour, minute)?));
        }
        if minute.contains('-') && !minute.contains(',') && !special(hour) {
            let mut ends = minute.split('-');
            let (from, to) = (ends.next()?, ends.next()?);
            return Some(format!("Every minute between {} and {}", clock(hour, from)?, clock(hour, to)?));
        }
        if hour.contains(',') && !hour.contains('-') && !special(minute) {
            let hours: Vec<&str> = hour.split(',').collect();
            let mut text = String::from("At");
            for (index, one) in hours.iter().enumerate() {
                text.push(' ');
                text += &clock(one, minute)?;
                if index + 2 < hours.len() {
                    text.push(',');
                }
                if index + 2 == hours.len() {
                    text += " and";
                }
            }
            return Some(text);
        }
        let (minutes, hours) = (self.segment(Part::Minute, minute)?, self.segment(Part::Hour, hour)?);
        let comma = if minutes.is_empty() || hours.is_empty() { "" } else { ", " };
        Some(format!("{minutes}{comma}{hours}"))
    }

    fn day_of_month(&self) -> Option<String> {
        let day = self.day.as_str();
        match day {
            "L" => return Some(", on the last day of the month".into()),
            "LW" | "WL" => return Some(", on the last weekday of the month".into()),
            _ => {}
        }
        if let Some(number) = day_of_w(day) {
            let which =
                if number == 1 { "first weekday".into() } else { format!("weekday nearest day {number}") };
            return Some(format!(", on the {which} of the month"));
        }
        if day == "*" && self.weekday != "*" {
            return Some(String::new());
        }
        if let Some(offset) = day.strip_prefix("L-")
            && offset.starts_with(|c: char| c.is_ascii_digit())
        {
            let digits: String = offset.chars().take_while(char::is_ascii_digit).take(2).collect();
            return Some(format!(", {digits} days before the last day of the month"));
        }
        self.segment(Part::Day, day)
    }

    fn weekday(&self) -> Option<String> {
        if self.weekday == "*" {
            return Some(String::new());
        }
        if let Some((base, step)) = self.weekday.split_once('/')
            && !step.is_empty()
            && step.bytes().all(|byte| byte.is_ascii_digit())
        {
            let mut days = None;
            if base.contains(',') {
                days = Some(self.segment(Part::WeekdayList, base)?);
            } else if base.contains('-') {
                // A step as long as its range, or longer, leaves one day a week.
                let ends: Vec<&str> = base.split('-').collect();
                let [from, to] = ends.as_slice() else { return None };
                let (first, last) = (integer(from)?, integer(to)?);
                let size = if last == 0 { 7 } else { last } - first + 1;
                if integer(step)? >= size {
                    days = Some(if last == 6 {
                        format!(", only on {}", Self::item(Part::Weekday, from)?)
                    } else {
                        Self::between(Part::WeekdayList, base, ", {0} through {1}")?
                    });
                }
            }
            if let Some(days) = days {
                return Some(format!(", every {step} weeks{days}"));
            }
        }
        self.segment(Part::Weekday, &self.weekday)
    }

    /// One value in words.
    fn item(part: Part, value: &str) -> Option<String> {
        match part {
            Part::Minute | Part::Day => Some(value.into()),
            Part::Hour => clock(value, "0"),
            Part::Month => {
                let index = usize::try_from(integer(value)? - 1).ok()?;
                MONTHS.get(index).map(|name| (*name).into())
            }
            Part::Weekday | Part::WeekdayList => {
                let day = match value.split_once('#') {
                    Some((_, rest)) if rest.contains('#') => return None,
                    Some((day, _)) => day.to_owned(),
                    None => value.replace('L', ""),
                };
                // Python's negative indices count from the end.
                let day = integer(&day)?;
                let index = usize::try_from(if day < 0 { day + 7 } else { day }).ok()?;
                WEEKDAYS.get(index).map(|name| (*name).into())
            }
        }
    }

    /// The frame around one value or a list of them.
    fn frame(&self, part: Part, value: &str) -> String {
        let hours_are_a_range = self.hour.contains('-') && !self.hour.contains(['/', ',']);
        match part {
            Part::Minute if value == "0" && !hours_are_a_range => String::new(),
            Part::Minute => "at {0} minutes past the hour".into(),
            Part::Hour => "at {0}".into(),
            Part::Day => ", on day {0} of the month".into(),
            Part::Month => ", only in {0}".into(),
            Part::WeekdayList => ", only on {0}".into(),
            Part::Weekday => match value.split_once('#') {
                Some((_, count)) => {
                    let which = match integer(count) {
                        Some(1) => "first",
                        Some(2) => "second",
                        Some(3) => "third",
                        Some(4) => "fourth",
                        Some(5) => "fifth",
                        _ => "",
                    };
                    format!(", on the {which} {{0}} of the month")
                }
                None if value.contains('L') => ", on the last {0} of the month".into(),
                None if self.day != "*" => ", or on {0}".into(),
                None => ", only on {0}".into(),
            },
        }
    }

    /// A step in words.
    fn step(part: Part, step: &str) -> String {
        match part {
            Part::Minute => format!("every {step} minutes"),
            Part::Hour => format!("every {step} hours"),
            Part::Day if step == "1" => ", every day".into(),
            Part::Day => format!(", every {step} days"),
            Part::Month => format!(", every {step} months"),
            Part::Weekday | Part::WeekdayList => format!(", every {step} days of the week"),
        }
    }

    fn segment(&self, part: Part, field: &str) -> Option<String> {
        let between = match part {
            Part::Minute => "minutes {0} through {1} past the hour",
            Part::Hour => "between {0} and {1}",
            Part::Day => ", between day {0} and {1} of the month",
            Part::Month | Part::Weekday | Part::WeekdayList => ", {0} through {1}",
        };
        if field.is_empty() {
            return Some(String::new());
        }
        if field == "*" {
            let all = match part {
                Part::Minute => "every minute",
                Part::Hour => "every hour",
                Part::Day => ", every day",
                Part::Month | Part::Weekday | Part::WeekdayList => "",
            };
            return Some(all.into());
        }
        if !field.contains(['/', '-', ',']) {
            return Some(self.frame(part, field).replace("{0}", &Self::item(part, field)?));
        }
        if field.contains(',') {
            return Some(self.frame(part, field).replace("{0}", &Self::list(part, field)?));
        }
        if let Some((base, rest)) = field.split_once('/') {
            let mut text = Self::step(part, rest.split('/').next()?);
            if base.contains('-') {
                let range = Self::between(part, base, between)?;
                if !range.starts_with(", ") {
                    text += ", ";
                }
                text += &range;
            } else if !base.contains('*') {
                let start = self.frame(part, base).replace("{0}", &Self::item(part, base)?);
                text += ", starting ";
                text += &start.replace(", ", "");
            }
            return Some(text);
        }
        Self::between(part, field, between)
    }

    fn list(part: Part, field: &str) -> Option<String> {
        let items: Vec<&str> = field.split(',').collect();
        let mut text = String::new();
        for (index, item) in items.iter().enumerate() {
            if index > 0 && items.len() > 2 {
                text.push(',');
                if index + 1 < items.len() {
                    text.push(' ');
                }
            }
            if index > 0 && (index + 1 == items.len() || items.len() == 2) {
                text += " and ";
            }
            if let Some((base, rest)) = item.split_once('/') {
                let step = Self::step(part, rest.split('/').next()?);
                text += step.strip_prefix(", ").unwrap_or(&step);
                if base.contains('-') {
                    let range = Self::between(part, base, ", {0} through {1}")?;
                    text += ", ";
                    text += &range.replace(", ", "");
                } else if base != "*" {
                    // "starting {0}" without its comma is not in the English catalogue, and so comes out empty.
                    Self::item(part, base)?;
                    text += ", ";
                }
            } else if item.contains('-') {
                text += &Self::between(part, item, ", {0} through {1}")?.replace(", ", "");
            } else {
                text += &Self::item(part, item)?;
            }
        }
        Some(text)
    }

    fn between(part: Part, range: &str, frame: &str) -> Option<String> {
        let mut ends = range.split('-');
        let from = Self::item(part, ends.next()?)?;
        let to = Self::item(part, ends.next()?)?.replace(":00", ":59");
        Some(frame.replace("{0}", &from).replace("{1}", &to))
    }
}

/// Python's `int(text)` for what can stand in a cron field.
fn integer(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

fn clock(hour: &str, minute: &str) -> Option<String> {
    Some(format!("{:02}:{:02}", integer(hour)?, integer(minute)?))
}

/// `15W…` and `W15…`: the day, which may be followed by anything.
fn day_of_w(day: &str) -> Option<i64> {
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).take(2).collect::<String>();
    let before = digits(day);
    if !before.is_empty() && day[before.len()..].starts_with('W') {
        return integer(&before);
    }
    let after = digits(day.strip_prefix('W')?);
    integer(&after)
}

/// Writes Sunday, where it is 7, as 0: in the first digit, and in any digit after another sign than `#` and `/`.
fn sunday_as_zero(field: &str) -> String {
    let signs: Vec<char> = field.chars().collect();
    let mut out = String::new();
    let mut index = 0;
    while let Some(sign) = signs.get(index) {
        let next = signs.get(index + 1).filter(|next| next.is_ascii_digit());
        if index == 0 && sign.is_ascii_digit() {
            out.push(if *sign == '7' { '0' } else { *sign });
            index += 1;
        } else if let (Some(next), false) = (next, matches!(sign, '#' | '/') || sign.is_whitespace()) {
            let alone = !sign.is_ascii_digit();
            out.push(*sign);
            out.push(if alone && *next == '7' { '0' } else { *next });
            index += 2;
        } else {
            out.push(*sign);
            index += 1;
        }
    }
    out
}
