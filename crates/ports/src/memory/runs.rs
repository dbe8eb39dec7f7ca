use std::{cmp::Reverse, collections::BTreeMap};

use async_trait::async_trait;
use gust_model::{
    DagId, DagRunId, DagRunState, DagRunType, RunId, TaskId, TaskInstanceState,
    record::{DagRecord, DagRun, TaskTally, Timestamp},
};

use super::{
    listing,
    table::{Part, Row, key},
    tables::{BY_DAG, BY_RUN, BY_RUN_ID, RunRow, TaskInstanceRow},
    transaction::{Transaction, View},
};
use crate::metastore::{
    DagRunFilter, DagRunPatch, DagRunSort, Listing, LockWait, MetastoreError, Page, RunRows,
};

fn matches(row: &RunRow, filter: &DagRunFilter) -> bool {
    let run = &row.run;
    listing::is_among(&filter.dag_ids, &run.dag_id)
        && listing::is_among(&filter.run_ids, &run.run_id)
        && listing::holds(filter.run_id_contains.as_deref(), &[run.run_id.as_str()])
        && listing::is_among(&filter.states, &run.state)
        && listing::is_among(&filter.run_types, &run.run_type)
        && listing::is_within(&filter.logical_date, run.logical_date)
        && listing::is_within(&filter.run_after, Some(run.run_after))
        && listing::is_within(&filter.start_date, run.start_date)
        && listing::is_within(&filter.end_date, run.end_date)
        && listing::is_within(&filter.updated_at, Some(row.updated_at))
}

fn sort_column(run: &DagRun, sort: DagRunSort) -> Option<Part> {
    match sort {
        DagRunSort::QueuedAt => Some(run.queued_at.into()),
        DagRunSort::DagId => Some(run.dag_id.as_str().into()),
        DagRunSort::RunId => Some(run.run_id.as_str().into()),
        DagRunSort::LogicalDate => run.logical_date.map(Part::from),
        DagRunSort::RunAfter => Some(run.run_after.into()),
        DagRunSort::StartDate => run.start_date.map(Part::from),
        DagRunSort::EndDate => run.end_date.map(Part::from),
        DagRunSort::State => Some(run.state.as_str().into()),
    }
}

fn apply(run: &mut DagRun, patch: &DagRunPatch) {
    macro_rules! set {
        ($($field:ident)+) => {$(if let Some(value) = &patch.$field { run.$field = value.clone(); })+};
    }
    set!(state queued_at start_date end_date dag_version_id bundle_version clear_number note unfinished_count);
    set!(under_way_count is_expanded is_dirty due_at);
    if let Some(at) = patch.last_scheduling_decision {
        run.last_scheduling_decision = Some(at);
    }
    run.change_seq += 1;
}

fn runs_of<'v>(view: &'v View<'_>, dag_id: &DagId) -> impl Iterator<Item = &'v DagRun> {
    view.find::<RunRow>(BY_DAG, key![dag_id.as_str()]).map(|row| &row.run)
}

/// When a task instance that rests goes on by time alone.
pub(super) fn rest_ends_at(row: &TaskInstanceRow) -> Option<Timestamp> {
    let rests =
        matches!(row.task_instance.state, TaskInstanceState::UpForRetry | TaskInstanceState::UpForReschedule);
    row.task_instance.due_at.filter(|_| rests)
}

fn is_paused(view: &View<'_>, dag_id: &DagId) -> bool {
    view.get::<DagRecord>(&key![dag_id.as_str()]).is_none_or(|dag| dag.is_paused)
}

/// How many runs of a DAG may begin beside those that run, backfills left out.
fn room_of(view: &View<'_>, dag_id: &DagId) -> i64 {
    let limit = view.get::<DagRecord>(&key![dag_id.as_str()]).map_or(0, |dag| i64::from(dag.max_active_runs));
    if limit <= 0 {
        return i64::MAX;
    }
    let running = view
        .find::<RunRow>(BY_DAG, key![dag_id.as_str()])
        .filter(|row| row.run.state == DagRunState::Running && row.run.run_type != DagRunType::Backfill);
    limit - i64::try_from(running.count()).unwrap_or(i64::MAX)
}

#[async_trait]
impl RunRows for Transaction {
    async fn dag_run(&mut self, dag_id: &DagId, run_id: &RunId) -> Result<Option<DagRun>, MetastoreError> {
        self.statement("dag_run").await?;
        Ok(self.read(|view| {
            let mut rows = view.find::<RunRow>(BY_RUN_ID, key![dag_id.as_str(), run_id.as_str()]);
            rows.next().map(|row| row.run.clone())
        }))
    }

    async fn dag_run_by_id(&mut self, id: DagRunId) -> Result<Option<DagRun>, MetastoreError> {
        self.statement("dag_run_by_id").await?;
        Ok(self.read(|view| view.get::<RunRow>(&key![id.0]).map(|row| row.run.clone())))
    }

    async fn lock_dag_run(&mut self, id: DagRunId, wait: LockWait) -> Result<Option<DagRun>, MetastoreError> {
        self.statement("lock_dag_run").await?;
        let keys = self.read(|view| view.get::<RunRow>(&key![id.0]).map(Row::key).into_iter().collect());
        let rows = self.lock_rows::<RunRow>(keys, wait, 1, |_| true).await?;
        Ok(rows.into_iter().next().map(|row| row.run))
    }

    async fn dag_runs(
        &mut self,
        filter: &DagRunFilter,
        page: &Page<DagRunSort>,
    ) -> Result<Listing<DagRun>, MetastoreError> {
        self.statement("dag_runs").await?;
        let runs = self.read(|view| {
            view.rows::<RunRow>().filter(|row| matches(row, filter)).map(|row| row.run.clone()).collect()
        });
        Ok(listing::page(runs, page, sort_column, |run| key![run.id.0]))
    }

    async fn newest_dag_runs(
        &mut self,
        dag_ids: &[DagId],
        per_dag: u32,
    ) -> Result<Vec<DagRun>, MetastoreError> {
        self.statement("newest_dag_runs").await?;
        Ok(self.read(|view| {
            let mut newest = Vec::new();
            for dag_id in dag_ids {
                let mut runs: Vec<&DagRun> = runs_of(view, dag_id).collect();
                runs.sort_by_key(|run| Reverse((run.run_after, run.id)));
                newest.extend(runs.into_iter().take(per_dag as usize).cloned());
            }
            newest
        }))
    }

    async fn insert_dag_run(&mut self, run: &DagRun) -> Result<bool, MetastoreError> {
        self.statement("insert_dag_run").await?;
        self.insert(RunRow { run: run.clone(), updated_at: self.clock_now() }).await
    }

    async fn update_dag_run(&mut self, id: DagRunId, patch: &DagRunPatch) -> Result<bool, MetastoreError> {
        self.statement("update_dag_run").await?;
        let Some(mut row) = self.lock_row::<RunRow>(&key![id.0], |_| true).await? else {
            return Ok(false);
        };
        apply(&mut row.run, patch);
        row.updated_at = self.clock_now();
        self.update(row).await?;
        Ok(true)
    }

    async fn delete_dag_run(&mut self, id: DagRunId) -> Result<bool, MetastoreError> {
        self.statement("delete_dag_run").await?;
        if self.delete::<RunRow>(vec![key![id.0]]).await?.is_empty() {
            return Ok(false);
        }
        self.delete_what_hangs_on_run(key![id.0]).await?;
        Ok(true)
    }

    async fn dag_runs_to_advance(
        &mut self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<DagRunId>, MetastoreError> {
        self.statement("dag_runs_to_advance").await?;
        Ok(self.read(|view| {
            let has_something = |run: &DagRun| {
                run.is_dirty
                    || run.due_at.is_some_and(|due| due <= now)
                    || view.find::<TaskInstanceRow>(BY_RUN, key![run.id.0]).any(|row| {
                        row.task_instance.is_dirty || rest_ends_at(row).is_some_and(|due| due <= now)
                    })
            };
            let running = view.rows::<RunRow>().map(|row| &row.run);
            let mut runs: Vec<&DagRun> =
                running.filter(|run| run.state == DagRunState::Running && has_something(run)).collect();
            // The run that was looked at longest ago goes first, so that a limit starves none.
            runs.sort_by_key(|run| (run.last_scheduling_decision, run.run_after, run.id));
            runs.into_iter().take(limit as usize).map(|run| run.id).collect()
        }))
    }

    async fn dag_runs_to_start(&mut self, now: Timestamp, limit: u32) -> Result<Vec<DagRun>, MetastoreError> {
        self.statement("dag_runs_to_start").await?;
        Ok(self.read(|view| {
            let queued = view.rows::<RunRow>().map(|row| &row.run);
            let mut runs: Vec<&DagRun> = queued
                .filter(|run| run.state == DagRunState::Queued && run.run_after <= now)
                .filter(|run| !is_paused(view, &run.dag_id))
                .collect();
            runs.sort_by_key(|run| (run.run_after, run.id));
            let mut room = BTreeMap::new();
            runs.retain(|run| {
                run.run_type == DagRunType::Backfill || {
                    let left = room.entry(&run.dag_id).or_insert_with(|| room_of(view, &run.dag_id));
                    *left -= 1;
                    *left >= 0
                }
            });
            runs.into_iter().take(limit as usize).cloned().collect()
        }))
    }

    async fn next_due_run_at(&mut self, now: Timestamp) -> Result<Option<Timestamp>, MetastoreError> {
        self.statement("next_due_run_at").await?;
        Ok(self.read(|view| {
            let mut moments = Vec::new();
            for run in view.rows::<RunRow>().map(|row| &row.run) {
                match run.state {
                    DagRunState::Running => {
                        moments.extend(run.due_at);
                        let rows = view.find::<TaskInstanceRow>(BY_RUN, key![run.id.0]);
                        moments.extend(rows.filter_map(rest_ends_at));
                    }
                    DagRunState::Queued if !is_paused(view, &run.dag_id) => moments.push(run.run_after),
                    _ => {}
                }
            }
            moments.into_iter().filter(|moment| *moment > now).min()
        }))
    }

    async fn count_dag_runs(
        &mut self,
        dag_id: &DagId,
        states: &[DagRunState],
        with_backfills: bool,
    ) -> Result<u64, MetastoreError> {
        self.statement("count_dag_runs").await?;
        Ok(self.read(|view| {
            let runs = runs_of(view, dag_id).filter(|run| states.contains(&run.state));
            runs.filter(|run| with_backfills || run.run_type != DagRunType::Backfill).count() as u64
        }))
    }

    async fn previous_dag_run(
        &mut self,
        dag_id: &DagId,
        before: Timestamp,
        states: &[DagRunState],
    ) -> Result<Option<DagRun>, MetastoreError> {
        self.statement("previous_dag_run").await?;
        Ok(self.read(|view| {
            runs_of(view, dag_id)
                .filter(|run| run.logical_date.is_some_and(|date| date < before))
                .filter(|run| listing::is_among(states, &run.state))
                .max_by_key(|run| run.logical_date)
                .cloned()
        }))
    }

    async fn following_dag_run(
        &mut self,
        dag_id: &DagId,
        after: Timestamp,
    ) -> Result<Option<DagRun>, MetastoreError> {
        self.statement("following_dag_run").await?;
        Ok(self.read(|view| {
            runs_of(view, dag_id)
                .filter(|run| run.logical_date.is_some_and(|date| date > after))
                .min_by_key(|run| run.logical_date)
                .cloned()
        }))
    }

    async fn last_automated_dag_run(&mut self, dag_id: &DagId) -> Result<Option<DagRun>, MetastoreError> {
        self.statement("last_automated_dag_run").await?;
        Ok(self.read(|view| {
            runs_of(view, dag_id)
                .filter(|run| matches!(run.run_type, DagRunType::Scheduled | DagRunType::Backfill))
                .filter(|run| run.logical_date.is_some())
                .max_by_key(|run| run.logical_date)
                .cloned()
        }))
    }

    async fn last_finished_states(
        &mut self,
        dag_id: &DagId,
        limit: u32,
    ) -> Result<Vec<DagRunState>, MetastoreError> {
        self.statement("last_finished_states").await?;
        Ok(self.read(|view| {
            let mut runs: Vec<&DagRun> =
                runs_of(view, dag_id).filter(|run| run.state.is_finished()).collect();
            runs.sort_by_key(|run| Reverse((run.run_after, run.id)));
            runs.into_iter().take(limit as usize).map(|run| run.state).collect()
        }))
    }

    async fn tallies(
        &mut self,
        dag_run_id: DagRunId,
        task_ids: &[TaskId],
    ) -> Result<Vec<TaskTally>, MetastoreError> {
        self.statement("tallies").await?;
        Ok(self.read(|view| {
            let tallies = view.find::<TaskTally>(BY_RUN, key![dag_run_id.0]);
            tallies.filter(|tally| listing::is_among(task_ids, &tally.task_id)).cloned().collect()
        }))
    }

    async fn put_tallies(&mut self, tallies: &[TaskTally]) -> Result<(), MetastoreError> {
        self.statement("put_tallies").await?;
        for tally in tallies {
            self.upsert(tally.clone()).await?;
        }
        Ok(())
    }
}
