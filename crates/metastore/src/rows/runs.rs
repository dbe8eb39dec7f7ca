use async_trait::async_trait;
use gust_model::{
    BackfillId, DagId, DagRunId, DagRunState, DagVersionId, RunId, TaskId,
    record::{DagRun, TaskTally, Timestamp},
};
use gust_ports::{
    MetastoreError,
    metastore::{DagRunFilter, DagRunPatch, DagRunSort, Listing, LockWait, Page, RunRows},
};

use super::{
    did_change,
    filters::{Assignments, Conditions, order_of},
    page_of, read_all,
};
use crate::{
    connection::{Row, SqlTx},
    dialect::{Statement, batches, json_of, values},
};

const COLUMNS: &str = "id, dag_id, run_id, run_type, state, logical_date, data_interval_start, data_interval_end, \
     run_after, queued_at, start_date, end_date, conf, triggered_by, triggering_user, dag_version_id, \
     bundle_version, clear_number, backfill_id, partition_key, note, unfinished_count, under_way_count, \
     is_expanded, is_dirty, due_at, last_scheduling_decision, change_seq";

fn read_run(row: &Row) -> Result<DagRun, MetastoreError> {
    let r = row.of("dag_run");
    Ok(DagRun {
        id: DagRunId(r.uuid("id")?),
        dag_id: r.text("dag_id")?,
        run_id: r.text("run_id")?,
        run_type: r.name("run_type")?,
        state: r.name("state")?,
        logical_date: r.time_or_null("logical_date")?,
        data_interval_start: r.time_or_null("data_interval_start")?,
        data_interval_end: r.time_or_null("data_interval_end")?,
        run_after: r.time("run_after")?,
        queued_at: r.time("queued_at")?,
        start_date: r.time_or_null("start_date")?,
        end_date: r.time_or_null("end_date")?,
        conf: r.json("conf")?,
        triggered_by: r.name_or_null("triggered_by")?,
        triggering_user: r.text_or_null("triggering_user")?,
        dag_version_id: DagVersionId(r.uuid("dag_version_id")?),
        bundle_version: r.text_or_null("bundle_version")?,
        clear_number: r.small("clear_number")?,
        backfill_id: r.uuid_or_null("backfill_id")?.map(BackfillId),
        partition_key: r.text_or_null("partition_key")?,
        note: r.text_or_null("note")?,
        unfinished_count: r.int("unfinished_count")?,
        under_way_count: r.int("under_way_count")?,
        is_expanded: r.flag("is_expanded")?,
        is_dirty: r.flag("is_dirty")?,
        due_at: r.time_or_null("due_at")?,
        last_scheduling_decision: r.time_or_null("last_scheduling_decision")?,
        change_seq: r.int("change_seq")?,
    })
}

fn read_id(row: &Row) -> Result<DagRunId, MetastoreError> {
    row.of("dag_run").uuid("id").map(DagRunId)
}

fn sort_column(sort: DagRunSort) -> &'static str {
    match sort {
        DagRunSort::QueuedAt => "queued_at",
        DagRunSort::DagId => "dag_id",
        DagRunSort::RunId => "run_id",
        DagRunSort::LogicalDate => "logical_date",
        DagRunSort::RunAfter => "run_after",
        DagRunSort::StartDate => "start_date",
        DagRunSort::EndDate => "end_date",
        DagRunSort::State => "state",
    }
}

fn matching_runs(statement: &mut Statement, filter: &DagRunFilter) {
    statement.raw("FROM dag_run");
    let mut conditions = Conditions::new(statement);
    conditions.one_of_texts("dag_id", filter.dag_ids.iter().map(DagId::as_str));
    conditions.one_of_texts("run_id", filter.run_ids.iter().map(RunId::as_str));
    if let Some(text) = &filter.run_id_contains {
        conditions.and().holds_in_any_case("run_id", text);
    }
    conditions.one_of("state", filter.states.iter().copied());
    conditions.one_of("run_type", filter.run_types.iter().copied());
    conditions.within("logical_date", &filter.logical_date);
    conditions.within("run_after", &filter.run_after);
    conditions.within("start_date", &filter.start_date);
    conditions.within("end_date", &filter.end_date);
    conditions.within("updated_at", &filter.updated_at);
}

impl SqlTx {
    /// The first run of a DAG that further conditions, and an order, leave.
    async fn first_run(
        &mut self,
        dag_id: &DagId,
        further: impl FnOnce(&mut Statement),
    ) -> Result<Option<DagRun>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT ").raw(COLUMNS).add(" FROM dag_run WHERE dag_id = ?", values![dag_id]);
        further(&mut statement);
        statement.raw(" LIMIT 1");
        self.first(statement).await?.map(|row| read_run(&row)).transpose()
    }
}

#[async_trait]
impl RunRows for SqlTx {
    async fn dag_run(&mut self, dag_id: &DagId, run_id: &RunId) -> Result<Option<DagRun>, MetastoreError> {
        self.first_run(dag_id, |statement| {
            statement.add(" AND run_id = ?", values![run_id]);
        })
        .await
    }

    async fn dag_run_by_id(&mut self, id: DagRunId) -> Result<Option<DagRun>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT ").raw(COLUMNS).add(" FROM dag_run WHERE id = ?", values![id]);
        self.first(statement).await?.map(|row| read_run(&row)).transpose()
    }

    async fn lock_dag_run(&mut self, id: DagRunId, wait: LockWait) -> Result<Option<DagRun>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT ").raw(COLUMNS).add(" FROM dag_run WHERE id = ? {lock}", values![id]);
        if wait == LockWait::SkipLocked {
            statement.add(" {skip_locked}", []);
        }
        self.first(statement).await?.map(|row| read_run(&row)).transpose()
    }

    async fn dag_runs(
        &mut self,
        filter: &DagRunFilter,
        page: &Page<DagRunSort>,
    ) -> Result<Listing<DagRun>, MetastoreError> {
        let order = order_of(page, sort_column, "id");
        let matching = |statement: &mut Statement| matching_runs(statement, filter);
        page_of(self, COLUMNS, matching, &order, (page.limit, page.offset), read_run).await
    }

    async fn newest_dag_runs(
        &mut self,
        dag_ids: &[DagId],
        per_dag: u32,
    ) -> Result<Vec<DagRun>, MetastoreError> {
        let mut runs = Vec::new();
        for dag_ids in batches(dag_ids) {
            let mut statement = self.statement();
            for (i, dag_id) in dag_ids.iter().enumerate() {
                statement.raw(if i == 0 { "" } else { " UNION ALL " });
                statement.raw("SELECT * FROM (SELECT ").raw(COLUMNS).add(
                    " FROM dag_run WHERE dag_id = ? ORDER BY run_after DESC, id DESC LIMIT ?) AS newest",
                    values![dag_id, per_dag],
                );
            }
            let rows = self.all(statement).await?;
            let mut found = read_all(&rows, read_run)?;
            // Neither database promises to keep the order of the parts of a union.
            found.sort_by_key(|run| {
                let position = dag_ids.iter().position(|dag_id| *dag_id == run.dag_id);
                (position, std::cmp::Reverse((run.run_after, run.id)))
            });
            runs.append(&mut found);
        }
        Ok(runs)
    }

    async fn insert_dag_run(&mut self, run: &DagRun) -> Result<bool, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("INSERT INTO dag_run (").raw(COLUMNS).add(
            ", updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, \
             {now}) ON CONFLICT DO NOTHING",
            values![
                run.id,
                &run.dag_id,
                &run.run_id,
                run.run_type,
                run.state,
                run.logical_date,
                run.data_interval_start,
                run.data_interval_end,
                run.run_after,
                run.queued_at,
                run.start_date,
                run.end_date,
                &run.conf,
                run.triggered_by,
                &run.triggering_user,
                run.dag_version_id,
                &run.bundle_version,
                run.clear_number,
                run.backfill_id,
                &run.partition_key,
                &run.note,
                run.unfinished_count,
                run.under_way_count,
                run.is_expanded,
                run.is_dirty,
                run.due_at,
                run.last_scheduling_decision,
                run.change_seq,
            ],
        );
        self.run(statement).await.map(did_change)
    }

    async fn update_dag_run(&mut self, id: DagRunId, patch: &DagRunPatch) -> Result<bool, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("UPDATE dag_run SET ");
        let mut assignments = Assignments::new(&mut statement);
        assignments.set("state", patch.state);
        assignments.set("queued_at", patch.queued_at);
        assignments.set("start_date", patch.start_date);
        assignments.set("end_date", patch.end_date);
        assignments.set("dag_version_id", patch.dag_version_id);
        assignments.set("bundle_version", patch.bundle_version.as_ref());
        assignments.set("clear_number", patch.clear_number);
        assignments.set("note", patch.note.as_ref());
        assignments.set("unfinished_count", patch.unfinished_count);
        assignments.set("under_way_count", patch.under_way_count);
        assignments.set("is_expanded", patch.is_expanded);
        assignments.set("is_dirty", patch.is_dirty);
        assignments.set("due_at", patch.due_at);
        assignments.set("last_scheduling_decision", patch.last_scheduling_decision);
        statement.add(" WHERE id = ?", values![id]);
        self.run(statement).await.map(did_change)
    }

    async fn delete_dag_run(&mut self, id: DagRunId) -> Result<bool, MetastoreError> {
        let mut statement = self.statement();
        statement.add("DELETE FROM dag_run WHERE id = ?", values![id]);
        self.run(statement).await.map(did_change)
    }

    /// The runs that no pass looked at for the longest come first, so that many busy ones starve nobody.
    async fn dag_runs_to_advance(
        &mut self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<DagRunId>, MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "SELECT id FROM dag_run WHERE state = 'running' AND id IN (\
             SELECT id FROM dag_run WHERE state = 'running' AND is_dirty \
             UNION SELECT id FROM dag_run WHERE state = 'running' AND due_at <= ? \
             UNION SELECT dag_run_id FROM task_instance WHERE is_dirty \
             UNION SELECT dag_run_id FROM task_instance \
             WHERE state IN ('up_for_retry', 'up_for_reschedule') AND due_at <= ?) \
             ORDER BY last_scheduling_decision NULLS FIRST, id LIMIT ?",
            values![now, now, limit],
        );
        let rows = self.all(statement).await?;
        read_all(&rows, read_id)
    }

    async fn dag_runs_to_start(&mut self, now: Timestamp, limit: u32) -> Result<Vec<DagRun>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT ").raw(COLUMNS).raw(" FROM (SELECT ").raw(COLUMNS).add(
            ", row_number() OVER (PARTITION BY dag_id, run_type = 'backfill' ORDER BY run_after, id) AS place \
             FROM dag_run WHERE state = 'queued' AND run_after <= ?) AS waiting \
             JOIN (SELECT d.dag_id AS of_dag, d.max_active_runs AS most, \
             (SELECT count(*) FROM dag_run r WHERE r.dag_id = d.dag_id AND r.state = 'running' \
             AND r.run_type <> 'backfill') AS running FROM dag d WHERE NOT d.is_paused AND d.dag_id IN \
             (SELECT q.dag_id FROM dag_run q WHERE q.state = 'queued' AND q.run_after <= ?)) AS of_dags \
             ON of_dags.of_dag = waiting.dag_id \
             WHERE waiting.run_type = 'backfill' OR most <= 0 OR waiting.place + running <= most \
             ORDER BY run_after, id LIMIT ?",
            values![now, now, limit],
        );
        let rows = self.all(statement).await?;
        read_all(&rows, read_run)
    }

    async fn next_due_run_at(&mut self, now: Timestamp) -> Result<Option<Timestamp>, MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "SELECT min(due) AS due FROM (\
             SELECT min(due_at) AS due FROM dag_run WHERE state = 'running' AND due_at > ? \
             UNION ALL SELECT min(t.due_at) FROM task_instance t JOIN dag_run r ON r.id = t.dag_run_id \
             WHERE t.state IN ('up_for_retry', 'up_for_reschedule') AND t.due_at > ? AND r.state = 'running' \
             UNION ALL SELECT min(r.run_after) FROM dag_run r JOIN dag d ON d.dag_id = r.dag_id \
             WHERE r.state = 'queued' AND r.run_after > ? AND NOT d.is_paused) AS moments",
            values![now, now, now],
        );
        self.one(statement).await?.of("dag_run").time_or_null("due")
    }

    async fn count_dag_runs(
        &mut self,
        dag_id: &DagId,
        states: &[DagRunState],
        with_backfills: bool,
    ) -> Result<u64, MetastoreError> {
        let mut statement = self.statement();
        statement
            .add("SELECT count(*) AS total FROM dag_run WHERE dag_id = ? AND state IN (", values![dag_id]);
        statement.list(states.iter().copied()).raw(")");
        if !with_backfills {
            statement.raw(" AND run_type <> 'backfill'");
        }
        self.one(statement).await?.of("dag_run").small("total")
    }

    async fn previous_dag_run(
        &mut self,
        dag_id: &DagId,
        before: Timestamp,
        states: &[DagRunState],
    ) -> Result<Option<DagRun>, MetastoreError> {
        self.first_run(dag_id, |statement| {
            statement.add(" AND logical_date < ?", values![before]);
            if !states.is_empty() {
                statement.raw(" AND state IN (").list(states.iter().copied()).raw(")");
            }
            statement.raw(" ORDER BY logical_date DESC");
        })
        .await
    }

    async fn following_dag_run(
        &mut self,
        dag_id: &DagId,
        after: Timestamp,
    ) -> Result<Option<DagRun>, MetastoreError> {
        self.first_run(dag_id, |statement| {
            statement.add(" AND logical_date > ? ORDER BY logical_date", values![after]);
        })
        .await
    }

    async fn last_automated_dag_run(&mut self, dag_id: &DagId) -> Result<Option<DagRun>, MetastoreError> {
        self.first_run(dag_id, |statement| {
            statement.raw(
                " AND run_type IN ('scheduled', 'backfill') AND logical_date IS NOT NULL ORDER BY logical_date DESC",
            );
        })
        .await
    }

    async fn last_finished_states(
        &mut self,
        dag_id: &DagId,
        limit: u32,
    ) -> Result<Vec<DagRunState>, MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "SELECT state FROM dag_run WHERE dag_id = ? AND state IN ('success', 'failed') \
             ORDER BY run_after DESC, id DESC LIMIT ?",
            values![dag_id, limit],
        );
        let rows = self.all(statement).await?;
        read_all(&rows, |row| row.of("dag_run").name("state"))
    }

    async fn tallies(
        &mut self,
        dag_run_id: DagRunId,
        task_ids: &[TaskId],
    ) -> Result<Vec<TaskTally>, MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "SELECT dag_run_id, task_id, expanded_length, own, upstream FROM task_tally WHERE dag_run_id = ?",
            values![dag_run_id],
        );
        if !task_ids.is_empty() {
            statement.raw(" AND task_id IN ").text_set(task_ids.iter().map(TaskId::as_str));
        }
        statement.raw(" ORDER BY task_id");
        let rows = self.all(statement).await?;
        read_all(&rows, |row| {
            let r = row.of("task_tally");
            Ok(TaskTally {
                dag_run_id: DagRunId(r.uuid("dag_run_id")?),
                task_id: r.text("task_id")?,
                expanded_length: r.small_or_null("expanded_length")?,
                own: r.json("own")?,
                upstream: r.json("upstream")?,
            })
        })
    }

    async fn put_tallies(&mut self, tallies: &[TaskTally]) -> Result<(), MetastoreError> {
        for tallies in batches(tallies) {
            let mut statement = self.statement();
            statement
                .raw("INSERT INTO task_tally (dag_run_id, task_id, expanded_length, own, upstream) VALUES ");
            for (i, tally) in tallies.iter().enumerate() {
                statement.raw(if i == 0 { "" } else { ", " }).add(
                    "(?, ?, ?, ?, ?)",
                    values![
                        tally.dag_run_id,
                        &tally.task_id,
                        tally.expanded_length,
                        json_of(&tally.own),
                        json_of(&tally.upstream),
                    ],
                );
            }
            statement.raw(
                " ON CONFLICT (dag_run_id, task_id) DO UPDATE SET expanded_length = excluded.expanded_length, \
                 own = excluded.own, upstream = excluded.upstream",
            );
            self.run(statement).await?;
        }
        Ok(())
    }
}
