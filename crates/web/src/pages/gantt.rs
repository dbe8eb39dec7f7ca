//! When a task ran within its run, as a bar.

use gust_model::record::Timestamp;
use maud::{Markup, html};

use super::{reads::Cell, view, view::Stated as _};

/// The time that the bars of one page span.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    start: Timestamp,
    seconds: f64,
}

impl Span {
    /// From the first queueing or start to the last end, or to now while something runs.
    pub(super) fn of<'c>(cells: impl Iterator<Item = &'c Cell>, now: Timestamp) -> Option<Self> {
        let mut start: Option<Timestamp> = None;
        let mut end: Option<Timestamp> = None;
        for cell in cells {
            let Some(first) = cell.queued.into_iter().chain(cell.start).min() else { continue };
            start = Some(start.map_or(first, |start| start.min(first)));
            let last = cell.end.unwrap_or(now);
            end = Some(end.map_or(last, |end| end.max(last)));
        }
        let (start, end) = (start?, end?);
        Some(Self { start, seconds: view::seconds_between(start, end).max(0.001) })
    }

    fn x(&self, at: Timestamp) -> f64 {
        (view::seconds_between(self.start, at) / self.seconds * 1000.0).clamp(0.0, 1000.0)
    }

    /// A task's bar: what it waited in the queue, then what it ran.
    pub(super) fn bar(&self, cell: &Cell, now: Timestamp) -> Markup {
        html! {
            @if let Some(start) = cell.start {
                @let (from, to) = (self.x(start), self.x(cell.end.unwrap_or(now)));
                @let queued = cell.queued.map_or(from, |queued| self.x(queued).min(from));
                svg.gantt.(cell.state().class()) viewBox="0 0 1000 14" preserveAspectRatio="none" aria-hidden="true" {
                    rect.track x="0" y="6" width="1000" height="2" {}
                    rect.wait x=(round(queued)) y="4" width=(round(from - queued)) height="6" {}
                    rect x=(round(from)) y="1" width=(round((to - from).max(4.0))) height="12" {}
                }
            }
        }
    }
}

fn round(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}
