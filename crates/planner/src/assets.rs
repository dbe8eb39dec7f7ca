//! Runs that updates of assets make (`airflow/models/dag.py: dags_needing_dagruns`,
//! `airflow/jobs/scheduler_job_runner.py: _create_dag_runs_asset_triggered`).

use std::collections::{BTreeMap, BTreeSet};

use gust_model::{
    AssetId, DagRunState, DagRunType, RunId, TriggeredBy,
    record::{Asset, AssetEvent, DagRecord, QueuedAssetEvent, Timestamp},
};
use gust_timetable::{AssetLeaf, Timetable, generate_run_id};

use crate::CreatedRun;

/// What the decision whether assets make a run of a DAG rests on.
#[derive(Debug, Clone, Copy)]
pub struct AssetFacts<'a> {
    /// The DAG's row, locked.
    pub record: &'a DagRecord,
    /// Its timetable.
    pub timetable: &'a Timetable,
    /// The updates noted for it, locked.
    pub queued: &'a [QueuedAssetEvent],
    /// The assets that they are of.
    pub assets: &'a [Asset],
    /// Which assets each alias stands for, for the aliases in its condition.
    pub aliases: &'a BTreeMap<String, BTreeSet<AssetId>>,
    /// How many of its runs are queued or running.
    pub active_runs: u32,
    /// Eight random letters or digits, for the run id.
    pub random: &'a str,
}

/// A run made by assets.
#[derive(Debug, Clone, PartialEq)]
pub struct AssetRun {
    /// The run.
    pub run: CreatedRun,
    /// The notes that it uses up: these assets', for this DAG.
    pub used: BTreeSet<AssetId>,
}

/// Decides whether the updates noted for a DAG fulfil its condition, and makes its run if they do.
#[must_use]
pub fn create_asset_run(facts: &AssetFacts<'_>) -> Option<AssetRun> {
    let record = facts.record;
    if record.is_paused || record.is_stale || record.has_import_errors {
        return None;
    }
    if i64::from(facts.active_runs) >= i64::from(record.max_active_runs) {
        return None;
    }
    let condition = facts.timetable.asset_condition()?;
    let updated: BTreeSet<AssetId> = facts.queued.iter().map(|note| note.asset_id).collect();
    let is_updated = |matches: &dyn Fn(&Asset) -> bool| {
        facts.assets.iter().any(|asset| updated.contains(&asset.id) && matches(asset))
    };
    let is_fulfilled = condition.is_fulfilled(&mut |leaf| match leaf {
        AssetLeaf::Asset(wanted) => is_updated(&|asset| asset.name == wanted.name && asset.uri == wanted.uri),
        AssetLeaf::NameRef(name) => is_updated(&|asset| asset.name == name),
        AssetLeaf::UriRef(uri) => is_updated(&|asset| asset.uri == uri),
        AssetLeaf::Alias(alias) => {
            facts.aliases.get(alias).is_some_and(|assets| !assets.is_disjoint(&updated))
        }
    });
    if !is_fulfilled {
        return None;
    }
    let run_after = facts.queued.iter().map(|note| note.created_at).max()?;
    Some(AssetRun {
        run: CreatedRun {
            run_id: RunId::from(generate_run_id(DagRunType::AssetTriggered, None, run_after, facts.random)),
            run_type: DagRunType::AssetTriggered,
            triggered_by: TriggeredBy::Asset,
            state: DagRunState::Queued,
            logical_date: None,
            data_interval_start: None,
            data_interval_end: None,
            run_after,
            partition_key: None,
        },
        used: updated,
    })
}

/// The events that an asset-triggered run consumes, of those of its assets and aliases: after the `run_after` of the
/// asset-triggered run before it, and up to its own. The first run of a DAG without catchup begins where the DAG began
/// to wait for its assets (`waiting_since`).
#[must_use]
pub fn consumed_events(
    events: &[AssetEvent],
    run_after: Timestamp,
    previous_run_after: Option<Timestamp>,
    catchup: bool,
    waiting_since: Option<Timestamp>,
) -> Vec<&AssetEvent> {
    let floor = previous_run_after.or(if catchup { None } else { waiting_since });
    let mut consumed: Vec<&AssetEvent> = events
        .iter()
        .filter(|event| event.timestamp <= run_after && floor.is_none_or(|floor| event.timestamp > floor))
        .collect();
    consumed.sort_by_key(|event| (event.timestamp, event.id));
    consumed
}
