use async_trait::async_trait;
use gust_model::{
    DagId, DagRunId, MapIndex, RunId, TaskId, TaskInstanceId,
    record::{StateStoreScope, Timestamp, XCom, XComKey},
};
use serde_json::Value;

use super::{Listing, MetastoreError};

/// Which XComs. Everything given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct XComFilter {
    /// Only of this DAG.
    pub dag_id: Option<DagId>,
    /// Only of this run.
    pub run_id: Option<RunId>,
    /// Only of this task.
    pub task_id: Option<TaskId>,
    /// Only at this index.
    pub map_index: Option<MapIndex>,
    /// Only with this key.
    pub key: Option<String>,
}

/// What tasks leave behind: XComs, rendered fields, state stores.
#[async_trait]
pub trait XComRows: Send {
    /// An XCom.
    async fn xcom(&mut self, key: &XComKey) -> Result<Option<XCom>, MetastoreError>;

    /// Writes XComs, new or not.
    async fn put_xcoms(&mut self, xcoms: &[XCom]) -> Result<(), MetastoreError>;

    /// Removes an XCom; false if there was none.
    async fn delete_xcom(&mut self, key: &XComKey) -> Result<bool, MetastoreError>;

    /// Removes all XComs of a task at an index, as a new try does. The skip mixin's stays if asked.
    async fn clear_xcoms(
        &mut self,
        dag_run_id: DagRunId,
        task_id: &TaskId,
        map_index: MapIndex,
    ) -> Result<(), MetastoreError>;

    /// The XComs of a task under a key at map indexes 0 and up, by index, after `offset`, at most `limit`.
    async fn xcom_sequence(
        &mut self,
        dag_run_id: DagRunId,
        task_id: &TaskId,
        key: &str,
        offset: u32,
        limit: u32,
    ) -> Result<Vec<XCom>, MetastoreError>;

    /// How many XComs a task has under a key at map indexes 0 and up.
    async fn xcom_count(
        &mut self,
        dag_run_id: DagRunId,
        task_id: &TaskId,
        key: &str,
    ) -> Result<u32, MetastoreError>;

    /// The XCom of a task in the newest run whose logical date is not after `logical_date`, this run included.
    async fn latest_xcom(
        &mut self,
        dag_id: &DagId,
        task_id: &TaskId,
        map_index: MapIndex,
        key: &str,
        logical_date: Timestamp,
    ) -> Result<Option<XCom>, MetastoreError>;

    /// XComs by filter, by task, index and key.
    async fn xcoms(
        &mut self,
        filter: &XComFilter,
        limit: u32,
        offset: u32,
    ) -> Result<Listing<XCom>, MetastoreError>;

    /// The mapped lengths of the return values of tasks: task, index of who pushed, length.
    async fn map_lengths(
        &mut self,
        dag_run_id: DagRunId,
        task_ids: &[TaskId],
    ) -> Result<Vec<(TaskId, MapIndex, u32)>, MetastoreError>;

    /// Stores a task instance's rendered fields, an object of JSON values.
    async fn put_rendered_fields(&mut self, id: TaskInstanceId, fields: &Value)
    -> Result<(), MetastoreError>;

    /// A task instance's rendered fields.
    async fn rendered_fields(&mut self, id: TaskInstanceId) -> Result<Option<Value>, MetastoreError>;

    /// An entry of a state store, with the moment it lapses.
    async fn state_store_get(
        &mut self,
        scope: &StateStoreScope,
        key: &str,
    ) -> Result<Option<Value>, MetastoreError>;

    /// Writes an entry of a state store.
    async fn state_store_put(
        &mut self,
        scope: &StateStoreScope,
        key: &str,
        value: &Value,
        expires_at: Option<Timestamp>,
    ) -> Result<(), MetastoreError>;

    /// Removes an entry of a state store, or all of it.
    async fn state_store_delete(
        &mut self,
        scope: &StateStoreScope,
        key: Option<&str>,
    ) -> Result<(), MetastoreError>;
}
