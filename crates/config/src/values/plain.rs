//! Booleans, numbers, text, paths and other plain values.

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use chrono_tz::Tz;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{Context, Given, SettingValue};

impl SettingValue for bool {
    const KIND: &'static str = "true or false";

    /// Accepts what Airflow does (`_shared/configuration/parser.py: getboolean`).
    fn parse(given: &Given<'_>, _: &Context<'_>) -> Result<Self, String> {
        let truth = match given {
            Given::Text(text) => match text.trim().to_lowercase().as_str() {
                "t" | "true" | "1" => Some(true),
                "f" | "false" | "0" => Some(false),
                _ => None,
            },
            Given::Toml(value) => value.as_bool(),
        };
        truth.ok_or_else(|| given.mismatch(Self::KIND))
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

macro_rules! whole_numbers {
    ($($number:ty: $kind:literal),+) => {$(
        impl SettingValue for $number {
            const KIND: &'static str = $kind;

            fn parse(given: &Given<'_>, _: &Context<'_>) -> Result<Self, String> {
                let number = match given {
                    Given::Text(text) => text.trim().parse().ok(),
                    Given::Toml(value) => value.as_u64().and_then(|number| number.try_into().ok()),
                };
                number.ok_or_else(|| given.mismatch(Self::KIND))
            }

            fn text(&self) -> String {
                self.to_string()
            }

            fn is_below(&self, least: u32) -> bool {
                u32::from(*self) < least
            }
        }
    )+};
}

whole_numbers! { u32: "a whole number, 0 or more", u16: "a port number, 0 to 65535" }

/// A span of time, written in seconds as Airflow does, with a fraction or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

impl Deref for Seconds {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl From<Seconds> for Duration {
    fn from(seconds: Seconds) -> Self {
        seconds.0
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64())
    }
}

impl SettingValue for Seconds {
    const KIND: &'static str = "a number of seconds";

    fn parse(given: &Given<'_>, _: &Context<'_>) -> Result<Self, String> {
        let number = match given {
            Given::Text(text) => text.trim().parse::<f64>().ok(),
            Given::Toml(value) => value.as_f64(),
        };
        number
            .and_then(|number| Duration::try_from_secs_f64(number).ok())
            .map(Self)
            .ok_or_else(|| given.mismatch("a number of seconds, 0 or more"))
    }

    fn text(&self) -> String {
        if self.0.subsec_nanos() == 0 {
            self.0.as_secs().to_string()
        } else {
            self.0.as_secs_f64().to_string()
        }
    }

    fn is_below(&self, least: u32) -> bool {
        self.0 < Duration::from_secs(least.into())
    }
}

pub(super) fn text_of<'a>(given: &Given<'a>, expected: &str) -> Result<&'a str, String> {
    match given {
        Given::Text(text) => Ok(text),
        Given::Toml(value) => value.as_str().ok_or_else(|| given.mismatch(expected)),
    }
}

impl SettingValue for String {
    const KIND: &'static str = "text";

    fn parse(given: &Given<'_>, _: &Context<'_>) -> Result<Self, String> {
        match text_of(given, Self::KIND)?.trim() {
            "" => Err("expected text, and this is empty".to_owned()),
            text => Ok(text.to_owned()),
        }
    }

    fn text(&self) -> String {
        self.clone()
    }
}

impl SettingValue for Vec<String> {
    const KIND: &'static str = "a list, its items separated by commas";

    fn parse(given: &Given<'_>, _: &Context<'_>) -> Result<Self, String> {
        let items: Vec<&str> = match given {
            Given::Toml(Value::Array(items)) => items
                .iter()
                .map(|item| {
                    item.as_str().ok_or_else(|| format!("expected a list of strings, and {item} is none"))
                })
                .collect::<Result<_, _>>()?,
            _ => text_of(given, "a list of strings")?.split(',').collect(),
        };
        Ok(items.into_iter().map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
    }

    fn text(&self) -> String {
        self.join(",")
    }
}

impl SettingValue for PathBuf {
    const KIND: &'static str = "a path";

    fn parse(given: &Given<'_>, context: &Context<'_>) -> Result<Self, String> {
        context.path(text_of(given, Self::KIND)?)
    }

    fn text(&self) -> String {
        self.display().to_string()
    }
}

/// A time zone of the IANA database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timezone(pub Tz);

impl Serialize for Timezone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name())
    }
}

impl SettingValue for Timezone {
    const KIND: &'static str = "a time zone such as UTC or Europe/Amsterdam";

    fn parse(given: &Given<'_>, _: &Context<'_>) -> Result<Self, String> {
        let name = text_of(given, Self::KIND)?.trim();
        if name.eq_ignore_ascii_case("system") {
            return Err("\"system\" means something else on every machine, and schedulers must agree; name the zone, \
                        such as Europe/Amsterdam"
                .to_owned());
        }
        let name = if name.eq_ignore_ascii_case("utc") { "UTC" } else { name };
        name.parse().map(Self).map_err(|_| given.mismatch(Self::KIND))
    }

    fn text(&self) -> String {
        self.0.name().to_owned()
    }
}

/// An `http` or `https` address under which Gust is reached, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BaseUrl(String);

impl BaseUrl {
    /// The address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl SettingValue for BaseUrl {
    const KIND: &'static str = "an address such as https://gust.example.com/path";

    fn parse(given: &Given<'_>, _: &Context<'_>) -> Result<Self, String> {
        let text = text_of(given, Self::KIND)?.trim();
        let url = url::Url::parse(text).map_err(|_| given.mismatch(Self::KIND))?;
        if !["http", "https"].contains(&url.scheme()) || url.query().is_some() || url.fragment().is_some() {
            return Err(given.mismatch(Self::KIND));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}
