//! Why a task instance does not start yet.

use gust_model::{
    DagRunState, TaskInstanceState,
    dag::{Dag, TaskIndex, TriggerRule},
    record::{DagRun, TaskInstance, UpstreamTally},
};
use gust_planner::{RuleVerdict, evaluate_trigger_rule};
use gust_ports::Tx;

use crate::{OperationError, graph::dag_of_version};

/// A condition that is not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockingDependency {
    /// Which, under Airflow's name.
    pub name: &'static str,
    /// Why it is not met.
    pub reason: String,
}

/// What keeps a task instance that nothing is decided about, or that waits for slots, from starting, by name; nothing
/// for others (`airflow/ti_deps/dependencies_deps.py: SCHEDULER_QUEUED_DEPS`).
///
/// # Errors
/// [`OperationError::Unreadable`] if its graph cannot be read.
pub async fn blocking_dependencies(
    tx: &mut dyn Tx,
    row: &TaskInstance,
) -> Result<Vec<BlockingDependency>, OperationError> {
    if !matches!(row.state, TaskInstanceState::None | TaskInstanceState::Scheduled) {
        return Ok(Vec::new());
    }
    let Some(run) = tx.dag_run_by_id(row.dag_run_id).await? else { return Ok(Vec::new()) };
    let Some(dag) = dag_of_version(tx, run.dag_version_id).await? else { return Ok(Vec::new()) };
    let Some(task) = dag.index_of(row.task_id.as_str()) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    let mut add = |name, reason: Option<String>| {
        found.extend(reason.map(|reason| BlockingDependency { name, reason }));
    };
    let is_paused = tx.dag(&run.dag_id).await?.is_some_and(|record| record.is_paused);
    add("Dag Not Paused", is_paused.then(|| format!("Dag '{}' is paused.", run.dag_id)));
    let state = run.state;
    add(
        "Dagrun Running",
        (state != DagRunState::Running)
            .then(|| format!("Task instance's dagrun was not running but in the state '{state}'.")),
    );
    add("Pool Slots Available", pool(tx, row).await?);
    add("Previous Dagrun State", past(tx, &dag, task, &run, row).await?);
    add("Trigger Rule", rule(tx, &dag, task, row).await?);
    Ok(found)
}

async fn pool(tx: &mut dyn Tx, row: &TaskInstance) -> Result<Option<String>, OperationError> {
    let Some(pool) = tx.pools().await?.into_iter().find(|pool| pool.name == row.pool) else {
        return Ok(Some(format!("Tasks using non-existent pool '{}' will not be scheduled", row.pool)));
    };
    if pool.slots < 0 {
        return Ok(None);
    }
    let usage = tx.pool_usage().await?.into_iter().find(|(name, _)| *name == row.pool);
    let held = usage.map_or(0, |(_, usage)| {
        usage.running + usage.queued + if pool.include_deferred { usage.deferred } else { 0 }
    });
    let open = i64::from(pool.slots) - held;
    Ok((open < i64::from(row.pool_slots)).then(|| {
        format!(
            "Not scheduling since there are {open} open slots in pool {} and require {} pool slots",
            row.pool, row.pool_slots
        )
    }))
}

async fn past(
    tx: &mut dyn Tx,
    dag: &Dag,
    task: TaskIndex,
    run: &DagRun,
    row: &TaskInstance,
) -> Result<Option<String>, OperationError> {
    let (true, Some(date)) = (dag.task(task).depends_on_past, run.logical_date) else { return Ok(None) };
    let Some(previous) = tx.previous_dag_run(&run.dag_id, date, &[]).await? else { return Ok(None) };
    let Some(before) = tx.task_instance_at(previous.id, &row.task_id, row.map_index).await? else {
        return Ok(None);
    };
    let is_well = matches!(before.state, TaskInstanceState::Success | TaskInstanceState::Skipped);
    Ok((!is_well).then(|| {
        format!(
            "depends_on_past is true for this task, but 1 previous task instance(s) are not in a successful state: \
             it is {} in run {}",
            before.state, before.run_id
        )
    }))
}

async fn rule(
    tx: &mut dyn Tx,
    dag: &Dag,
    task: TaskIndex,
    row: &TaskInstance,
) -> Result<Option<String>, OperationError> {
    let links = dag.links(task);
    let rule = dag.task(task).trigger_rule;
    if links.upstream.is_empty() || rule == TriggerRule::Always {
        return Ok(None);
    }
    let ids: Vec<_> = links.upstream.iter().map(|before| dag.task(*before).task_id.clone()).collect();
    let mut rows = tx.task_instances_of(row.dag_run_id, &ids).await?;
    // Within a mapped group each index looks at its own.
    rows.retain(|before| {
        let is_beside = dag
            .index_of(before.task_id.as_str())
            .is_some_and(|index| links.index_upstream.iter().any(|(other, _)| *other == index));
        !is_beside || before.map_index == row.map_index || !row.map_index.is_mapped()
    });
    let counts = tally(dag, &rows);
    if evaluate_trigger_rule(rule, &counts, row.map_index) == RuleVerdict::Met {
        return Ok(None);
    }
    let names: Vec<String> = ids.iter().map(|id| format!("'{id}'")).collect();
    Ok(Some(format!(
        "Task's trigger rule '{}' is not met: of {} upstream task instances {} succeeded, {} were skipped, {} failed, \
         {} are upstream_failed and {} are done; upstream_task_ids={{{}}}",
        rule.as_str(),
        counts.total,
        counts.success,
        counts.skipped,
        counts.failed,
        counts.upstream_failed,
        counts.done(),
        names.join(", ")
    )))
}

fn tally(dag: &Dag, rows: &[TaskInstance]) -> UpstreamTally {
    use TaskInstanceState as S;
    let mut counts = UpstreamTally::default();
    for row in rows {
        let is_setup = dag.index_of(row.task_id.as_str()).is_some_and(|task| dag.task(task).is_setup);
        let setup = u32::from(is_setup);
        counts.total += 1;
        counts.setup_total += setup;
        match row.state {
            S::Success => {
                counts.success += 1;
                counts.success_setup += setup;
            }
            S::Skipped => {
                counts.skipped += 1;
                counts.skipped_setup += setup;
            }
            S::Failed => counts.failed += 1,
            S::UpstreamFailed => counts.upstream_failed += 1,
            S::Removed => counts.removed += 1,
            _ => {}
        }
    }
    counts
}
