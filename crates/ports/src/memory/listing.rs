//! Filters, sorting and pages, as the port's documents say.

use std::cmp::Ordering;

use gust_model::record::Timestamp;

use super::table::{Key, Part};
use crate::metastore::{Direction, Listing, Page, TimeRange};

/// Whether a moment lies within a range.
pub(super) fn is_within(range: &TimeRange, moment: Option<Timestamp>) -> bool {
    if *range == TimeRange::default() {
        return true;
    }
    moment.is_some_and(|moment| {
        range.gte.is_none_or(|bound| moment >= bound)
            && range.gt.is_none_or(|bound| moment > bound)
            && range.lte.is_none_or(|bound| moment <= bound)
            && range.lt.is_none_or(|bound| moment < bound)
    })
}

/// Whether `wanted` binds and leaves `value` out. An empty list does not bind.
pub(super) fn is_among<T: PartialEq>(wanted: &[T], value: &T) -> bool {
    wanted.is_empty() || wanted.contains(value)
}

/// Whether a text holds another, in any case; an absent one does not bind.
pub(super) fn holds(wanted: Option<&str>, texts: &[&str]) -> bool {
    wanted.is_none_or(|wanted| {
        let wanted = wanted.to_lowercase();
        texts.iter().any(|text| text.to_lowercase().contains(&wanted))
    })
}

fn compare(a: Option<&Part>, b: Option<&Part>, direction: Direction) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if direction == Direction::Descending => b.cmp(a),
        (Some(a), Some(b)) => a.cmp(b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

/// One page of `rows`.
pub(super) fn page<T, S: Copy>(
    rows: Vec<T>,
    page: &Page<S>,
    column: impl Fn(&T, S) -> Option<Part>,
    identity: impl Fn(&T) -> Key,
) -> Listing<T> {
    let mut keyed: Vec<(Vec<Option<Part>>, Key, T)> = rows
        .into_iter()
        .map(|row| (page.sort.iter().map(|(sort, _)| column(&row, *sort)).collect(), identity(&row), row))
        .collect();
    keyed.sort_by(|a, b| {
        let columns = page.sort.iter().zip(a.0.iter().zip(&b.0));
        let ordered = columns.map(|((_, direction), (a, b))| compare(a.as_ref(), b.as_ref(), *direction));
        ordered.fold(Ordering::Equal, Ordering::then).then_with(|| a.1.cmp(&b.1))
    });
    slice(keyed.into_iter().map(|(_, _, row)| row).collect(), page.limit, page.offset)
}

/// One page of rows that are sorted already.
pub(super) fn slice<T>(rows: Vec<T>, limit: u32, offset: u32) -> Listing<T> {
    let total = rows.len() as u64;
    let items = rows.into_iter().skip(offset as usize).take(limit as usize).collect();
    Listing { items, total }
}
