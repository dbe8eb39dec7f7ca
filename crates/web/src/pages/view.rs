//! Small pieces that many pages show.

use chrono::SecondsFormat;
use gust_model::{DagRunState, DagRunType, TaskInstanceState, record::Timestamp};
use maud::{Markup, html};
use serde_json::Value;

use super::urls;

/// Something with a state's colour, name and class.
pub(super) trait Stated: Copy {
    /// The class that sets the colour.
    fn class(self) -> &'static str;
    /// The name as Airflow spells it.
    fn name(self) -> &'static str;
}

impl Stated for TaskInstanceState {
    fn class(self) -> &'static str {
        match self {
            Self::None => "s-none",
            Self::Scheduled => "s-scheduled",
            Self::Queued => "s-queued",
            Self::Running => "s-running",
            Self::Success => "s-success",
            Self::Restarting => "s-restarting",
            Self::Failed => "s-failed",
            Self::UpForRetry => "s-up_for_retry",
            Self::UpForReschedule => "s-up_for_reschedule",
            Self::UpstreamFailed => "s-upstream_failed",
            Self::Skipped => "s-skipped",
            Self::Deferred => "s-deferred",
            Self::AwaitingInput => "s-awaiting_input",
            Self::Removed => "s-removed",
        }
    }

    fn name(self) -> &'static str {
        self.as_str()
    }
}

impl Stated for DagRunState {
    fn class(self) -> &'static str {
        match self {
            Self::Queued => "s-queued",
            Self::Running => "s-running",
            Self::Success => "s-success",
            Self::Failed => "s-failed",
        }
    }

    fn name(self) -> &'static str {
        self.as_str()
    }
}

/// A state as a coloured square and its name.
pub(super) fn state(state: impl Stated) -> Markup {
    html! { span.state.(state.class()) { (state.name()) } }
}

/// A state as the badge of a page's head.
pub(super) fn badge(state: impl Stated) -> Markup {
    html! { span.badge.(state.class()) { (state.name()) } }
}

/// A moment to the second, in UTC.
pub(super) fn moment(at: Timestamp) -> String {
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}

/// A moment, or a dash.
pub(super) fn time(at: Option<Timestamp>) -> Markup {
    match at {
        None => html! { span.muted { "–" } },
        Some(at) => html! {
            time.nowrap datetime=(at.to_rfc3339_opts(SecondsFormat::Millis, true)) title={ (at.to_rfc3339_opts(SecondsFormat::Micros, true)) } {
                (moment(at))
            }
        },
    }
}

/// A moment by its distance from now, which a script keeps right.
pub(super) fn relative(at: Timestamp, now: Timestamp) -> Markup {
    let seconds = (at - now).num_seconds();
    let size = seconds.unsigned_abs();
    let text = match size {
        0..60 => format!("{size}s"),
        60..3600 => format!("{}m", size / 60),
        3600..86400 => format!("{}h", size / 3600),
        _ => format!("{}d", size / 86400),
    };
    let text = if seconds > 0 { format!("in {text}") } else { format!("{text} ago") };
    html! {
        time.nowrap data-rel datetime=(at.to_rfc3339_opts(SecondsFormat::Millis, true)) title={ (moment(at)) " UTC" } { (text) }
    }
}

/// A length of time, for people.
pub(super) fn duration(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "It is clamped to what fits."
    )]
    let whole = seconds.clamp(0.0, 1e12) as u64;
    match whole {
        0 => format!("{:.0} ms", seconds.max(0.0) * 1000.0),
        1..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{}m {:02}s", whole / 60, whole % 60),
        3600..86400 => format!("{}h {:02}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d {}h", whole / 86400, whole % 86400 / 3600),
    }
}

/// Seconds between two moments.
pub(super) fn seconds_between(start: Timestamp, end: Timestamp) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "Milliseconds of centuries fit.")]
    let milliseconds = (end - start).num_milliseconds() as f64;
    milliseconds / 1000.0
}

/// How long something took, or, while it runs, a count that a script keeps right.
pub(super) fn took(start: Option<Timestamp>, end: Option<Timestamp>, now: Timestamp) -> Markup {
    match (start, end) {
        (Some(start), Some(end)) => html! { span.nowrap { (duration(seconds_between(start, end))) } },
        (Some(start), None) => html! {
            span.nowrap data-since=(start.to_rfc3339_opts(SecondsFormat::Millis, true)) {
                (duration(seconds_between(start, now)))
            }
        },
        _ => html! { span.muted { "–" } },
    }
}

/// Tags as chips.
pub(super) fn tags<'t>(tags: impl IntoIterator<Item = &'t str>) -> Markup {
    html! {
        span.tags {
            @for tag in tags { a.tag href={ "/" (urls::query(&[("tag", tag)])) } title=(tag) { (tag) } }
        }
    }
}

/// JSON over several lines; a text that is JSON itself is shown as a text.
pub(super) fn json(value: &Value) -> Markup {
    let text = serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string());
    html! { pre.json { (text) } }
}

/// A run's kind as one letter for narrow places.
pub(super) fn kind_letter(kind: DagRunType) -> &'static str {
    match kind {
        DagRunType::Scheduled => "",
        DagRunType::Manual => "▸",
        DagRunType::Backfill => "B",
        DagRunType::OperatorTriggered => "▹",
        DagRunType::AssetTriggered | DagRunType::AssetMaterialization => "A",
    }
}

/// What the colours mean.
pub(super) fn legend(states: &[TaskInstanceState]) -> Markup {
    html! {
        div.legend aria-label="Colours" {
            @for one in states { (state(*one)) }
        }
    }
}

/// A page's number from its query, the first if it is none.
pub(super) fn page_number(text: Option<&str>) -> u32 {
    text.and_then(|text| text.parse().ok()).filter(|page| (1..=100_000).contains(page)).unwrap_or(1)
}

/// Links to the pages before and after; `address` makes the address of a page.
pub(super) fn pager(page: u32, per_page: u32, total: u64, address: impl Fn(u32) -> String) -> Markup {
    let first = u64::from(page - 1) * u64::from(per_page) + 1;
    let last = (u64::from(page) * u64::from(per_page)).min(total);
    html! {
        @if total > u64::from(per_page) {
            nav.pager aria-label="Pages" {
                span { (first.min(total)) "–" (last) " of " (total) }
                @if page > 1 { a.button href=(address(page - 1)) rel="prev" { "‹ Previous" } }
                @if last < total { a.button href=(address(page + 1)) rel="next" { "Next ›" } }
            }
        }
    }
}
