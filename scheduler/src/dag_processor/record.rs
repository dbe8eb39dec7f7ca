use std::{collections::BTreeSet, sync::Arc};

use gust_model::{
    AssetId, BundleName, BundleVersion, DagId, DagVersionId,
    record::{Asset, DagRecord, DagRun, DagVersion, NextRun, Timestamp},
};
use gust_planner::{next_run_of, time_restriction};
use gust_ports::{
    Ids, NextRunQuestion, ParseJob, ParsedFile, Tx, Wake,
    metastore::{DagFilter, Page, TxMode, transact},
};
use gust_timetable::{AssetExpression, DataInterval, LastRun, Timetable, TimetableError};

use super::{DagFacts, DagProcessor};
use crate::SchedulerError;

/// What recording a file came to.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// The DAGs that serve in their newest form.
    pub dag_ids: BTreeSet<DagId>,
    /// The DAGs whose last good version keeps serving, since the file is broken now.
    pub kept: BTreeSet<DagId>,
    /// How many errors the file has.
    pub error_count: usize,
}

impl DagProcessor {
    /// Records what came of one file, in one transaction: its DAGs, their versions, and what is wrong with it.
    pub(super) async fn record(
        &self,
        bundle: &BundleName,
        version: &BundleVersion,
        job: &ParseJob,
        file: &ParsedFile,
    ) -> Result<Recorded, SchedulerError> {
        let mut errors = file.errors.clone();
        let mut facts = Vec::new();
        for serialized in &file.dags {
            match DagFacts::read(serialized) {
                Ok(mut dag) => {
                    if let Err(error) = self.ask_timetable(job, &mut dag).await? {
                        errors.push(error);
                    }
                    facts.push(dag);
                }
                Err(error) => errors.push(error),
            }
        }
        metrics::counter!("gust_files_parsed_total").increment(1);
        metrics::counter!("gust_import_errors_total").increment(errors.len() as u64);
        metrics::histogram!("gust_file_parse_seconds").record(file.duration.as_secs_f64());
        let facts = Arc::new(facts);
        let errors = Arc::new(errors);
        let work = RecordFile { processor: self.clone(), bundle: bundle.clone(), version: version.clone() };
        let (recorded, changed) = transact(&*self.store, TxMode::Write, |tx| {
            let (work, facts, errors, file) =
                (work.clone(), Arc::clone(&facts), Arc::clone(&errors), file.clone());
            Box::pin(async move { work.record(tx, &file, &facts, &errors).await })
        })
        .await?;
        for dag_id in changed {
            self.wakeups.wake(Wake::Dag { dag_id }).await;
        }
        Ok(recorded)
    }
}

impl DagProcessor {
    /// Asks a timetable that is the user's own class when it runs next. The inner error is the text of an import error:
    /// the DAG serves, but makes no runs by itself.
    async fn ask_timetable(
        &self,
        job: &ParseJob,
        facts: &mut DagFacts,
    ) -> Result<Result<(), String>, SchedulerError> {
        if !facts.timetable.must_ask_python() {
            return Ok(Ok(()));
        }
        let dag_id = &facts.dag.dag_id;
        let mut tx = self.store.begin(TxMode::Read).await?;
        let last = tx.last_automated_dag_run(dag_id).await?;
        tx.rollback().await?;
        let restriction = time_restriction(&facts.dag);
        let question = NextRunQuestion {
            timetable: facts.dag.timetable.clone(),
            last: last.map(|run| NextRun {
                run_after: run.run_after,
                logical_date: run.logical_date,
                data_interval_start: run.data_interval_start,
                data_interval_end: run.data_interval_end,
                partition_key: run.partition_key,
            }),
            earliest: restriction.earliest,
            latest: restriction.latest,
            catchup: restriction.catchup,
        };
        Ok(match self.parser.next_run(job, &question).await {
            Ok(next_run) => {
                facts.asked_next_run = next_run;
                Ok(())
            }
            Err(error) => Err(format!("the timetable of DAG {dag_id}: {error}")),
        })
    }
}

/// Recording files of one bundle version.
#[derive(Clone)]
struct RecordFile {
    processor: DagProcessor,
    bundle: BundleName,
    version: BundleVersion,
}

impl RecordFile {
    async fn record(
        &self,
        tx: &mut dyn Tx,
        file: &ParsedFile,
        facts: &[DagFacts],
        errors: &[String],
    ) -> Result<(Recorded, Vec<DagId>), SchedulerError> {
        let now = tx.now().await?;
        let mut errors = errors.to_vec();
        let mut recorded = Recorded::default();
        let mut changed = Vec::new();
        for dag in facts {
            match self.record_dag(tx, file, dag, now).await? {
                Outcome::DefinedElsewhere(other) => errors.push(format!(
                    "DAG {} is defined in {} as well as in {other}; rename one of them",
                    dag.dag.dag_id, file.relative_path
                )),
                Outcome::Recorded { is_changed } => {
                    if is_changed {
                        changed.push(dag.dag.dag_id.clone());
                    }
                    recorded.dag_ids.insert(dag.dag.dag_id.clone());
                }
            }
        }
        if !errors.is_empty() {
            recorded.kept = self.keep_last_good(tx, file, &recorded.dag_ids).await?;
        }
        recorded.error_count = errors.len();
        tx.replace_import_errors(&self.bundle, &file.relative_path, &errors, now).await?;
        Ok((recorded, changed))
    }

    /// Lets the DAGs that a broken file held before go on serving, and says of them that their file is broken.
    async fn keep_last_good(
        &self,
        tx: &mut dyn Tx,
        file: &ParsedFile,
        served: &BTreeSet<DagId>,
    ) -> Result<BTreeSet<DagId>, SchedulerError> {
        let filter = DagFilter {
            bundle_name: Some(self.bundle.clone()),
            relative_fileloc: Some(file.relative_path.clone()),
            is_stale: Some(false),
            ..DagFilter::default()
        };
        let mut kept = BTreeSet::new();
        for found in tx.dags(&filter, &Page::first(u32::MAX)).await?.items {
            if served.contains(&found.dag_id) {
                continue;
            }
            kept.insert(found.dag_id.clone());
            if found.has_import_errors {
                continue;
            }
            // Written whole, it must be read under its lock: a pause or a new run of a moment ago would be undone.
            if let Some(mut dag) = tx.lock_dag(&found.dag_id).await? {
                dag.has_import_errors = true;
                tx.put_dag(&dag).await?;
            }
        }
        Ok(kept)
    }

    async fn record_dag(
        &self,
        tx: &mut dyn Tx,
        file: &ParsedFile,
        facts: &DagFacts,
        now: Timestamp,
    ) -> Result<Outcome, SchedulerError> {
        let dag_id = &facts.dag.dag_id;
        let before = tx.lock_dag(dag_id).await?;
        if let Some(before) = &before
            && !before.is_stale
            && (before.bundle_name != self.bundle || before.relative_fileloc != file.relative_path)
            && self.still_holds(before)
        {
            return Ok(Outcome::DefinedElsewhere(before.relative_fileloc.clone()));
        }
        let current = match &before {
            Some(before) => tx.dag_version(before.current_version_id).await?,
            None => None,
        };
        let current_version_id = match &current {
            Some(current) if current.hash == facts.hash => current.id,
            _ => self.add_version(tx, facts, now).await?,
        };
        let next_run = if facts.timetable.must_ask_python() {
            facts.asked_next_run.clone()
        } else {
            next_run(tx, facts, now).await?
        };
        let record = self.dag_record(file, facts, before.as_ref(), current_version_id, next_run, now);
        let is_changed = before.as_ref().is_none_or(|before| {
            // When it was parsed, and how long that took, is no change that anybody waits for.
            let before = DagRecord {
                last_parsed_at: record.last_parsed_at,
                last_parse_duration: record.last_parse_duration,
                ..before.clone()
            };
            before != record
        });
        tx.put_dag(&record).await?;
        if is_changed {
            self.record_assets(tx, facts).await?;
        }
        Ok(Outcome::Recorded { is_changed })
    }

    /// Whether the file in which a DAG was last seen holds it still, as far as this look can tell. A moved DAG is seen
    /// in its new file first when that file sorts first; the bundle's version tells the two apart, since the other
    /// file's rows move to the newest version as soon as it is parsed.
    fn still_holds(&self, before: &DagRecord) -> bool {
        before.bundle_name != self.bundle || before.bundle_version.as_ref() == Some(&self.version)
    }

    async fn add_version(
        &self,
        tx: &mut dyn Tx,
        facts: &DagFacts,
        now: Timestamp,
    ) -> Result<DagVersionId, SchedulerError> {
        let dag_id = &facts.dag.dag_id;
        let newest = tx.dag_versions(dag_id).await?.first().map_or(0, |version| version.version_number);
        let version = DagVersion {
            id: DagVersionId(self.ids().fresh()),
            dag_id: dag_id.clone(),
            version_number: newest + 1,
            bundle_name: self.bundle.clone(),
            bundle_version: Some(self.version.clone()),
            hash: facts.hash.clone(),
            created_at: now,
        };
        tx.put_serialized_dag(&facts.hash, &facts.canonical).await?;
        tx.insert_dag_version(&version).await?;
        Ok(version.id)
    }

    fn dag_record(
        &self,
        file: &ParsedFile,
        facts: &DagFacts,
        before: Option<&DagRecord>,
        current_version_id: DagVersionId,
        next_run: Option<NextRun>,
        now: Timestamp,
    ) -> DagRecord {
        let dag = &facts.dag;
        let limit = facts.timetable.active_runs_limit().and_then(|limit| i32::try_from(limit).ok());
        DagRecord {
            dag_id: dag.dag_id.clone(),
            dag_display_name: dag.display_name.clone(),
            bundle_name: self.bundle.clone(),
            bundle_version: Some(self.version.clone()),
            relative_fileloc: file.relative_path.clone(),
            current_version_id,
            is_paused: before.map_or_else(
                || dag.is_paused_upon_creation.unwrap_or(self.processor.settings.paused_at_creation),
                |before| before.is_paused,
            ),
            is_stale: false,
            has_import_errors: false,
            description: dag.description.clone(),
            owners: dag.owners(),
            tags: dag.tags.iter().cloned().collect(),
            timetable_summary: Some(facts.timetable.summary()),
            timetable_description: Some(facts.timetable.description()),
            is_scheduled: facts.timetable.can_be_scheduled(),
            max_active_runs: limit.map_or(dag.max_active_runs, |limit| limit.min(dag.max_active_runs)),
            max_active_tasks: dag.max_active_tasks,
            max_consecutive_failed_dag_runs: i32::try_from(dag.max_consecutive_failed_dag_runs)
                .unwrap_or(i32::MAX),
            next_run,
            asset_expression: facts
                .timetable
                .asset_condition()
                .map(AssetExpression::as_expression)
                .unwrap_or_default(),
            last_parsed_at: now,
            last_parse_duration: file.duration.as_secs_f64(),
        }
    }

    async fn record_assets(&self, tx: &mut dyn Tx, facts: &DagFacts) -> Result<(), SchedulerError> {
        for named in &facts.assets {
            let asset = Asset {
                id: AssetId(self.ids().fresh()),
                name: named.name.clone(),
                uri: named.uri.clone(),
                group: named.group.clone(),
                extra: named.extra.clone(),
                is_active: true,
            };
            tx.put_asset(&asset).await?;
        }
        tx.replace_asset_references(&facts.dag.dag_id, &facts.references).await?;
        Ok(())
    }

    fn ids(&self) -> &dyn Ids {
        &*self.processor.ids
    }
}

/// When a timetable of Airflow's own runs next.
async fn next_run(
    tx: &mut dyn Tx,
    facts: &DagFacts,
    now: Timestamp,
) -> Result<Option<NextRun>, SchedulerError> {
    let last = match tx.last_automated_dag_run(&facts.dag.dag_id).await? {
        Some(run) => last_run(&facts.timetable, &run).map(Some),
        None => Ok(None),
    };
    let next = last.and_then(|last| next_run_of(&facts.dag, &facts.timetable, last.as_ref(), now));
    Ok(next.unwrap_or_else(|error| {
        tracing::warn!(dag_id = %facts.dag.dag_id, %error, "the timetable gives no next run");
        None
    }))
}

/// The last run that the timetable made, as the timetable wants to be told of it.
fn last_run(timetable: &Timetable, run: &DagRun) -> Result<LastRun, TimetableError> {
    let data_interval = match (run.data_interval_start, run.data_interval_end) {
        (Some(start), Some(end)) => Some(DataInterval { start, end }),
        _ => None,
    };
    timetable.last_run(run.run_after, data_interval, run.partition_key.as_deref())
}

enum Outcome {
    /// Another file holds a DAG of the same id; that one serves.
    DefinedElsewhere(String),
    /// It serves.
    Recorded {
        /// Whether anything but the moment of parsing is new.
        is_changed: bool,
    },
}
