//! Guarded writes of task instances, and the locks that precede them.

use std::mem::discriminant;

use gust_model::{
    DagRunId, TaskInstanceId,
    record::{TaskInstance, Timestamp},
};
use gust_ports::{
    MetastoreError,
    metastore::{Guard, LeasePatch, TaskInstancePatch, TaskInstanceWrite},
};

use super::{filters::Assignments, read_all};
use crate::{
    connection::{Row, SqlTx},
    dialect::{Statement, Value, batches, values},
};

/// Writes the guard's condition, its values either bound here or, in a statement over many rows, found in the columns
/// of `w` that follow the id.
fn add_guard(statement: &mut Statement, guard: &Guard) {
    match *guard {
        Guard::ChangeSeq(seq) => statement.add(" AND change_seq = ?", values![seq]),
        Guard::State(state) => statement.add(" AND state = ?", values![state]),
        Guard::Epoch(state, epoch) => statement.add(" AND state = ? AND epoch = ?", values![state, epoch]),
        Guard::Fence(epoch, attempt_id) => statement
            .add(" AND state = 'running' AND epoch = ? AND lease_attempt_id = ?", values![epoch, attempt_id]),
        Guard::LeaseExpired => statement.add(" AND state = 'running' AND lease_expires_at <= {now}", []),
        Guard::Any => statement,
    };
}

/// The guard's condition over the columns of `w`, in a statement over many rows.
fn joined_guard(guard: &Guard) -> &'static str {
    match guard {
        Guard::ChangeSeq(_) => " AND change_seq = w.column2",
        Guard::State(_) => " AND state = w.column2",
        Guard::Epoch(..) => " AND state = w.column2 AND epoch = w.column3",
        Guard::Fence(..) => " AND state = 'running' AND epoch = w.column2 AND lease_attempt_id = w.column3",
        Guard::LeaseExpired => " AND state = 'running' AND lease_expires_at <= {now}",
        Guard::Any => "",
    }
}

/// A write's row of `w`: the id, then the guard's values.
fn add_joined_row(statement: &mut Statement, write: &TaskInstanceWrite) {
    let id = Value::from(write.id);
    match write.guard {
        Guard::ChangeSeq(seq) => statement.add("(?, ?)", [id, seq.into()]),
        Guard::State(state) => statement.add("(?, ?)", [id, state.into()]),
        Guard::Epoch(state, epoch) => statement.add("(?, ?, ?)", [id, state.into(), epoch.into()]),
        Guard::Fence(epoch, attempt_id) => statement.add("(?, ?, ?)", [id, epoch.into(), attempt_id.into()]),
        Guard::LeaseExpired | Guard::Any => statement.add("(?)", [id]),
    };
}

fn add_assignments(statement: &mut Statement, patch: &TaskInstancePatch) {
    statement.raw("UPDATE task_instance SET ");
    let mut assignments = Assignments::new(statement);
    assignments.set("state", patch.state);
    assignments.set("accounted_state", patch.accounted_state);
    assignments.set("is_dirty", patch.is_dirty);
    assignments.set("map_index", patch.map_index);
    assignments.set("try_number", patch.try_number);
    assignments.set("max_tries", patch.max_tries);
    if patch.next_epoch {
        assignments.raw("epoch = epoch + 1");
    }
    if patch.lease == LeasePatch::End {
        assignments.raw("lease_attempt_id = NULL, lease_expires_at = NULL");
    }
    assignments.set("scheduled_at", patch.scheduled_at);
    assignments.set("queued_at", patch.queued_at);
    assignments.set("resend_at", patch.resend_at);
    assignments.set("send_count", patch.send_count);
    assignments.set("start_date", patch.start_date);
    assignments.set("end_date", patch.end_date);
    assignments.set("due_at", patch.due_at);
    assignments.set("pool", patch.pool.as_ref());
    assignments.set("pool_slots", patch.pool_slots);
    assignments.set("queue", patch.queue.as_ref());
    assignments.set("priority_weight", patch.priority_weight);
    assignments.set("rendered_map_index", patch.rendered_map_index.as_ref());
    assignments.set("hostname", patch.hostname.as_ref());
    assignments.set("pid", patch.pid);
    assignments.set("next_method", patch.next_method.as_ref());
    assignments.set("next_kwargs", patch.next_kwargs.as_ref());
    assignments.set("trigger_id", patch.trigger_id);
    assignments.set("retry_delay_override", patch.retry_delay_override);
    assignments.set("retry_reason", patch.retry_reason.as_ref());
    assignments.set("dag_version_id", patch.dag_version_id);
    assignments.set("note", patch.note.as_ref());
}

/// Writes that one statement can make: the same patch, the same kind of guard.
fn groups(writes: &[TaskInstanceWrite]) -> Vec<Vec<&TaskInstanceWrite>> {
    let mut groups: Vec<Vec<&TaskInstanceWrite>> = Vec::new();
    let mut ids: Vec<TaskInstanceId> = writes.iter().map(|write| write.id).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        // A row that is written twice is written in the order given.
        return writes.iter().map(|write| vec![write]).collect();
    }
    for write in writes {
        let group = groups.iter_mut().find(|group| {
            discriminant(&group[0].guard) == discriminant(&write.guard) && group[0].patch == write.patch
        });
        match group {
            Some(group) => group.push(write),
            None => groups.push(vec![write]),
        }
    }
    groups
}

fn read_id(row: &Row) -> Result<TaskInstanceId, MetastoreError> {
    row.of("task_instance").uuid("id").map(TaskInstanceId)
}

impl SqlTx {
    /// Makes guarded writes, those with the same patch together.
    pub(super) async fn write(
        &mut self,
        writes: &[TaskInstanceWrite],
    ) -> Result<Vec<TaskInstanceId>, MetastoreError> {
        let mut written = Vec::with_capacity(writes.len());
        for group in groups(writes) {
            for batch in batches(&group) {
                let mut statement = self.statement();
                add_assignments(&mut statement, &batch[0].patch);
                if let [write] = batch {
                    statement.add(" WHERE id = ?", values![write.id]);
                    add_guard(&mut statement, &write.guard);
                } else {
                    statement.raw(" FROM (VALUES ");
                    for (i, write) in batch.iter().enumerate() {
                        statement.raw(if i == 0 { "" } else { ", " });
                        add_joined_row(&mut statement, write);
                    }
                    statement.raw(") AS w WHERE id = w.column1");
                    statement.add(joined_guard(&batch[0].guard), []);
                }
                statement.raw(" RETURNING id");
                let rows = self.all(statement).await?;
                written.append(&mut read_all(&rows, read_id)?);
            }
        }
        // Callers walk their writes and what was written side by side.
        let position: std::collections::HashMap<TaskInstanceId, usize> =
            writes.iter().enumerate().map(|(i, write)| (write.id, i)).collect();
        written.sort_by_key(|id| position.get(id).copied());
        Ok(written)
    }

    /// What the planner has to look at: found through the indexes of dirty and of resting rows, then locked by id.
    pub(super) async fn lock_changed(
        &mut self,
        dag_run_id: DagRunId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<TaskInstance>, MetastoreError> {
        self.task_instances_where(|statement| {
            statement.add(
                "id IN (SELECT id FROM task_instance WHERE dag_run_id = ? AND is_dirty \
                 UNION SELECT id FROM task_instance WHERE dag_run_id = ? \
                 AND state IN ('up_for_retry', 'up_for_reschedule') AND due_at <= ?) \
                 ORDER BY id LIMIT ? {lock}",
                values![dag_run_id, dag_run_id, now, limit],
            );
        })
        .await
    }
}
