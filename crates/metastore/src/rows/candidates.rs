//! What admission reads: the next candidates, and what is held of the limits.

use std::collections::BTreeMap;

use gust_model::{DagRunId, PoolName, TaskInstanceState, record::PoolUsage};
use gust_ports::{
    MetastoreError,
    metastore::{ActiveTask, Candidate, CandidateQuery},
};

use super::{
    read_all,
    task_instance_columns::{TI_COLUMNS, read},
};
use crate::{connection::SqlTx, dialect::values};

impl SqlTx {
    /// Candidates in the order of the index of scheduled rows. `CROSS JOIN` keeps SQLite from beginning with another
    /// table; PostgreSQL reads it as an inner join.
    pub(super) async fn next_candidates(
        &mut self,
        query: &CandidateQuery,
    ) -> Result<Vec<Candidate>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT ").raw(&TI_COLUMNS).raw(
            ", r.logical_date AS run_logical_date, ti.run_after AS run_run_after, \
             d.max_active_tasks AS dag_max_active_tasks \
             FROM task_instance ti CROSS JOIN dag_run r CROSS JOIN dag d \
             WHERE ti.state = 'scheduled' AND r.id = ti.dag_run_id AND r.state = 'running' \
             AND d.dag_id = ti.dag_id AND NOT d.is_paused",
        );
        if !query.starved_pools.is_empty() {
            let pools = query.starved_pools.iter().map(PoolName::as_str);
            statement.raw(" AND ti.pool NOT IN ").text_set(pools);
        }
        if !query.starved_runs.is_empty() {
            statement.raw(" AND ti.dag_run_id NOT IN (").list(query.starved_runs.iter().copied()).raw(")");
        }
        if !query.starved_tasks.is_empty() {
            let tasks = query.starved_tasks.iter().map(|(dag_id, task_id)| values![dag_id, task_id]);
            statement.raw(" AND (ti.dag_id, ti.task_id) NOT IN (").pairs(tasks).raw(")");
        }
        if !query.starved_tasks_of_runs.is_empty() {
            let tasks = query.starved_tasks_of_runs.iter().map(|(run, task_id)| values![*run, task_id]);
            statement.raw(" AND (ti.dag_run_id, ti.task_id) NOT IN (").pairs(tasks).raw(")");
        }
        if !query.except.is_empty() {
            statement.raw(" AND ti.id NOT IN (").list(query.except.iter().copied()).raw(")");
        }
        statement.add(" ORDER BY ti.priority_weight DESC, ti.run_after, ti.id LIMIT ?", values![query.limit]);
        let rows = self.all(statement).await?;
        read_all(&rows, |row| {
            let r = row.of("task_instance");
            Ok(Candidate {
                task_instance: read(row)?,
                logical_date: r.time_or_null("run_logical_date")?,
                run_after: r.time("run_run_after")?,
                max_active_tasks: r.small("dag_max_active_tasks")?,
            })
        })
    }

    pub(super) async fn count_active(&mut self) -> Result<Vec<ActiveTask>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw(
            "SELECT dag_id, dag_run_id, task_id, \
             count(CASE WHEN state IN ('queued', 'running') THEN 1 END) AS executing, \
             count(CASE WHEN state IN ('deferred', 'awaiting_input') THEN 1 END) AS waiting \
             FROM task_instance WHERE state IN ('queued', 'running', 'deferred', 'awaiting_input') \
             GROUP BY dag_id, dag_run_id, task_id ORDER BY dag_id, dag_run_id, task_id",
        );
        let rows = self.all(statement).await?;
        read_all(&rows, |row| {
            let r = row.of("task_instance");
            Ok(ActiveTask {
                dag_id: r.text("dag_id")?,
                dag_run_id: DagRunId(r.uuid("dag_run_id")?),
                task_id: r.text("task_id")?,
                executing: r.small("executing")?,
                waiting: r.small("waiting")?,
            })
        })
    }

    pub(super) async fn usage_of_pools(&mut self) -> Result<Vec<(PoolName, PoolUsage)>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw(
            "SELECT pool, state, CAST(sum(pool_slots) AS bigint) AS slots FROM task_instance \
             WHERE state IN ('scheduled', 'queued', 'running', 'deferred') \
             AND (state <> 'deferred' OR pool IN (SELECT name FROM pool WHERE include_deferred)) \
             GROUP BY pool, state",
        );
        let rows = self.all(statement).await?;
        let mut usage: BTreeMap<PoolName, PoolUsage> = BTreeMap::new();
        for row in &rows {
            let r = row.of("task_instance");
            let of_pool = usage.entry(r.text("pool")?).or_default();
            let slots = r.int("slots")?;
            match r.name::<TaskInstanceState>("state")? {
                TaskInstanceState::Running => of_pool.running += slots,
                TaskInstanceState::Queued => of_pool.queued += slots,
                TaskInstanceState::Scheduled => of_pool.scheduled += slots,
                _ => of_pool.deferred += slots,
            }
        }
        Ok(usage.into_iter().collect())
    }
}
