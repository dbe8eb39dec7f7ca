//! What all listings share: pages, order, patterns, ranges of time.

use gust_ports::metastore::{Direction, Page, TimeRange};

use crate::{
    error::ApiError,
    inputs::{Inputs, Kind},
};

/// The most that one page holds (`[api] maximum_page_limit`).
const MAX_PAGE: i64 = 100;
/// What a page holds when nothing is said (`[api] fallback_page_limit`).
pub(super) const PAGE: i64 = 50;

pub(super) const TEXT_LIST: Kind = Kind::List(&crate::inputs::TEXT);
pub(super) const INT_LIST: Kind = Kind::List(&Kind::Int(i64::MIN));

/// The states by which runs are filtered.
pub(super) const RUN_STATES: &[&str] = &["queued", "running", "success", "failed"];
/// The types by which runs are filtered.
pub(super) const RUN_TYPES: &[&str] =
    &["backfill", "scheduled", "manual", "operator_triggered", "asset_triggered", "asset_materialization"];
/// The states by which task instances are filtered; `none` is the one without a name.
pub(super) const TI_STATES: &[&str] = &[
    "none",
    "scheduled",
    "queued",
    "running",
    "success",
    "restarting",
    "failed",
    "up_for_retry",
    "up_for_reschedule",
    "upstream_failed",
    "skipped",
    "deferred",
    "awaiting_input",
    "removed",
];

/// Declares the four bounds of each named moment as query fields, after other fields.
macro_rules! with_time_ranges {
    ([$($field:expr),* $(,)?], $($gte:literal $gt:literal $lte:literal $lt:literal),+ $(,)?) => {
        &[
            $($field,)*
            $(
                $crate::inputs::optional($gte, $crate::inputs::Kind::Time),
                $crate::inputs::optional($gt, $crate::inputs::Kind::Time),
                $crate::inputs::optional($lte, $crate::inputs::Kind::Time),
                $crate::inputs::optional($lt, $crate::inputs::Kind::Time),
            )+
        ]
    };
}
pub(super) use with_time_ranges;

/// The limit and the offset that were asked for.
pub(super) fn window(inputs: &Inputs, limit: &str, offset: &str) -> (u32, u32) {
    let wanted = match inputs.int(limit) {
        None | Some(0) => PAGE,
        Some(limit) => limit.min(MAX_PAGE),
    };
    let small = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    (small(wanted), small(inputs.int(offset).unwrap_or(0)))
}

/// The page that was asked for. `column` says what an attribute of Airflow's is sorted by.
pub(super) fn page<'i, S>(
    (limit, offset): (u32, u32),
    order: impl Iterator<Item = &'i str>,
    default: Vec<(S, Direction)>,
    column: impl Fn(&str) -> Option<S>,
) -> Result<Page<S>, ApiError> {
    let mut sort = Vec::new();
    for wanted in order {
        let (name, direction) = wanted
            .strip_prefix('-')
            .map_or((wanted, Direction::Ascending), |name| (name, Direction::Descending));
        let by = column(name).ok_or_else(|| bad_order(name))?;
        sort.push((by, direction));
    }
    Ok(Page { limit, offset, sort: if sort.is_empty() { default } else { sort } })
}

pub(super) fn bad_order(name: &str) -> ApiError {
    ApiError::bad_request(format!(
        "Ordering with '{name}' is disallowed or the attribute does not exist on the model"
    ))
}

/// The text that a name must hold. Airflow takes SQL's wildcards here; those at the ends change nothing, and `~` asks
/// for all.
pub(super) fn pattern(inputs: &Inputs, name: &str) -> Result<Option<String>, ApiError> {
    let Some(text) = inputs.text(name) else { return Ok(None) };
    let text = text.trim_matches('%');
    if text.contains('%') {
        return Err(ApiError::bad_request(format!(
            "{name} may have the wildcard % at its ends only; it looks for one text within the name"
        )));
    }
    Ok(Some(text).filter(|text| !text.is_empty() && *text != "~").map(str::to_owned))
}

/// The bounds on a moment.
pub(super) fn range(inputs: &Inputs, name: &str) -> TimeRange {
    let bound = |end: &str| inputs.time(&format!("{name}_{end}"));
    TimeRange { gte: bound("gte"), gt: bound("gt"), lte: bound("lte"), lt: bound("lt") }
}

/// Names read as values of a closed set; the shape of the request has let only known ones through.
pub(super) fn parsed<T: std::str::FromStr>(inputs: &Inputs, name: &str) -> Vec<T> {
    inputs.texts(name).filter_map(|text| text.parse().ok()).collect()
}
