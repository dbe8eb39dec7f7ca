use std::collections::BTreeMap;

use clap::Args;
use gust_model::{DagRunState, record::DagRun};
use gust_ports::metastore::{
    DagFilter, DagRunFilter, DagRunSort, DagSort, Direction, Page, TimeRange, TxMode,
};
use serde_json::Value;

use super::{UsageError, all_pages, find, moment};
use crate::{
    house::House,
    output::{Out, row, with},
};

/// `gust dags list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those whose id or name holds this text
    #[arg(long, value_name = "TEXT")]
    contains: Option<String>,
    /// Only those with any of these tags, separated by commas
    #[arg(long, value_name = "TAGS", value_delimiter = ',')]
    tags: Vec<String>,
    /// Only those of these owners, separated by commas
    #[arg(long, value_name = "OWNERS", value_delimiter = ',')]
    owners: Vec<String>,
    /// Only paused ones
    #[arg(long, conflicts_with = "active")]
    paused: bool,
    /// Only those that are not paused
    #[arg(long)]
    active: bool,
    /// Only those of this bundle
    #[arg(short = 'B', long, value_name = "NAME")]
    bundle_name: Option<String>,
    /// Also those which no file holds any more
    #[arg(short, long)]
    all: bool,
    /// The columns of the table, separated by commas
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "dag_id,schedule,is_paused,last_run,next_run,owners,tags,file"
    )]
    columns: Vec<String>,
}

/// `gust dags list-runs`.
#[derive(Debug, Args)]
pub struct ListRunsArgs {
    /// The DAG
    dag_id: String,
    /// Only those in this state
    #[arg(long, value_name = "STATE", value_parser = state)]
    state: Vec<DagRunState>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
    /// Only those whose logical date is not before this
    #[arg(short, long, value_name = "DATE")]
    start_date: Option<String>,
    /// Only those whose logical date is not after this
    #[arg(short, long, value_name = "DATE")]
    end_date: Option<String>,
    /// Leave out runs of backfills
    #[arg(long)]
    no_backfill: bool,
}

/// `gust dags list-import-errors`.
#[derive(Debug, Args)]
pub struct ImportErrorArgs {
    /// Only of this bundle
    #[arg(short = 'B', long, value_name = "NAME")]
    bundle_name: Option<String>,
}

fn state(text: &str) -> Result<DagRunState, String> {
    text.parse().map_err(|error: gust_model::state::UnknownName| error.to_string())
}

/// What a column of `gust dags list` shows.
fn column(name: &str) -> Result<&'static str, UsageError> {
    const COLUMNS: [(&str, &str); 17] = [
        ("dag_id", "dag_id"),
        ("name", "dag_display_name=name"),
        ("schedule", "timetable_summary=schedule"),
        ("timetable", "timetable_description=timetable"),
        ("is_paused", "is_paused"),
        ("is_stale", "is_stale"),
        ("last_run", "last_run.state=last_run"),
        ("last_run_id", "last_run.run_id=last_run_id"),
        ("next_run", "next_run.run_after=next_run"),
        ("owners", "owners"),
        ("tags", "tags"),
        ("description", "description"),
        ("file", "relative_fileloc=file"),
        ("fileloc", "relative_fileloc=fileloc"),
        ("bundle_name", "bundle_name"),
        ("bundle_version", "bundle_version"),
        ("last_parsed", "last_parsed_at=last_parsed"),
    ];
    COLUMNS.iter().find(|(known, _)| *known == name).map(|(_, column)| *column).ok_or_else(|| {
        let known: Vec<_> = COLUMNS.iter().map(|(known, _)| *known).collect();
        UsageError(format!("--columns: there is no {name:?}; there are {}", known.join(", ")))
    })
}

/// `gust dags list`.
pub async fn dags(house: &House, args: ListArgs, out: &mut Out) -> anyhow::Result<()> {
    let columns = args.columns.iter().map(|name| column(name.trim())).collect::<Result<Vec<_>, _>>()?;
    let filter = DagFilter {
        name_contains: args.contains,
        tags_any: args.tags,
        owners_any: args.owners,
        is_paused: if args.paused { Some(true) } else { args.active.then_some(false) },
        is_stale: (!args.all).then_some(false),
        bundle_name: args.bundle_name.map(Into::into),
        ..DagFilter::default()
    };
    let mut tx = house.store.begin(TxMode::Read).await?;
    let dags = all_pages!(u32::MAX, |limit, offset| {
        tx.dags(&filter, &Page { limit, offset, sort: vec![(DagSort::DagId, Direction::Ascending)] }).await?
    });
    let ids: Vec<_> = dags.iter().map(|dag| dag.dag_id.clone()).collect();
    let mut newest = BTreeMap::new();
    // The list of ids is part of the statement, whose length databases limit.
    for chunk in ids.chunks(500) {
        for run in tx.newest_dag_runs(chunk, 1).await? {
            newest.insert(run.dag_id.clone(), run);
        }
    }
    let mut rows = Vec::with_capacity(dags.len());
    for dag in &dags {
        let last = newest.get(&dag.dag_id).map(run_row).transpose()?.unwrap_or(Value::Null);
        rows.push(with(row(dag)?, [("last_run", last)]));
    }
    let broken = tx.import_errors(1, 0).await?.total;
    out.rows(&columns, &rows, "no DAGs")?;
    if broken > 0 {
        eprintln!("{broken} import errors: see `gust dags list-import-errors`");
    }
    Ok(())
}

fn run_row(run: &DagRun) -> anyhow::Result<Value> {
    let seconds = run.end_date.zip(run.start_date).map(|(end, start)| (end - start).as_seconds_f64());
    Ok(with(row(run)?, [("duration", seconds.into())]))
}

/// `gust dags list-runs`.
pub async fn runs(house: &House, args: ListRunsArgs, out: &mut Out) -> anyhow::Result<()> {
    use gust_model::DagRunType as T;
    let mut tx = house.store.begin(TxMode::Read).await?;
    let dag_id = find::dag(&mut *tx, &args.dag_id).await?.dag_id;
    let filter = DagRunFilter {
        dag_ids: vec![dag_id],
        states: args.state,
        run_types: if args.no_backfill {
            T::ALL.iter().copied().filter(|kind| *kind != T::Backfill).collect()
        } else {
            Vec::new()
        },
        logical_date: TimeRange {
            gte: moment::option("--start-date", args.start_date.as_deref(), &house.config)?,
            lte: moment::option("--end-date", args.end_date.as_deref(), &house.config)?,
            ..TimeRange::default()
        },
        ..DagRunFilter::default()
    };
    let sort = [(DagRunSort::RunAfter, Direction::Descending)];
    let runs = all_pages!(args.limit, |limit, offset| {
        tx.dag_runs(&filter, &Page { limit, offset, sort: sort.to_vec() }).await?
    });
    let rows = runs.iter().map(run_row).collect::<Result<Vec<_>, _>>()?;
    let columns =
        ["run_id", "state", "run_type", "logical_date", "run_after", "start_date", "end_date", "duration"];
    out.rows(&columns, &rows, "no runs")?;
    Ok(())
}

/// `gust dags list-import-errors`.
pub async fn import_errors(house: &House, args: ImportErrorArgs, out: &mut Out) -> anyhow::Result<()> {
    let mut tx = house.store.begin(TxMode::Read).await?;
    let mut errors = all_pages!(u32::MAX, |limit, offset| { tx.import_errors(limit, offset).await? });
    if let Some(bundle) = &args.bundle_name {
        errors.retain(|error| error.bundle_name == *bundle.as_str());
    }
    let rows = errors.iter().map(row).collect::<Result<Vec<_>, _>>()?;
    if out.is_structured() || rows.is_empty() {
        out.rows(&[], &rows, "no import errors")?;
        return Ok(());
    }
    // Tracebacks are too long for cells.
    for error in &errors {
        out.line(&format!(
            "{}/{}  ({})",
            error.bundle_name,
            error.filename,
            error.timestamp.format("%F %T UTC")
        ))?;
        for line in error.stack_trace.trim_end().lines() {
            out.line(&format!("    {line}"))?;
        }
        out.line("")?;
    }
    Ok(())
}
