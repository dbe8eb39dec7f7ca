use serde_json::Value;

use super::{ExpandInput, GroupIndex, TaskIndex};

/// What a task group holds, in the order in which its author added it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupChild {
    /// A task.
    Task(TaskIndex),
    /// A group.
    Group(GroupIndex),
}

/// A task group (`airflow/serialization/definitions/taskgroup.py`). The first one of a DAG is its root and has no id.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskGroup {
    /// Its id with the ids of the groups around it as prefix; none for the root.
    pub group_id: Option<String>,
    /// Its name as pages show it.
    pub display_name: String,
    /// Whether the ids of what is in it begin with its own.
    pub prefix_group_id: bool,
    /// The group around it.
    pub parent: Option<GroupIndex>,
    /// What is in it.
    pub children: Vec<GroupChild>,
    /// What it is mapped over, for a mapped group.
    pub expand: Option<ExpandInput>,
    /// One line for pages.
    pub tooltip: String,
    /// Text for pages.
    pub doc_md: Option<String>,
    /// Groups that come before it.
    pub upstream_group_ids: Vec<String>,
    /// Groups that come after it.
    pub downstream_group_ids: Vec<String>,
    /// Tasks that come before it.
    pub upstream_task_ids: Vec<String>,
    /// Tasks that come after it.
    pub downstream_task_ids: Vec<String>,
    /// The serialized group without its children.
    pub attributes: Value,
}
