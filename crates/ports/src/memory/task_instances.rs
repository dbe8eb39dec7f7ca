use std::time::Duration;

use async_trait::async_trait;
use gust_model::{
    AttemptId, DagRunId, Epoch, MapIndex, PoolName, QueueName, TaskId, TaskInstanceId, TaskInstanceState,
    record::{Lease, Pool, PoolUsage, TaskInstance, TaskReschedule, Timestamp, Trigger},
};

use super::{
    admission, listing,
    runs::rest_ends_at,
    table::{Key, Part, Row, key},
    tables::{BY_PLACE, BY_RUN, BY_TASK_INSTANCE, Rendered, RescheduleRow, RunRow, TaskInstanceRow, TryRow},
    transaction::{Transaction, View},
};
use crate::metastore::{
    ActiveTask, Candidate, CandidateQuery, Guard, Hitl, LeasePatch, Listing, LockWait, MetastoreError, Page,
    Renewal, TaskInstanceFilter, TaskInstancePatch, TaskInstanceRows, TaskInstanceSort, TaskInstanceWrite,
};

type State = TaskInstanceState;

fn holds(guard: Guard, task_instance: &TaskInstance, now: Timestamp) -> bool {
    let is_running = task_instance.state == State::Running;
    match guard {
        Guard::ChangeSeq(seq) => task_instance.change_seq == seq,
        Guard::State(state) => task_instance.state == state,
        Guard::Epoch(state, epoch) => task_instance.state == state && task_instance.epoch == epoch,
        Guard::Fence(epoch, attempt_id) => {
            is_running
                && task_instance.epoch == epoch
                && task_instance.lease.is_some_and(|lease| lease.attempt_id == attempt_id)
        }
        Guard::LeaseExpired => is_running && task_instance.lease.is_some_and(|lease| lease.expires_at <= now),
        Guard::Any => true,
    }
}

fn apply(task_instance: &mut TaskInstance, patch: &TaskInstancePatch) {
    macro_rules! set {
        ($($field:ident)+) => {$(
            if let Some(value) = &patch.$field { task_instance.$field = value.clone(); }
        )+};
    }
    set!(state accounted_state is_dirty map_index try_number max_tries scheduled_at queued_at resend_at);
    set!(send_count start_date end_date due_at pool pool_slots queue priority_weight rendered_map_index);
    set!(hostname pid next_method next_kwargs trigger_id retry_delay_override retry_reason dag_version_id note);
    if patch.next_epoch {
        task_instance.epoch = task_instance.epoch.next();
    }
    if patch.lease == LeasePatch::End {
        task_instance.lease = None;
    }
}

fn matches(view: &View<'_>, task_instance: &TaskInstance, filter: &TaskInstanceFilter) -> bool {
    let run = view.get::<RunRow>(&key![task_instance.dag_run_id.0]).map(|row| &row.run);
    let display_name = task_instance.task_display_name.as_deref().unwrap_or_default();
    listing::is_among(&filter.dag_run_ids, &task_instance.dag_run_id)
        && listing::is_among(&filter.dag_ids, &task_instance.dag_id)
        && listing::is_among(&filter.run_ids, &task_instance.run_id)
        && listing::is_among(&filter.task_ids, &task_instance.task_id)
        && listing::holds(filter.name_contains.as_deref(), &[task_instance.task_id.as_str(), display_name])
        && listing::is_among(&filter.map_indexes, &task_instance.map_index)
        && listing::is_among(&filter.states, &task_instance.state)
        && listing::is_among(&filter.pools, &task_instance.pool)
        && listing::is_among(&filter.queues, &task_instance.queue)
        && listing::is_among(&filter.operators, &task_instance.operator)
        && listing::is_within(&filter.logical_date, run.and_then(|run| run.logical_date))
        && listing::is_within(&filter.run_after, run.map(|run| run.run_after))
        && listing::is_within(&filter.start_date, task_instance.start_date)
        && listing::is_within(&filter.end_date, task_instance.end_date)
        && listing::is_within(&filter.updated_at, Some(task_instance.updated_at))
}

fn sort_column(view: &View<'_>, task_instance: &TaskInstance, sort: TaskInstanceSort) -> Option<Part> {
    let run = || view.get::<RunRow>(&key![task_instance.dag_run_id.0]).map(|row| &row.run);
    match sort {
        TaskInstanceSort::TaskId => Some(task_instance.task_id.as_str().into()),
        TaskInstanceSort::MapIndex => Some(task_instance.map_index.0.into()),
        TaskInstanceSort::State => Some(task_instance.state.as_str().into()),
        TaskInstanceSort::StartDate => task_instance.start_date.map(Part::from),
        TaskInstanceSort::EndDate => task_instance.end_date.map(Part::from),
        TaskInstanceSort::LogicalDate => run()?.logical_date.map(Part::from),
        TaskInstanceSort::RunAfter => run().map(|run| run.run_after.into()),
        TaskInstanceSort::TryNumber => Some(task_instance.try_number.into()),
        TaskInstanceSort::QueuedAt => task_instance.queued_at.map(Part::from),
    }
}

/// When a running task instance's lease ends.
fn lease_end(task_instance: &TaskInstance) -> Option<Timestamp> {
    task_instance.lease.filter(|_| task_instance.state == State::Running).map(|lease| lease.expires_at)
}

/// When a queued task instance's message is sent again.
fn resend_at(task_instance: &TaskInstance) -> Option<Timestamp> {
    task_instance.resend_at.filter(|_| task_instance.state == State::Queued)
}

/// When a deferred or awaiting task instance's wait ends.
fn wait_end(task_instance: &TaskInstance) -> Option<Timestamp> {
    let waits = matches!(task_instance.state, State::Deferred | State::AwaitingInput);
    task_instance.due_at.filter(|_| waits)
}

impl Transaction {
    /// Locks, skipping locked ones, task instances whose moment has come, in the order of those moments.
    async fn lock_due(
        &mut self,
        now: Timestamp,
        limit: u32,
        moment: impl Fn(&TaskInstance) -> Option<Timestamp> + Send + Sync,
    ) -> Result<Vec<TaskInstance>, MetastoreError> {
        let is_due = |row: &TaskInstanceRow| moment(&row.task_instance).is_some_and(|due| due <= now);
        let keys = self.read(|view| {
            let mut due: Vec<&TaskInstanceRow> = view.rows().filter(|row| is_due(row)).collect();
            due.sort_by_key(|row| (moment(&row.task_instance), row.task_instance.id));
            due.into_iter().map(Row::key).collect()
        });
        let rows = self.lock_rows(keys, LockWait::SkipLocked, limit, is_due).await?;
        Ok(rows.into_iter().map(|row| row.task_instance).collect())
    }

    /// Deletes task instances and what hangs on them.
    pub(super) async fn delete_task_instance_rows(&mut self, keys: Vec<Key>) -> Result<(), MetastoreError> {
        for row in self.delete::<TaskInstanceRow>(keys).await? {
            let key = row.key();
            self.delete_found::<TryRow>(BY_TASK_INSTANCE, key.clone()).await?;
            self.delete_found::<RescheduleRow>(BY_TASK_INSTANCE, key.clone()).await?;
            self.delete_found::<Trigger>(BY_TASK_INSTANCE, key.clone()).await?;
            self.delete::<Rendered>(vec![key.clone()]).await?;
            self.delete::<Hitl>(vec![key]).await?;
        }
        Ok(())
    }

    /// Writes a task instance's row, which moves its sequence and its last write.
    async fn write_task_instance(
        &mut self,
        mut row: TaskInstanceRow,
    ) -> Result<TaskInstance, MetastoreError> {
        row.task_instance.change_seq += 1;
        row.task_instance.updated_at = self.clock_now();
        let task_instance = row.task_instance.clone();
        self.update(row).await?;
        Ok(task_instance)
    }
}

#[async_trait]
impl TaskInstanceRows for Transaction {
    async fn task_instance(&mut self, id: TaskInstanceId) -> Result<Option<TaskInstance>, MetastoreError> {
        self.statement("task_instance").await?;
        Ok(self.read(|view| view.get(&key![id.0]).map(|row: &TaskInstanceRow| row.task_instance.clone())))
    }

    async fn task_instance_at(
        &mut self,
        dag_run_id: DagRunId,
        task_id: &TaskId,
        map_index: MapIndex,
    ) -> Result<Option<TaskInstance>, MetastoreError> {
        self.statement("task_instance_at").await?;
        Ok(self.read(|view| {
            let place = key![dag_run_id.0, task_id.as_str(), map_index.0];
            view.find::<TaskInstanceRow>(BY_PLACE, place).next().map(|row| row.task_instance.clone())
        }))
    }

    async fn task_instances(
        &mut self,
        filter: &TaskInstanceFilter,
        page: &Page<TaskInstanceSort>,
    ) -> Result<Listing<TaskInstance>, MetastoreError> {
        self.statement("task_instances").await?;
        Ok(self.read(|view| {
            let rows = view.rows::<TaskInstanceRow>().map(|row| &row.task_instance);
            let matching = rows.filter(|row| matches(view, row, filter)).cloned().collect();
            listing::page(matching, page, |row, sort| sort_column(view, row, sort), |row| key![row.id.0])
        }))
    }

    async fn task_instances_of(
        &mut self,
        dag_run_id: DagRunId,
        task_ids: &[TaskId],
    ) -> Result<Vec<TaskInstance>, MetastoreError> {
        self.statement("task_instances_of").await?;
        let mut rows: Vec<TaskInstance> = self.read(|view| {
            let rows = view.find::<TaskInstanceRow>(BY_RUN, key![dag_run_id.0]).map(|row| &row.task_instance);
            rows.filter(|row| listing::is_among(task_ids, &row.task_id)).cloned().collect()
        });
        rows.sort_by(|a, b| (&a.task_id, a.map_index).cmp(&(&b.task_id, b.map_index)));
        Ok(rows)
    }

    async fn lock_changed_task_instances(
        &mut self,
        dag_run_id: DagRunId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<TaskInstance>, MetastoreError> {
        self.statement("lock_changed_task_instances").await?;
        let has_changed = |row: &TaskInstanceRow| {
            row.task_instance.is_dirty || rest_ends_at(row).is_some_and(|due| due <= now)
        };
        let keys = self.read(|view| {
            let rows = view.find::<TaskInstanceRow>(BY_RUN, key![dag_run_id.0]);
            rows.filter(|row| has_changed(row)).map(Row::key).collect()
        });
        let rows = self.lock_rows(keys, LockWait::Wait, limit, has_changed).await?;
        Ok(rows.into_iter().map(|row| row.task_instance).collect())
    }

    async fn insert_task_instances(&mut self, rows: &[TaskInstance]) -> Result<(), MetastoreError> {
        self.statement("insert_task_instances").await?;
        for task_instance in rows {
            let row = TaskInstanceRow { task_instance: task_instance.clone(), followed_until: None };
            self.insert_new(row, || {
                let TaskInstance { task_id, map_index, run_id, .. } = task_instance;
                format!("task instance {task_id} [{map_index}] of run {run_id}")
            })
            .await?;
        }
        Ok(())
    }

    async fn update_task_instances(
        &mut self,
        writes: &[TaskInstanceWrite],
    ) -> Result<Vec<TaskInstanceId>, MetastoreError> {
        self.statement("update_task_instances").await?;
        let mut written = Vec::new();
        for TaskInstanceWrite { id, guard, patch } in writes {
            let clock = self.clock();
            let may_be_written = |row: &TaskInstanceRow| holds(*guard, &row.task_instance, clock.now());
            if let Some(mut row) = self.lock_row(&key![id.0], may_be_written).await? {
                apply(&mut row.task_instance, patch);
                self.write_task_instance(row).await?;
                written.push(*id);
            }
        }
        Ok(written)
    }

    async fn delete_task_instances(&mut self, ids: &[TaskInstanceId]) -> Result<(), MetastoreError> {
        self.statement("delete_task_instances").await?;
        self.delete_task_instance_rows(ids.iter().map(|id| key![id.0]).collect()).await
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
        self.statement("claim_task_instance").await?;
        let is_queued = |row: &TaskInstanceRow| {
            row.task_instance.state == State::Queued && row.task_instance.epoch == epoch
        };
        let Some(mut row) = self.lock_row(&key![id.0], is_queued).await? else {
            return Ok(None);
        };
        let now = self.clock_now();
        let claimed = &mut row.task_instance;
        claimed.state = State::Running;
        claimed.lease = Some(Lease { attempt_id, expires_at: now + ttl });
        claimed.hostname = Some(hostname.to_owned());
        claimed.pid = Some(pid);
        if claimed.next_method.is_none() {
            claimed.start_date = Some(now);
        }
        self.write_task_instance(row).await.map(Some)
    }

    async fn renew_lease(
        &mut self,
        id: TaskInstanceId,
        epoch: Epoch,
        attempt_id: AttemptId,
        ttl: Duration,
    ) -> Result<Option<Renewal>, MetastoreError> {
        self.statement("renew_lease").await?;
        let guard = Guard::Fence(epoch, attempt_id);
        let clock = self.clock();
        let is_ours = |row: &TaskInstanceRow| holds(guard, &row.task_instance, clock.now());
        let Some(mut row) = self.lock_row(&key![id.0], is_ours).await? else {
            return Ok(None);
        };
        let now = self.clock_now();
        let expires_at = now + ttl;
        let is_followed = row.followed_until.is_some_and(|until| until > now);
        row.task_instance.lease = Some(Lease { attempt_id, expires_at });
        self.update(row).await?;
        Ok(Some(Renewal { expires_at, is_followed }))
    }

    async fn lock_expired_leases(
        &mut self,
        grace: Duration,
        limit: u32,
    ) -> Result<Vec<TaskInstance>, MetastoreError> {
        self.statement("lock_expired_leases").await?;
        self.lock_due(self.clock_now() - grace, limit, lease_end).await
    }

    async fn lock_resends(
        &mut self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<TaskInstance>, MetastoreError> {
        self.statement("lock_resends").await?;
        self.lock_due(now, limit, resend_at).await
    }

    async fn lock_due_waits(
        &mut self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<TaskInstance>, MetastoreError> {
        self.statement("lock_due_waits").await?;
        self.lock_due(now, limit, wait_end).await
    }

    async fn next_due_task_instance_at(&mut self) -> Result<Option<Timestamp>, MetastoreError> {
        self.statement("next_due_task_instance_at").await?;
        Ok(self.read(|view| {
            let rows = view.rows::<TaskInstanceRow>().map(|row| &row.task_instance);
            let moments = rows.flat_map(|row| [lease_end(row), resend_at(row), wait_end(row)]);
            moments.flatten().min()
        }))
    }

    async fn queued_task_instances(
        &mut self,
        queue: &QueueName,
        limit: u32,
    ) -> Result<Vec<(TaskInstanceId, Epoch)>, MetastoreError> {
        self.statement("queued_task_instances").await?;
        Ok(self.read(|view| {
            let rows = view.rows::<TaskInstanceRow>().map(|row| &row.task_instance);
            let mut queued: Vec<&TaskInstance> =
                rows.filter(|row| row.state == State::Queued && row.queue == *queue).collect();
            queued.sort_by_key(|row| (-row.priority_weight, row.queued_at, row.id));
            queued.into_iter().take(limit as usize).map(|row| (row.id, row.epoch)).collect()
        }))
    }

    async fn follow_log(&mut self, id: TaskInstanceId, until: Timestamp) -> Result<(), MetastoreError> {
        self.statement("follow_log").await?;
        if let Some(mut row) = self.lock_row::<TaskInstanceRow>(&key![id.0], |_| true).await? {
            row.followed_until = Some(until);
            self.update(row).await?;
        }
        Ok(())
    }

    async fn insert_try(&mut self, row: &TaskInstance) -> Result<(), MetastoreError> {
        self.statement("insert_try").await?;
        self.insert_new(TryRow(row.clone()), || format!("try {} of task {}", row.try_number, row.task_id))
            .await
    }

    async fn tries(&mut self, id: TaskInstanceId) -> Result<Vec<TaskInstance>, MetastoreError> {
        self.statement("tries").await?;
        Ok(self.read(|view| {
            let tries = view.find::<TryRow>(BY_TASK_INSTANCE, key![id.0]);
            tries.map(|row| row.0.clone()).collect()
        }))
    }

    async fn insert_reschedule(&mut self, row: &TaskReschedule) -> Result<(), MetastoreError> {
        self.statement("insert_reschedule").await?;
        let number = self.next_number();
        self.insert(RescheduleRow { number, reschedule: row.clone() }).await?;
        Ok(())
    }

    async fn reschedules(
        &mut self,
        id: TaskInstanceId,
        try_number: i32,
    ) -> Result<Vec<TaskReschedule>, MetastoreError> {
        self.statement("reschedules").await?;
        let mut reschedules: Vec<TaskReschedule> = self.read(|view| {
            let rows = view.find::<RescheduleRow>(BY_TASK_INSTANCE, key![id.0]).map(|row| &row.reschedule);
            rows.filter(|reschedule| reschedule.try_number == try_number).cloned().collect()
        });
        reschedules.sort_by_key(|reschedule| reschedule.start_date);
        Ok(reschedules)
    }

    async fn pools(&mut self) -> Result<Vec<Pool>, MetastoreError> {
        self.statement("pools").await?;
        Ok(self.read(|view| view.rows().cloned().collect()))
    }

    async fn lock_pools(&mut self) -> Result<Vec<Pool>, MetastoreError> {
        self.statement("lock_pools").await?;
        let keys = self.read(|view| view.keys_where(|_: &Pool| true));
        self.lock_rows(keys, LockWait::Wait, u32::MAX, |_| true).await
    }

    async fn put_pool(&mut self, pool: &Pool) -> Result<(), MetastoreError> {
        self.statement("put_pool").await?;
        self.upsert(pool.clone()).await
    }

    async fn delete_pool(&mut self, name: &PoolName) -> Result<bool, MetastoreError> {
        self.statement("delete_pool").await?;
        Ok(!self.delete::<Pool>(vec![key![name.as_str()]]).await?.is_empty())
    }

    async fn pool_usage(&mut self) -> Result<Vec<(PoolName, PoolUsage)>, MetastoreError> {
        self.statement("pool_usage").await?;
        Ok(self.read(admission::pool_usage))
    }

    async fn active_tasks(&mut self) -> Result<Vec<ActiveTask>, MetastoreError> {
        self.statement("active_tasks").await?;
        Ok(self.read(admission::active_tasks))
    }

    async fn candidates(&mut self, query: &CandidateQuery) -> Result<Vec<Candidate>, MetastoreError> {
        self.statement("candidates").await?;
        Ok(self.read(|view| admission::candidates(view, query)))
    }
}
