//! DAGs and their runs (`airflow/api_fastapi/execution_api/routes/{dags,dag_runs}.py`).

use gust_model::{DagRunState, record::Timestamp};
use gust_ports::{
    Tx,
    metastore::{DagRunFilter, Page, TimeRange},
};
use gust_python_host::messages::{
    DRCount, DagResult, DagRunStateResult, GetDRCount, GetDag, GetDagRun, GetDagRunState, GetPreviousDagRun,
    PrevSuccessfulDagRunResult, PreviousDagRunResult, Reply, ToTask,
};

use super::{Desk, refused};
use crate::{claim::wire_run, error::WorkerError};

fn no_run(dag_id: &str, run_id: &str) -> Reply {
    refused(404, "not_found", format!("Dag run with dag_id '{dag_id}' and run_id '{run_id}' was not found"))
}

/// The states of a list of names; an error names the one that is none.
fn states(names: Option<&[String]>) -> Result<Vec<DagRunState>, Reply> {
    names
        .unwrap_or_default()
        .iter()
        .map(|name| name.parse().map_err(|error| refused(422, "invalid", format!("{error}"))))
        .collect()
}

pub(super) fn on(date: Timestamp) -> TimeRange {
    TimeRange { gte: Some(date), lte: Some(date), ..TimeRange::default() }
}

/// The ranges to look at: one a date, or all dates. Dates that are named twice count once.
pub(super) fn date_ranges(dates: Option<&[Timestamp]>) -> Vec<TimeRange> {
    match dates {
        Some(dates) if !dates.is_empty() => {
            let mut dates = dates.to_vec();
            dates.sort_unstable();
            dates.dedup();
            dates.into_iter().map(on).collect()
        }
        _ => vec![TimeRange::default()],
    }
}

impl Desk {
    pub(super) async fn get_dag(&self, m: &GetDag) -> Result<Reply, WorkerError> {
        let mut tx = self.read().await?;
        Ok(match tx.dag(&m.dag_id.as_str().into()).await? {
            Some(dag) => ToTask::DagResult(DagResult {
                dag_id: dag.dag_id.to_string(),
                is_paused: dag.is_paused,
                bundle_name: Some(dag.bundle_name.to_string()),
                bundle_version: dag.bundle_version.map(|version| version.to_string()),
                relative_fileloc: Some(dag.relative_fileloc),
                owners: Some(dag.owners),
                tags: dag.tags,
                next_dagrun: dag.next_run.and_then(|next| next.logical_date),
            })
            .into(),
            None => refused(404, "not_found", format!("The Dag with dag_id: `{}` was not found", m.dag_id)),
        })
    }

    pub(super) async fn get_dag_run(&self, m: &GetDagRun) -> Result<Reply, WorkerError> {
        let mut tx = self.read().await?;
        Ok(match tx.dag_run(&m.dag_id.as_str().into(), &m.run_id.as_str().into()).await? {
            Some(run) => ToTask::DagRunResult(wire_run(&run, Vec::new())).into(),
            None => no_run(&m.dag_id, &m.run_id),
        })
    }

    pub(super) async fn dag_run_state(&self, m: &GetDagRunState) -> Result<Reply, WorkerError> {
        let mut tx = self.read().await?;
        Ok(match tx.dag_run(&m.dag_id.as_str().into(), &m.run_id.as_str().into()).await? {
            Some(run) => ToTask::DagRunStateResult(DagRunStateResult { state: run.state.to_string() }).into(),
            None => no_run(&m.dag_id, &m.run_id),
        })
    }

    pub(super) async fn count_dag_runs(&self, m: &GetDRCount) -> Result<Reply, WorkerError> {
        let states = match states(m.states.as_deref()) {
            Ok(states) => states,
            Err(reply) => return Ok(reply),
        };
        let mut tx = self.read().await?;
        let mut count = 0;
        for logical_date in date_ranges(m.logical_dates.as_deref()) {
            let filter = DagRunFilter {
                dag_ids: vec![m.dag_id.as_str().into()],
                run_ids: m.run_ids.iter().flatten().map(|id| id.as_str().into()).collect(),
                states: states.clone(),
                logical_date,
                ..DagRunFilter::default()
            };
            count += tx.dag_runs(&filter, &Page::first(1)).await?.total;
        }
        Ok(ToTask::DRCount(DRCount { count: i64::try_from(count).unwrap_or(i64::MAX) }).into())
    }

    pub(super) async fn previous_dag_run(&self, m: &GetPreviousDagRun) -> Result<Reply, WorkerError> {
        let wanted: Vec<String> = m.state.iter().cloned().collect();
        let states = match states(Some(&wanted)) {
            Ok(states) => states,
            Err(reply) => return Ok(reply),
        };
        let mut tx = self.read().await?;
        let found = tx.previous_dag_run(&m.dag_id.as_str().into(), m.logical_date, &states).await?;
        let dag_run = found.map(|run| wire_run(&run, Vec::new()));
        Ok(ToTask::PreviousDagRunResult(PreviousDagRunResult { dag_run }).into())
    }

    pub(super) async fn previous_successful_dag_run(&self) -> Result<Reply, WorkerError> {
        let asker = match self.asker() {
            Ok(asker) => asker,
            Err(reply) => return Ok(reply),
        };
        let mut tx = self.read().await?;
        let found = match asker.run.logical_date {
            Some(date) => previous_successful(&mut *tx, asker, date).await?,
            None => None,
        };
        let result = found.map_or(
            PrevSuccessfulDagRunResult {
                data_interval_start: None,
                data_interval_end: None,
                start_date: None,
                end_date: None,
            },
            |run| PrevSuccessfulDagRunResult {
                data_interval_start: run.data_interval_start,
                data_interval_end: run.data_interval_end,
                start_date: run.start_date,
                end_date: run.end_date,
            },
        );
        Ok(ToTask::PrevSuccessfulDagRunResult(result).into())
    }
}

async fn previous_successful(
    tx: &mut dyn Tx,
    asker: &super::Asker,
    before: Timestamp,
) -> Result<Option<gust_model::record::DagRun>, WorkerError> {
    Ok(tx.previous_dag_run(&asker.run.dag_id, before, &[DagRunState::Success]).await?)
}
