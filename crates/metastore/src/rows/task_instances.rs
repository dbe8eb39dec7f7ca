use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use gust_model::{
    AttemptId, DagId, DagRunId, Epoch, MapIndex, PoolName, QueueName, RunId, TaskId, TaskInstanceId,
    record::{Pool, PoolUsage, TaskInstance, TaskReschedule, Timestamp},
};
use gust_ports::{
    MetastoreError,
    metastore::{
        ActiveTask, Candidate, CandidateQuery, Listing, Page, Renewal, TaskInstanceFilter, TaskInstanceRows,
        TaskInstanceSort, TaskInstanceWrite,
    },
};

use super::{
    did_change,
    filters::{Conditions, order_of},
    page_of, read_all,
    task_instance_columns::{COLUMNS, PLACES, TI_COLUMNS, read, values_of},
};
use crate::{
    connection::SqlTx,
    dialect::{Statement, batches, values},
};

fn sort_column(sort: TaskInstanceSort) -> &'static str {
    match sort {
        TaskInstanceSort::TaskId => "ti.task_id",
        TaskInstanceSort::MapIndex => "ti.map_index",
        TaskInstanceSort::State => "ti.state",
        TaskInstanceSort::StartDate => "ti.start_date",
        TaskInstanceSort::EndDate => "ti.end_date",
        TaskInstanceSort::LogicalDate => "r.logical_date",
        TaskInstanceSort::RunAfter => "ti.run_after",
        TaskInstanceSort::TryNumber => "ti.try_number",
        TaskInstanceSort::QueuedAt => "ti.queued_at",
    }
}

fn matching(statement: &mut Statement, filter: &TaskInstanceFilter) {
    statement.raw("FROM task_instance ti JOIN dag_run r ON r.id = ti.dag_run_id");
    let mut conditions = Conditions::new(statement);
    conditions.one_of("ti.dag_run_id", filter.dag_run_ids.iter().copied());
    conditions.one_of_texts("ti.dag_id", filter.dag_ids.iter().map(DagId::as_str));
    conditions.one_of_texts("ti.run_id", filter.run_ids.iter().map(RunId::as_str));
    conditions.one_of_texts("ti.task_id", filter.task_ids.iter().map(TaskId::as_str));
    if let Some(name) = &filter.name_contains {
        conditions.and().raw("(").holds_in_any_case("ti.task_id", name).raw(" OR ");
        conditions.statement().holds_in_any_case("coalesce(ti.task_display_name, '')", name).raw(")");
    }
    conditions.one_of("ti.map_index", filter.map_indexes.iter().copied());
    conditions.one_of("ti.state", filter.states.iter().copied());
    conditions.one_of_texts("ti.pool", filter.pools.iter().map(PoolName::as_str));
    conditions.one_of_texts("ti.queue", filter.queues.iter().map(QueueName::as_str));
    conditions.one_of_texts("ti.operator", filter.operators.iter().map(String::as_str));
    conditions.within("r.logical_date", &filter.logical_date);
    conditions.within("ti.run_after", &filter.run_after);
    conditions.within("ti.start_date", &filter.start_date);
    conditions.within("ti.end_date", &filter.end_date);
    conditions.within("ti.updated_at", &filter.updated_at);
}

impl SqlTx {
    /// Task instances that what follows `WHERE` selects.
    pub(super) async fn task_instances_where(
        &mut self,
        condition: impl FnOnce(&mut Statement),
    ) -> Result<Vec<TaskInstance>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT ").raw(&COLUMNS).raw(" FROM task_instance WHERE ");
        condition(&mut statement);
        let rows = self.all(statement).await?;
        read_all(&rows, read)
    }

    /// When the runs of these rows may start at the earliest, which the rows repeat.
    async fn run_afters(
        &mut self,
        rows: &[TaskInstance],
    ) -> Result<BTreeMap<DagRunId, Timestamp>, MetastoreError> {
        let ids: std::collections::BTreeSet<DagRunId> = rows.iter().map(|row| row.dag_run_id).collect();
        let mut statement = self.statement();
        statement.raw("SELECT id, run_after FROM dag_run WHERE id IN (").list(ids).raw(")");
        let found = self.all(statement).await?;
        found
            .iter()
            .map(|row| {
                let r = row.of("dag_run");
                Ok((DagRunId(r.uuid("id")?), r.time("run_after")?))
            })
            .collect()
    }
}

fn read_pool(row: &crate::connection::Row) -> Result<Pool, MetastoreError> {
    let r = row.of("pool");
    Ok(Pool {
        name: r.text("name")?,
        slots: r.small("slots")?,
        description: r.text_or_null("description")?,
        include_deferred: r.flag("include_deferred")?,
    })
}

#[async_trait]
impl TaskInstanceRows for SqlTx {
    async fn task_instance(&mut self, id: TaskInstanceId) -> Result<Option<TaskInstance>, MetastoreError> {
        let mut found = self
            .task_instances_where(|statement| {
                statement.add("id = ?", values![id]);
            })
            .await?;
        Ok(found.pop())
    }

    async fn task_instance_at(
        &mut self,
        dag_run_id: DagRunId,
        task_id: &TaskId,
        map_index: MapIndex,
    ) -> Result<Option<TaskInstance>, MetastoreError> {
        let mut found = self
            .task_instances_where(|statement| {
                statement.add(
                    "dag_run_id = ? AND task_id = ? AND map_index = ?",
                    values![dag_run_id, task_id, map_index],
                );
            })
            .await?;
        Ok(found.pop())
    }

    async fn task_instances(
        &mut self,
        filter: &TaskInstanceFilter,
        page: &Page<TaskInstanceSort>,
    ) -> Result<Listing<TaskInstance>, MetastoreError> {
        let order = order_of(page, sort_column, "ti.id");
        let matching = |statement: &mut Statement| matching(statement, filter);
        page_of(self, &TI_COLUMNS, matching, &order, (page.limit, page.offset), read).await
    }

    async fn task_instances_of(
        &mut self,
        dag_run_id: DagRunId,
        task_ids: &[TaskId],
    ) -> Result<Vec<TaskInstance>, MetastoreError> {
        self.task_instances_where(|statement| {
            statement.add("dag_run_id = ?", values![dag_run_id]);
            if !task_ids.is_empty() {
                statement.raw(" AND task_id IN ").text_set(task_ids.iter().map(TaskId::as_str));
            }
            statement.raw(" ORDER BY task_id, map_index");
        })
        .await
    }

    async fn lock_changed_task_instances(
        &mut self,
        dag_run_id: DagRunId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<TaskInstance>, MetastoreError> {
        self.lock_changed(dag_run_id, now, limit).await
    }

    async fn insert_task_instances(&mut self, rows: &[TaskInstance]) -> Result<(), MetastoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let run_afters = self.run_afters(rows).await?;
        for rows in batches(rows) {
            let mut statement = self.statement();
            statement.raw("INSERT INTO task_instance (").raw(&COLUMNS).raw(", run_after) VALUES ");
            for (i, row) in rows.iter().enumerate() {
                let Some(&run_after) = run_afters.get(&row.dag_run_id) else {
                    return Err(MetastoreError::Refused(format!(
                        "task instance {} belongs to run {}, which does not exist",
                        row.id, row.dag_run_id
                    )));
                };
                statement.raw(if i == 0 { "" } else { ", " }).add(&PLACES, values_of(row));
                statement.add(", ?)", values![run_after]);
            }
            self.run(statement).await?;
        }
        Ok(())
    }

    async fn update_task_instances(
        &mut self,
        writes: &[TaskInstanceWrite],
    ) -> Result<Vec<TaskInstanceId>, MetastoreError> {
        self.write(writes).await
    }

    async fn delete_task_instances(&mut self, ids: &[TaskInstanceId]) -> Result<(), MetastoreError> {
        for ids in batches(ids) {
            let mut statement = self.statement();
            statement.raw("DELETE FROM task_instance WHERE id IN (").list(ids.iter().copied()).raw(")");
            self.run(statement).await?;
        }
        Ok(())
    }

    async fn claim_task_instance(
        &mut self,
        id: TaskInstanceId,
        epoch: Epoch,
        attempt_id: AttemptId,
        ttl: Duration,
        hostname: &str,
        pid: i32,
    ) -> Result<Option<TaskInstance>, MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "UPDATE task_instance SET change_seq = change_seq + 1, updated_at = {now}, state = 'running', \
             start_date = CASE WHEN next_method IS NULL THEN {now} ELSE start_date END, \
             hostname = ?, pid = ?, lease_attempt_id = ?, lease_expires_at = ",
            values![hostname, pid, attempt_id],
        );
        statement.now_plus(ttl);
        statement.add(" WHERE id = ? AND epoch = ? AND state = 'queued' RETURNING ", values![id, epoch]);
        statement.raw(&COLUMNS);
        self.first(statement).await?.map(|row| read(&row)).transpose()
    }

    async fn renew_lease(
        &mut self,
        id: TaskInstanceId,
        epoch: Epoch,
        attempt_id: AttemptId,
        ttl: Duration,
    ) -> Result<Option<Renewal>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("UPDATE task_instance SET lease_expires_at = ").now_plus(ttl);
        statement.add(
            " WHERE id = ? AND epoch = ? AND lease_attempt_id = ? AND state = 'running' \
             RETURNING lease_expires_at, coalesce(followed_until > {now}, ?) AS is_followed",
            values![id, epoch, attempt_id, false],
        );
        let Some(row) = self.first(statement).await? else { return Ok(None) };
        let r = row.of("task_instance");
        Ok(Some(Renewal { expires_at: r.time("lease_expires_at")?, is_followed: r.flag("is_followed")? }))
    }

    async fn lock_expired_leases(
        &mut self,
        grace: Duration,
        limit: u32,
    ) -> Result<Vec<TaskInstance>, MetastoreError> {
        self.task_instances_where(|statement| {
            statement.raw("state = 'running' AND lease_expires_at <= ").now_minus_once(grace);
            statement.add(" ORDER BY lease_expires_at, id LIMIT ? {lock} {skip_locked}", values![limit]);
        })
        .await
    }

    async fn lock_resends(
        &mut self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<TaskInstance>, MetastoreError> {
        self.task_instances_where(|statement| {
            statement.add(
                "state = 'queued' AND resend_at <= ? ORDER BY resend_at, id LIMIT ? {lock} {skip_locked}",
                values![now, limit],
            );
        })
        .await
    }

    async fn lock_due_waits(
        &mut self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<TaskInstance>, MetastoreError> {
        self.task_instances_where(|statement| {
            statement.add(
                "state IN ('deferred', 'awaiting_input') AND due_at <= ? \
                 ORDER BY due_at, id LIMIT ? {lock} {skip_locked}",
                values![now, limit],
            );
        })
        .await
    }

    async fn next_due_task_instance_at(&mut self) -> Result<Option<Timestamp>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw(
            "SELECT min(due) AS due FROM (\
             SELECT min(lease_expires_at) AS due FROM task_instance WHERE state = 'running' \
             UNION ALL SELECT min(resend_at) FROM task_instance WHERE state = 'queued' \
             UNION ALL SELECT min(due_at) FROM task_instance WHERE state IN ('deferred', 'awaiting_input')) \
             AS moments",
        );
        self.one(statement).await?.of("task_instance").time_or_null("due")
    }

    async fn queued_task_instances(
        &mut self,
        queue: &QueueName,
        limit: u32,
    ) -> Result<Vec<(TaskInstanceId, Epoch)>, MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "SELECT id, epoch FROM task_instance WHERE state = 'queued' AND queue = ? \
             ORDER BY priority_weight DESC, queued_at, id LIMIT ?",
            values![queue, limit],
        );
        let rows = self.all(statement).await?;
        read_all(&rows, |row| {
            let r = row.of("task_instance");
            Ok((TaskInstanceId(r.uuid("id")?), Epoch(r.int("epoch")?)))
        })
    }

    async fn follow_log(&mut self, id: TaskInstanceId, until: Timestamp) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.add("UPDATE task_instance SET followed_until = ? WHERE id = ?", values![until, id]);
        self.run(statement).await.map(drop)
    }

    async fn insert_try(&mut self, row: &TaskInstance) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.raw("INSERT INTO task_instance_try (").raw(&COLUMNS).raw(") VALUES ");
        statement.add(&PLACES, values_of(row)).raw(")");
        self.run(statement).await.map(drop)
    }

    async fn tries(&mut self, id: TaskInstanceId) -> Result<Vec<TaskInstance>, MetastoreError> {
        let mut statement = self.statement();
        statement
            .raw("SELECT ")
            .raw(&COLUMNS)
            .add(" FROM task_instance_try WHERE id = ? ORDER BY try_number", values![id]);
        let rows = self.all(statement).await?;
        read_all(&rows, read)
    }

    async fn insert_reschedule(&mut self, row: &TaskReschedule) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "INSERT INTO task_reschedule (task_instance_id, try_number, start_date, end_date, reschedule_date) \
             VALUES (?, ?, ?, ?, ?)",
            values![row.task_instance_id, row.try_number, row.start_date, row.end_date, row.reschedule_date],
        );
        self.run(statement).await.map(drop)
    }

    async fn reschedules(
        &mut self,
        id: TaskInstanceId,
        try_number: i32,
    ) -> Result<Vec<TaskReschedule>, MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "SELECT task_instance_id, try_number, start_date, end_date, reschedule_date FROM task_reschedule \
             WHERE task_instance_id = ? AND try_number = ? ORDER BY start_date, id",
            values![id, try_number],
        );
        let rows = self.all(statement).await?;
        read_all(&rows, |row| {
            let r = row.of("task_reschedule");
            Ok(TaskReschedule {
                task_instance_id: TaskInstanceId(r.uuid("task_instance_id")?),
                try_number: r.small("try_number")?,
                start_date: r.time("start_date")?,
                end_date: r.time("end_date")?,
                reschedule_date: r.time("reschedule_date")?,
            })
        })
    }

    async fn pools(&mut self) -> Result<Vec<Pool>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT name, slots, description, include_deferred FROM pool ORDER BY name");
        let rows = self.all(statement).await?;
        read_all(&rows, read_pool)
    }

    async fn lock_pools(&mut self) -> Result<Vec<Pool>, MetastoreError> {
        let mut statement = self.statement();
        statement.add("SELECT name, slots, description, include_deferred FROM pool ORDER BY name {lock}", []);
        let rows = self.all(statement).await?;
        read_all(&rows, read_pool)
    }

    async fn put_pool(&mut self, pool: &Pool) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "INSERT INTO pool (name, slots, description, include_deferred) VALUES (?, ?, ?, ?) \
             ON CONFLICT (name) DO UPDATE SET slots = excluded.slots, description = excluded.description, \
             include_deferred = excluded.include_deferred",
            values![&pool.name, pool.slots, &pool.description, pool.include_deferred],
        );
        self.run(statement).await.map(drop)
    }

    async fn delete_pool(&mut self, name: &PoolName) -> Result<bool, MetastoreError> {
        let mut statement = self.statement();
        statement.add("DELETE FROM pool WHERE name = ?", values![name]);
        self.run(statement).await.map(did_change)
    }

    async fn pool_usage(&mut self) -> Result<Vec<(PoolName, PoolUsage)>, MetastoreError> {
        self.usage_of_pools().await
    }

    async fn active_tasks(&mut self) -> Result<Vec<ActiveTask>, MetastoreError> {
        self.count_active().await
    }

    async fn candidates(&mut self, query: &CandidateQuery) -> Result<Vec<Candidate>, MetastoreError> {
        self.next_candidates(query).await
    }
}
