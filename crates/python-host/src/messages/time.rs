//! Durations as msgspec writes them.

use chrono::TimeDelta;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration in ISO 8601 (`P1DT2H3M4.5S`, with an optional leading minus), as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IsoDuration(pub TimeDelta);

impl IsoDuration {
    /// Reads the text form. Years and months have no fixed length and are refused.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let rest = rest.strip_prefix('P')?;
        let (days, clock) = rest.split_once('T').unwrap_or((rest, ""));
        if days.is_empty() && clock.is_empty() {
            return None;
        }
        let mut total = Self::sum(days, &[('W', 604_800), ('D', 86_400)])?;
        total = total.checked_add(&Self::sum(clock, &[('H', 3_600), ('M', 60), ('S', 1)])?)?;
        Some(Self(if negative { -total } else { total }))
    }

    fn sum(mut text: &str, units: &[(char, i64)]) -> Option<TimeDelta> {
        let mut total = TimeDelta::zero();
        let mut units = units.iter();
        while !text.is_empty() {
            let end = text.find(|c: char| c.is_ascii_alphabetic())?;
            let (number, unit) = (&text[..end], text[end..].chars().next()?);
            let (_, seconds) = units.by_ref().find(|(name, _)| *name == unit)?;
            total = total.checked_add(&Self::scaled(number, *seconds)?)?;
            text = &text[end + 1..];
        }
        Some(total)
    }

    fn scaled(number: &str, seconds: i64) -> Option<TimeDelta> {
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let whole: i64 = whole.parse().ok()?;
        let mut nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
        nanos = nanos.checked_mul(seconds)?;
        TimeDelta::try_seconds(whole.checked_mul(seconds)?)?.checked_add(&TimeDelta::nanoseconds(nanos))
    }
}

impl<'de> Deserialize<'de> for IsoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom(format!("not an ISO 8601 duration: {text:?}")))
    }
}

impl Serialize for IsoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use rstest::rstest;

    use super::IsoDuration;

    #[rstest]
    #[case("P1D", TimeDelta::days(1))]
    #[case("PT0S", TimeDelta::zero())]
    #[case("PT90S", TimeDelta::seconds(90))]
    #[case("P1DT2H3M4.5S", TimeDelta::seconds(93_784) + TimeDelta::milliseconds(500))]
    #[case("-PT1.000001S", -(TimeDelta::seconds(1) + TimeDelta::microseconds(1)))]
    fn durations_are_read(#[case] text: &str, #[case] meant: TimeDelta) {
        assert_eq!(IsoDuration::parse(text), Some(IsoDuration(meant)));
    }

    #[rstest]
    #[case("")]
    #[case("P")]
    #[case("1D")]
    #[case("P1Y")]
    #[case("PT1S2M")]
    #[case("PT-1S")]
    #[case("P99999999999999999999D")]
    fn other_text_is_refused(#[case] text: &str) {
        assert_eq!(IsoDuration::parse(text), None);
    }
}
