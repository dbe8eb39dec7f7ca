//! Writes that nobody waits for: kept until somebody could see that they are missing, or for a moment.

use std::time::Duration;

use gust_model::{
    TaskInstanceState,
    record::{TaskInstance, XCom, XComKey},
};
use gust_ports::{
    Tx,
    metastore::{Guard, TaskInstancePatch, TaskInstanceWrite},
};
use gust_python_host::messages::SkippedTask;
use serde_json::Value;

use super::Asker;
use crate::{error::WorkerError, persist::changed_meanwhile};

/// A write of the asker's.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Write {
    PutXCom(Box<XCom>),
    DeleteXCom(XComKey),
    RenderedFields(Value),
    RenderedMapIndex(String),
    Skip(Vec<SkippedTask>),
}

/// Writes in the order in which they were asked for.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    writes: Vec<Write>,
    since: Option<Duration>,
}

impl Buffer {
    pub(crate) fn push(&mut self, write: Write, now: Duration) {
        self.since.get_or_insert(now);
        self.writes.push(write);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(crate) fn since(&self) -> Option<Duration> {
        self.since
    }

    pub(crate) fn writes(&self) -> &[Write] {
        &self.writes
    }

    pub(crate) fn take(&mut self) -> Vec<Write> {
        self.since = None;
        std::mem::take(&mut self.writes)
    }

    /// Whether an XCom of this task is among them. Runs are not told apart: a request may reach over several.
    pub(crate) fn has_xcom_of(&self, dag_id: &str, task_id: &str) -> bool {
        self.writes.iter().any(|write| match write {
            Write::PutXCom(xcom) => xcom.dag_id == *dag_id && xcom.key.task_id == *task_id,
            Write::DeleteXCom(key) => key.task_id == *task_id,
            _ => false,
        })
    }

    pub(crate) fn has_skips(&self) -> bool {
        self.writes.iter().any(|write| matches!(write, Write::Skip(_)))
    }
}

/// Makes the writes, in order. The caller has fenced them.
pub(crate) async fn apply(tx: &mut dyn Tx, asker: &Asker, writes: &[Write]) -> Result<(), WorkerError> {
    let mut xcoms: Vec<XCom> = Vec::new();
    for write in writes {
        if !matches!(write, Write::PutXCom(_)) && !xcoms.is_empty() && touches_xcoms(write) {
            tx.put_xcoms(&std::mem::take(&mut xcoms)).await?;
        }
        match write {
            Write::PutXCom(xcom) => {
                // Of two writes of one key the later holds, and one statement must not write a row twice.
                xcoms.retain(|earlier| earlier.key != xcom.key);
                xcoms.push((**xcom).clone());
            }
            Write::DeleteXCom(key) => {
                tx.delete_xcom(key).await?;
            }
            Write::RenderedFields(fields) => tx.put_rendered_fields(asker.task_instance.id, fields).await?,
            Write::RenderedMapIndex(index) => {
                let patch = TaskInstancePatch {
                    rendered_map_index: Some(Some(index.clone())),
                    ..TaskInstancePatch::default()
                };
                let write = TaskInstanceWrite { id: asker.task_instance.id, guard: Guard::Any, patch };
                tx.update_task_instances(&[write]).await?;
            }
            Write::Skip(tasks) => skip(tx, asker, tasks).await?,
        }
    }
    if !xcoms.is_empty() {
        tx.put_xcoms(&xcoms).await?;
    }
    Ok(())
}

fn touches_xcoms(write: &Write) -> bool {
    matches!(write, Write::DeleteXCom(_))
}

/// Skips what has not run (`airflow/api_fastapi/execution_api/routes/task_instances.py: ti_skip_downstream`).
async fn skip(tx: &mut dyn Tx, asker: &Asker, tasks: &[SkippedTask]) -> Result<(), WorkerError> {
    let wanted: Vec<(&str, i64)> = tasks
        .iter()
        .map(|task| match task {
            SkippedTask::Task(id) => (id.as_str(), -1),
            SkippedTask::Mapped(id, index) => (id.as_str(), *index),
        })
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut ids: Vec<gust_model::TaskId> = wanted.iter().map(|(id, _)| (*id).into()).collect();
    ids.sort();
    ids.dedup();
    let now = tx.now().await?;
    let rows = tx.task_instances_of(asker.run.id, &ids).await?;
    let is_wanted = |row: &TaskInstance| wanted.contains(&(row.task_id.as_str(), i64::from(row.map_index.0)));
    let writes: Vec<TaskInstanceWrite> = rows
        .iter()
        .filter(|row| is_wanted(row) && is_skippable(row, &asker.task_instance))
        .map(|row| TaskInstanceWrite {
            id: row.id,
            guard: Guard::ChangeSeq(row.change_seq),
            patch: TaskInstancePatch {
                state: Some(TaskInstanceState::Skipped),
                is_dirty: Some(true),
                start_date: Some(Some(now)),
                end_date: Some(Some(now)),
                due_at: Some(None),
                // A message that is out for it must find nothing to claim.
                next_epoch: row.state == TaskInstanceState::Queued,
                resend_at: Some(None),
                ..TaskInstancePatch::default()
            },
        })
        .collect();
    if tx.update_task_instances(&writes).await?.len() < writes.len() {
        // One of them moved between the read and the write; it may have begun to run.
        return Err(changed_meanwhile("a task instance to skip"));
    }
    Ok(())
}

/// What runs or has run stays; all else is skipped, also a task that had been given up because of an upstream
/// (`airflow/api_fastapi/execution_api/routes/task_instances.py: ti_skip_downstream`). Airflow skips whatever waits for
/// a worker, so that there the outcome depends on how busy they are; here what was runnable no later than the task that
/// skips it stays, as it would have begun by then with workers to spare.
fn is_skippable(row: &TaskInstance, skipper: &TaskInstance) -> bool {
    use TaskInstanceState as S;
    match row.state {
        S::Running | S::Restarting | S::Success | S::Failed => false,
        S::Scheduled | S::Queued => row.scheduled_at > skipper.scheduled_at,
        _ => true,
    }
}
