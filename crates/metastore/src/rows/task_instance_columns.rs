//! The columns of a task instance, which the rows of tries that are over have too.

use std::sync::LazyLock;

use gust_model::{
    DagRunId, DagVersionId, Epoch, MapIndex, TaskInstanceId, TriggerId,
    record::{Lease, TaskInstance},
};
use gust_ports::MetastoreError;

use super::prefixed;
use crate::{
    connection::Row,
    dialect::{Value, values},
};

/// The columns in the order in which [`values_of`] gives their values.
const NAMES: [&str; 41] = [
    "id",
    "dag_run_id",
    "dag_id",
    "run_id",
    "task_id",
    "map_index",
    "state",
    "accounted_state",
    "is_dirty",
    "change_seq",
    "try_number",
    "max_tries",
    "epoch",
    "lease_attempt_id",
    "lease_expires_at",
    "scheduled_at",
    "queued_at",
    "resend_at",
    "send_count",
    "start_date",
    "end_date",
    "due_at",
    "pool",
    "pool_slots",
    "queue",
    "priority_weight",
    "executor",
    "operator",
    "operator_name",
    "task_display_name",
    "rendered_map_index",
    "hostname",
    "pid",
    "next_method",
    "next_kwargs",
    "trigger_id",
    "retry_delay_override",
    "retry_reason",
    "dag_version_id",
    "note",
    "updated_at",
];

/// The columns of a statement over one table.
pub(super) static COLUMNS: LazyLock<String> = LazyLock::new(|| NAMES.join(", "));

/// The columns of a statement that calls the table `ti`.
pub(super) static TI_COLUMNS: LazyLock<String> = LazyLock::new(|| prefixed("ti", &NAMES));

/// A value's place for each column, in parentheses left open: `(?, ?, …`.
pub(super) static PLACES: LazyLock<String> = LazyLock::new(|| format!("({}", ["?"; NAMES.len()].join(", ")));

pub(super) fn values_of(row: &TaskInstance) -> [Value; NAMES.len()] {
    values![
        row.id,
        row.dag_run_id,
        &row.dag_id,
        &row.run_id,
        &row.task_id,
        row.map_index,
        row.state,
        row.accounted_state,
        row.is_dirty,
        row.change_seq,
        row.try_number,
        row.max_tries,
        row.epoch,
        row.lease.map(|lease: Lease| lease.attempt_id),
        row.lease.map(|lease| lease.expires_at),
        row.scheduled_at,
        row.queued_at,
        row.resend_at,
        row.send_count,
        row.start_date,
        row.end_date,
        row.due_at,
        &row.pool,
        row.pool_slots,
        &row.queue,
        row.priority_weight,
        &row.executor,
        &row.operator,
        &row.operator_name,
        &row.task_display_name,
        &row.rendered_map_index,
        &row.hostname,
        row.pid,
        &row.next_method,
        &row.next_kwargs,
        row.trigger_id,
        row.retry_delay_override,
        &row.retry_reason,
        row.dag_version_id,
        &row.note,
        row.updated_at,
    ]
}

pub(super) fn read(row: &Row) -> Result<TaskInstance, MetastoreError> {
    let r = row.of("task_instance");
    Ok(TaskInstance {
        id: TaskInstanceId(r.uuid("id")?),
        dag_run_id: DagRunId(r.uuid("dag_run_id")?),
        dag_id: r.text("dag_id")?,
        run_id: r.text("run_id")?,
        task_id: r.text("task_id")?,
        map_index: MapIndex(r.small("map_index")?),
        state: r.name("state")?,
        accounted_state: r.name("accounted_state")?,
        is_dirty: r.flag("is_dirty")?,
        change_seq: r.int("change_seq")?,
        try_number: r.small("try_number")?,
        max_tries: r.small("max_tries")?,
        epoch: Epoch(r.int("epoch")?),
        lease: r.lease()?,
        scheduled_at: r.time_or_null("scheduled_at")?,
        queued_at: r.time_or_null("queued_at")?,
        resend_at: r.time_or_null("resend_at")?,
        send_count: r.small("send_count")?,
        start_date: r.time_or_null("start_date")?,
        end_date: r.time_or_null("end_date")?,
        due_at: r.time_or_null("due_at")?,
        pool: r.text("pool")?,
        pool_slots: r.small("pool_slots")?,
        queue: r.text("queue")?,
        priority_weight: r.int("priority_weight")?,
        executor: r.text_or_null("executor")?,
        operator: r.text("operator")?,
        operator_name: r.text_or_null("operator_name")?,
        task_display_name: r.text_or_null("task_display_name")?,
        rendered_map_index: r.text_or_null("rendered_map_index")?,
        hostname: r.text_or_null("hostname")?,
        pid: r.small_or_null("pid")?,
        next_method: r.text_or_null("next_method")?,
        next_kwargs: r.json("next_kwargs")?,
        trigger_id: r.uuid_or_null("trigger_id")?.map(TriggerId),
        retry_delay_override: r.float_or_null("retry_delay_override")?,
        retry_reason: r.text_or_null("retry_reason")?,
        dag_version_id: DagVersionId(r.uuid("dag_version_id")?),
        note: r.text_or_null("note")?,
        updated_at: r.time("updated_at")?,
    })
}
