use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gust_model::{
    DagId, DagRunId, DagRunState, DagRunType,
    dag::Dag,
    record::{Asset, DagRecord, DagRun, Timestamp},
};
use gust_planner::{
    RunCreation, RunCreationFacts,
    assets::{AssetFacts, consumed_events, create_asset_run},
    create_due_run,
};
use gust_ports::{
    Ids, Tx, Wake,
    metastore::{
        AsMetastoreError as _, AssetEventFilter, DagGraphs, DagRunFilter, DagRunSort, Direction, Page,
        TimeRange, TxMode, transact,
    },
};
use gust_timetable::{AssetLeaf, Timetable, TimetableError};

use crate::{Scheduler, SchedulerError, graphs::graph_of};

/// How many due DAGs one pass takes on.
const DAGS: u32 = 64;

/// How many missed runs of one DAG one pass makes. The rest follows in the next pass; `max_active_runs` is usually
/// reached before.
const RUNS_PER_DAG: usize = 64;

/// The states of a run that count against `max_active_runs`.
const ACTIVE: &[DagRunState] = &[DagRunState::Queued, DagRunState::Running];

/// What making runs needs of the scheduler.
#[derive(Clone)]
struct Maker {
    graphs: Arc<DagGraphs>,
    ids: Arc<dyn Ids>,
}

/// Makes the runs that timetables have due. Returns those made.
pub(crate) async fn create_due_runs(scheduler: &Scheduler) -> Result<usize, SchedulerError> {
    let maker = Maker { graphs: Arc::clone(&scheduler.graphs), ids: Arc::clone(&scheduler.ids) };
    let made = transact(&*scheduler.store, TxMode::Write, |tx| {
        let maker = maker.clone();
        Box::pin(async move { maker.due_runs(tx).await })
    })
    .await?;
    announce(scheduler, &made).await;
    Ok(made.len())
}

/// Makes the runs whose assets were updated. Returns those made.
pub(crate) async fn create_asset_runs(scheduler: &Scheduler) -> Result<usize, SchedulerError> {
    let mut tx = scheduler.store.begin(TxMode::Read).await?;
    let waiting: BTreeSet<DagId> =
        tx.queued_asset_events(None).await?.into_iter().map(|queued| queued.dag_id).collect();
    tx.rollback().await?;
    let maker = Maker { graphs: Arc::clone(&scheduler.graphs), ids: Arc::clone(&scheduler.ids) };
    let mut count = 0;
    for dag_id in waiting {
        let made = transact(&*scheduler.store, TxMode::Write, |tx| {
            let (maker, dag_id) = (maker.clone(), dag_id.clone());
            Box::pin(async move { maker.asset_run(tx, &dag_id).await })
        })
        .await;
        let made = match made {
            Ok(made) => made,
            Err(error) if error.concerns_all() => return Err(error),
            Err(error) => {
                tracing::error!(%dag_id, %error, "no run was made for the DAG's assets");
                continue;
            }
        };
        count += usize::from(made.is_some());
        announce(scheduler, made.as_slice()).await;
    }
    Ok(count)
}

async fn announce(scheduler: &Scheduler, made: &[DagRun]) {
    for run in made {
        tracing::info!(dag_id = %run.dag_id, run_id = %run.run_id, "made a run");
        let wake = Wake::Run { dag_id: run.dag_id.clone(), run_id: run.run_id.clone(), plan: true };
        scheduler.wakeups.wake(wake).await;
    }
}

impl Maker {
    async fn due_runs(&self, tx: &mut dyn Tx) -> Result<Vec<DagRun>, SchedulerError> {
        let now = tx.now().await?;
        let mut made = Vec::new();
        for record in tx.lock_due_dags(now, DAGS).await? {
            let dag = match graph_of(&self.graphs, tx, &record.dag_id, record.current_version_id).await {
                Ok(dag) => dag,
                Err(error) if error.as_metastore_error().is_some() => return Err(error),
                // One DAG that cannot be read keeps no other from its runs.
                Err(error) => {
                    tracing::error!(dag_id = %record.dag_id, %error, "no run was made");
                    continue;
                }
            };
            match Timetable::from_serialized(&dag.timetable) {
                Ok(timetable) => made.extend(self.due_runs_of(tx, record, &dag, &timetable, now).await?),
                Err(error) => {
                    tracing::error!(dag_id = %record.dag_id, %error, "the timetable cannot be read");
                }
            }
        }
        Ok(made)
    }

    async fn due_runs_of(
        &self,
        tx: &mut dyn Tx,
        mut record: DagRecord,
        dag: &Dag,
        timetable: &Timetable,
        now: Timestamp,
    ) -> Result<Vec<DagRun>, SchedulerError> {
        let mut made = Vec::new();
        for _ in 0..RUNS_PER_DAG {
            let active = tx.count_dag_runs(&record.dag_id, ACTIVE, false).await?;
            let random = self.ids.random_letters();
            let facts = RunCreationFacts {
                record: &record,
                dag,
                timetable,
                active_runs: u32::try_from(active).unwrap_or(u32::MAX),
                exists_already: exists_already(tx, &record).await?,
                random: &random,
            };
            let next_run = match create_due_run(&facts, now) {
                RunCreation::NotDue | RunCreation::AtLimit => break,
                RunCreation::Skip { next_run, next_run_error } => {
                    report(&record, next_run_error.as_ref());
                    next_run
                }
                RunCreation::Create { run, next_run, next_run_error } => {
                    report(&record, next_run_error.as_ref());
                    let row = run.into_row(DagRunId(self.ids.fresh()), dag, &record, now);
                    if tx.insert_dag_run(&row).await? {
                        made.push(row);
                    }
                    next_run
                }
            };
            tx.set_next_run(&record.dag_id, next_run.as_ref()).await?;
            record.next_run = next_run;
        }
        Ok(made)
    }

    async fn asset_run(&self, tx: &mut dyn Tx, dag_id: &DagId) -> Result<Option<DagRun>, SchedulerError> {
        let Some(record) = tx.lock_dag(dag_id).await? else { return Ok(None) };
        let now = tx.now().await?;
        let dag = graph_of(&self.graphs, tx, dag_id, record.current_version_id).await?;
        let Ok(timetable) = Timetable::from_serialized(&dag.timetable) else { return Ok(None) };
        let Some(condition) = timetable.asset_condition() else {
            // The DAG's schedule changed since; what was noted for it means nothing now.
            tx.delete_queued_asset_events(dag_id).await?;
            return Ok(None);
        };
        let queued = tx.queued_asset_events(Some(dag_id)).await?;
        let assets: Vec<Asset> = all_assets(tx).await?;
        let mut aliases = BTreeMap::new();
        for leaf in condition.leaves() {
            if let AssetLeaf::Alias(alias) = leaf {
                let filter =
                    AssetEventFilter { alias: Some(alias.to_owned()), ..AssetEventFilter::default() };
                let of_alias =
                    tx.asset_events(&filter).await?.into_iter().map(|event| event.asset_id).collect();
                aliases.insert(alias.to_owned(), of_alias);
            }
        }
        let active = tx.count_dag_runs(dag_id, ACTIVE, false).await?;
        let random = self.ids.random_letters();
        let facts = AssetFacts {
            record: &record,
            timetable: &timetable,
            queued: &queued,
            assets: &assets,
            aliases: &aliases,
            active_runs: u32::try_from(active).unwrap_or(u32::MAX),
            random: &random,
        };
        let Some(decided) = create_asset_run(&facts) else { return Ok(None) };
        let previous = previous_asset_run(tx, dag_id).await?;
        let filter = AssetEventFilter {
            asset_ids: decided.used.iter().copied().collect(),
            timestamp: TimeRange { lte: Some(decided.run.run_after), ..TimeRange::default() },
            ascending: true,
            ..AssetEventFilter::default()
        };
        let events = tx.asset_events(&filter).await?;
        let waiting_since = queued.iter().map(|queued| queued.created_at).min();
        // A note's moment is its first event's own, so the floor lies just before it.
        let floor = waiting_since.map(|since| since - chrono::TimeDelta::microseconds(1));
        let consumed = consumed_events(
            &events,
            decided.run.run_after,
            previous.map(|run| run.run_after),
            dag.catchup,
            floor,
        );
        let row = decided.run.into_row(DagRunId(self.ids.fresh()), &dag, &record, now);
        if !tx.insert_dag_run(&row).await? {
            return Ok(None);
        }
        let event_ids: Vec<_> = consumed.iter().map(|event| event.id).collect();
        tx.link_consumed_events(row.id, &event_ids).await?;
        tx.delete_queued_asset_events(dag_id).await?;
        Ok(Some(row))
    }
}

fn report(record: &DagRecord, error: Option<&TimetableError>) {
    // A timetable of the user's own is asked by the DAG processor, at its next look.
    if let Some(error) = error.filter(|error| !matches!(error, TimetableError::AskPython { .. })) {
        tracing::warn!(dag_id = %record.dag_id, %error, "the timetable gives no further run");
    }
}

async fn exists_already(tx: &mut dyn Tx, record: &DagRecord) -> Result<bool, SchedulerError> {
    let Some(date) = record.next_run.as_ref().and_then(|next| next.logical_date) else { return Ok(false) };
    let filter = DagRunFilter {
        dag_ids: vec![record.dag_id.clone()],
        logical_date: TimeRange { gte: Some(date), lte: Some(date), ..TimeRange::default() },
        ..DagRunFilter::default()
    };
    Ok(tx.dag_runs(&filter, &Page::first(1)).await?.total > 0)
}

async fn previous_asset_run(tx: &mut dyn Tx, dag_id: &DagId) -> Result<Option<DagRun>, SchedulerError> {
    let filter = DagRunFilter {
        dag_ids: vec![dag_id.clone()],
        run_types: vec![DagRunType::AssetTriggered],
        ..DagRunFilter::default()
    };
    let page = Page { limit: 1, offset: 0, sort: vec![(DagRunSort::RunAfter, Direction::Descending)] };
    Ok(tx.dag_runs(&filter, &page).await?.items.into_iter().next())
}

async fn all_assets(tx: &mut dyn Tx) -> Result<Vec<Asset>, SchedulerError> {
    Ok(tx.assets(u32::MAX, 0).await?.items)
}
