//! What admission reads: who counts against limits, who holds pools' slots, and who waits for them.

use std::{cmp::Reverse, collections::BTreeMap};

use gust_model::{
    DagRunState, PoolName, TaskInstanceState,
    record::{DagRecord, Pool, PoolUsage},
};

use super::{
    table::key,
    tables::{RunRow, TaskInstanceRow},
    transaction::View,
};
use crate::metastore::{ActiveTask, Candidate, CandidateQuery};

/// What is held of each pool that somebody uses.
pub(super) fn pool_usage(view: &View<'_>) -> Vec<(PoolName, PoolUsage)> {
    let mut usage: BTreeMap<PoolName, PoolUsage> = BTreeMap::new();
    for row in view.rows::<TaskInstanceRow>().map(|row| &row.task_instance) {
        let counts_deferred =
            || view.get::<Pool>(&key![row.pool.as_str()]).is_some_and(|pool| pool.include_deferred);
        let held: fn(&mut PoolUsage) -> &mut i64 = match row.state {
            TaskInstanceState::Running => |usage| &mut usage.running,
            TaskInstanceState::Queued => |usage| &mut usage.queued,
            TaskInstanceState::Scheduled => |usage| &mut usage.scheduled,
            TaskInstanceState::Deferred if counts_deferred() => |usage| &mut usage.deferred,
            _ => continue,
        };
        *held(usage.entry(row.pool.clone()).or_default()) += i64::from(row.pool_slots);
    }
    usage.into_iter().collect()
}

/// How many instances of each task of each run are active, by DAG, run and task.
pub(super) fn active_tasks(view: &View<'_>) -> Vec<ActiveTask> {
    let mut counts = BTreeMap::new();
    for row in view.rows::<TaskInstanceRow>().map(|row| &row.task_instance) {
        let (executing, waiting) = match row.state {
            TaskInstanceState::Queued | TaskInstanceState::Running => (1, 0),
            TaskInstanceState::Deferred | TaskInstanceState::AwaitingInput => (0, 1),
            _ => continue,
        };
        let count: &mut (u32, u32) =
            counts.entry((row.dag_id.clone(), row.dag_run_id, row.task_id.clone())).or_default();
        count.0 += executing;
        count.1 += waiting;
    }
    counts
        .into_iter()
        .map(|((dag_id, dag_run_id, task_id), (executing, waiting))| ActiveTask {
            dag_id,
            dag_run_id,
            task_id,
            executing,
            waiting,
        })
        .collect()
}

/// The next candidates for admission, the heaviest first, then the earliest run, then by id.
pub(super) fn candidates(view: &View<'_>, query: &CandidateQuery) -> Vec<Candidate> {
    let mut found = Vec::new();
    for row in view.rows::<TaskInstanceRow>().map(|row| &row.task_instance) {
        let is_left_out = row.state != TaskInstanceState::Scheduled
            || query.starved_pools.contains(&row.pool)
            || query.starved_runs.contains(&row.dag_run_id)
            || query.starved_tasks.iter().any(|(dag, task)| *dag == row.dag_id && *task == row.task_id)
            || query
                .starved_tasks_of_runs
                .iter()
                .any(|(run, task)| *run == row.dag_run_id && *task == row.task_id)
            || query.except.contains(&row.id);
        if is_left_out {
            continue;
        }
        let Some(run) = view.get::<RunRow>(&key![row.dag_run_id.0]).map(|row| &row.run) else { continue };
        let Some(dag) = view.get::<DagRecord>(&key![row.dag_id.as_str()]) else { continue };
        if run.state == DagRunState::Running && !dag.is_paused {
            found.push((row, run, dag.max_active_tasks));
        }
    }
    found.sort_by_key(|(row, run, _)| (Reverse(row.priority_weight), run.run_after, row.id));
    let first = found.into_iter().take(query.limit as usize);
    first
        .map(|(row, run, max_active_tasks)| Candidate {
            task_instance: row.clone(),
            logical_date: run.logical_date,
            run_after: run.run_after,
            max_active_tasks,
        })
        .collect()
}
