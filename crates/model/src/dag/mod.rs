//! The DAG graph, read from the form in which Airflow serializes DAGs (`DagSerialization.to_dict`, format version 3).
//!
//! [`Dag::from_serialized`] checks everything that planning relies on, so that what holds a [`Dag`] need not check
//! again: every edge leads to a task, no tasks wait for each other in a circle, every group is read. Tasks are numbered
//! in the order of the file ([`TaskIndex`]); what planning asks for again and again is worked out once ([`TaskLinks`]).

mod asset;
mod canonical;
mod error;
mod expand;
mod graph;
mod group;
mod reader;
mod rules;
mod task;

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use serde_json::{Map, Value};

pub use asset::AssetLike;
pub use canonical::{canonical_json, stable_hash};
pub use error::{DagError, DagPlace};
pub use expand::{ExpandArgument, ExpandInput, XComArg};
pub use graph::TaskLinks;
pub use group::{GroupChild, TaskGroup};
pub use rules::{TriggerRule, WeightRule};
pub use task::{MAX_RETRY_DELAY_S, StartTrigger, Task};

use self::{expand::ExpandError, reader::Reader};
use crate::{DagId, TaskId, record::Timestamp};

/// The format version that is read.
const FORMAT_VERSION: i64 = 3;

/// A task's position in its DAG's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskIndex(pub u32);

impl TaskIndex {
    #[expect(clippy::cast_possible_truncation, reason = "A file of 2^32 tasks cannot be read at all.")]
    fn new(at: usize) -> Self {
        Self(at as u32)
    }

    /// The index as a position in a list of all tasks.
    #[must_use]
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// A task group's number within its DAG; the root is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupIndex(pub u32);

impl GroupIndex {
    /// The group that holds all.
    pub const ROOT: Self = Self(0);

    #[expect(clippy::cast_possible_truncation, reason = "A file of 2^32 groups cannot be read at all.")]
    fn new(at: usize) -> Self {
        Self(at as u32)
    }

    fn at(self) -> usize {
        self.0 as usize
    }
}

/// A DAG's graph and attributes (`airflow/serialization/definitions/dag.py: SerializedDAG`).
#[derive(Debug, Clone, PartialEq)]
pub struct Dag {
    /// Its id.
    pub dag_id: DagId,
    /// Its name as pages show it, where it differs from the id.
    pub display_name: Option<String>,
    /// One line about it.
    pub description: Option<String>,
    /// Text for pages.
    pub doc_md: Option<String>,
    /// Its file.
    pub fileloc: String,
    /// Its file, relative to the bundle.
    pub relative_fileloc: Option<String>,
    /// Its time zone as serialized: a name, or an offset in seconds.
    pub timezone: Value,
    /// Its timetable as serialized.
    pub timetable: Value,
    /// No runs stand for earlier dates.
    pub start_date: Option<Timestamp>,
    /// No runs stand for later dates.
    pub end_date: Option<Timestamp>,
    /// Whether missed runs are made up for.
    pub catchup: bool,
    /// How many of its runs may be running at once.
    pub max_active_runs: i32,
    /// How many task instances of one of its runs may be executing at once.
    pub max_active_tasks: i32,
    /// After how many failed runs in a row it is paused; 0 for never.
    pub max_consecutive_failed_dag_runs: u32,
    /// How long a run may take.
    pub dagrun_timeout: Option<TimeDelta>,
    /// Whether the first failed task stops the others.
    pub fail_fast: bool,
    /// Whether it has a callback for its success.
    pub has_on_success_callback: bool,
    /// Whether it has one for its failure.
    pub has_on_failure_callback: bool,
    /// Whether it begins paused; the configuration decides if absent.
    pub is_paused_upon_creation: Option<bool>,
    /// The kinds of runs that it allows; any if absent.
    pub allowed_run_types: Option<BTreeSet<String>>,
    /// Its deadlines, serialized; null if none.
    pub deadline: Value,
    /// Its tags.
    pub tags: BTreeSet<String>,
    /// Its parameters, serialized: a list of name and definition.
    pub params: Value,
    /// Labels of edges, by upstream and downstream.
    pub edge_info: Value,
    /// What it has to do with other DAGs and assets, serialized.
    pub dag_dependencies: Vec<Value>,
    /// Whether its runs follow the newest bundle version rather than the one they began with.
    pub disable_bundle_versioning: bool,
    /// Whether a clear takes the newest version; the configuration decides if absent.
    pub rerun_with_latest_version: Option<bool>,
    /// All other attributes of the serialized DAG as they are.
    pub attributes: Map<String, Value>,
    tasks: Vec<Task>,
    links: Vec<TaskLinks>,
    groups: Vec<TaskGroup>,
    by_id: BTreeMap<TaskId, TaskIndex>,
    topological: Vec<TaskIndex>,
    roots: Vec<TaskIndex>,
    state_leaves: Vec<TaskIndex>,
}

impl Dag {
    /// Reads a serialized DAG: the envelope with `__version`, `dag` and perhaps `client_defaults`.
    ///
    /// # Errors
    /// What cannot be read, where, and what was expected.
    pub fn from_serialized(serialized: &Value) -> Result<Self, DagError> {
        let envelope = envelope(serialized)?;
        let no_defaults = Map::new();
        let client_defaults =
            serialized.pointer("/client_defaults/tasks").and_then(Value::as_object).unwrap_or(&no_defaults);
        let place = DagPlace::Dag;
        let layers = [envelope];
        let nameless = Reader { dag: "?", place: &place, layers: &layers };
        let dag_id = nameless.required_text("dag_id")?;
        let reader = Reader { dag: dag_id, ..nameless };

        let (mut tasks, own_values) = read_tasks(&reader, client_defaults)?;
        let mut by_id = BTreeMap::new();
        for (at, task) in tasks.iter().enumerate() {
            if by_id.insert(task.task_id.clone(), TaskIndex::new(at)).is_some() {
                return Err(DagError::DuplicateTask {
                    dag: dag_id.into(),
                    task: task.task_id.as_str().into(),
                });
            }
        }
        let start_date = reader.timestamp("start_date")?;
        let end_date = reader.timestamp("end_date")?;
        for (task, own) in tasks.iter_mut().zip(&own_values) {
            task.start_date = task.start_date.or(start_date);
            task.end_date = task.end_date.or(end_date);
            task.expand = read_task_expand(dag_id, task, own, &by_id)?;
        }
        let groups = read_groups(&reader, &mut tasks, &by_id)?;
        for task in &mut tasks {
            let mut around = Some(task.group);
            while let Some(group) = around {
                task.needs_expansion |= groups[group.at()].expand.is_some();
                around = groups[group.at()].parent;
            }
        }
        let edges = edges(dag_id, &tasks, &by_id)?;
        let (links, topological) = graph::link(dag_id, &tasks, &groups, &edges)?;
        let roots = indices(&tasks, |at| links[at].upstream.is_empty());
        let state_leaves = state_leaves(&tasks, &links);

        Ok(Self {
            dag_id: DagId::from(dag_id),
            display_name: reader.owned_text("dag_display_name")?,
            description: match reader.owned_text("description")? {
                Some(text) => Some(text),
                None => reader.owned_text("_description")?,
            },
            doc_md: reader.owned_text("doc_md")?,
            fileloc: reader.text("fileloc")?.unwrap_or_default().to_owned(),
            relative_fileloc: reader.owned_text("relative_fileloc")?,
            timezone: reader.get("timezone").cloned().unwrap_or_else(|| Value::from("UTC")),
            timetable: reader.raw("timetable"),
            start_date,
            end_date,
            catchup: reader.is_set("catchup")?,
            max_active_runs: reader.integer("max_active_runs")?.unwrap_or(16),
            max_active_tasks: reader.integer("max_active_tasks")?.unwrap_or(16),
            max_consecutive_failed_dag_runs: reader.positive("max_consecutive_failed_dag_runs")?.unwrap_or(0),
            dagrun_timeout: reader.duration("dagrun_timeout")?,
            fail_fast: reader.is_set("fail_fast")?,
            has_on_success_callback: reader.is_set("has_on_success_callback")?,
            has_on_failure_callback: reader.is_set("has_on_failure_callback")?,
            is_paused_upon_creation: reader.flag("is_paused_upon_creation")?,
            allowed_run_types: match reader.get("allowed_run_types") {
                None => None,
                Some(_) => Some(reader.texts("allowed_run_types")?.into_iter().collect::<BTreeSet<_>>())
                    .filter(|types| !types.is_empty()),
            },
            deadline: reader.raw("deadline"),
            tags: reader.texts("tags")?.into_iter().collect(),
            params: reader.raw("params"),
            edge_info: reader.raw("edge_info"),
            dag_dependencies: reader.list("dag_dependencies")?.to_vec(),
            disable_bundle_versioning: reader.is_set("disable_bundle_versioning")?,
            rerun_with_latest_version: reader.flag("rerun_with_latest_version")?,
            attributes: envelope
                .iter()
                .filter(|(key, _)| !matches!(key.as_str(), "tasks" | "task_group"))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            tasks,
            links,
            groups,
            by_id,
            topological,
            roots,
            state_leaves,
        })
    }

    /// All tasks, in the order of the file.
    #[must_use]
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// All task indexes, in the order of the file.
    pub fn task_indexes(&self) -> impl Iterator<Item = TaskIndex> + use<> {
        (0..self.tasks.len()).map(TaskIndex::new)
    }

    /// A task. The index must be this DAG's.
    #[must_use]
    pub fn task(&self, task: TaskIndex) -> &Task {
        &self.tasks[task.at()]
    }

    /// A task's neighbours. The index must be this DAG's.
    #[must_use]
    pub fn links(&self, task: TaskIndex) -> &TaskLinks {
        &self.links[task.at()]
    }

    /// A task by id.
    #[must_use]
    pub fn index_of(&self, task_id: &str) -> Option<TaskIndex> {
        self.by_id.get(task_id).copied()
    }

    /// All groups; the first is the root.
    #[must_use]
    pub fn groups(&self) -> &[TaskGroup] {
        &self.groups
    }

    /// A group. The index must be this DAG's.
    #[must_use]
    pub fn group(&self, group: GroupIndex) -> &TaskGroup {
        &self.groups[group.at()]
    }

    /// The tasks so that each comes after those before it.
    #[must_use]
    pub fn topological(&self) -> &[TaskIndex] {
        &self.topological
    }

    /// The tasks with nothing before them.
    #[must_use]
    pub fn roots(&self) -> &[TaskIndex] {
        &self.roots
    }

    /// The tasks whose states decide what a run comes to: those with nothing after them, teardowns left out unless
    /// they ask to count (`airflow/models/dagrun.py: DagRun._tis_for_dagrun_state`).
    #[must_use]
    pub fn state_leaves(&self) -> &[TaskIndex] {
        &self.state_leaves
    }

    /// All tasks somewhere after (or, with `upstream`, before) one, sorted.
    #[must_use]
    pub fn flat_relatives(&self, task: TaskIndex, upstream: bool) -> Vec<TaskIndex> {
        let next = |at: TaskIndex| {
            let links = self.links(at);
            if upstream { &links.upstream } else { &links.downstream }
        };
        let mut found = BTreeSet::new();
        let mut stack = next(task).clone();
        while let Some(current) = stack.pop() {
            if found.insert(current) {
                stack.extend_from_slice(next(current));
            }
        }
        found.into_iter().collect()
    }

    /// The owners of its tasks, sorted, joined by commas.
    #[must_use]
    pub fn owners(&self) -> String {
        let owners: BTreeSet<&str> = self.tasks.iter().map(|task| task.owner.as_str()).collect();
        owners.into_iter().collect::<Vec<_>>().join(", ")
    }

    /// Whether some task waits for the run before.
    #[must_use]
    pub fn depends_on_past(&self) -> bool {
        self.tasks.iter().any(|task| task.depends_on_past)
    }

    /// Whether some task limits how many of its instances may be executing.
    #[must_use]
    pub fn has_task_concurrency_limits(&self) -> bool {
        self.tasks.iter().any(Task::has_concurrency_limit)
    }
}

fn indices(tasks: &[Task], keep: impl Fn(usize) -> bool) -> Vec<TaskIndex> {
    (0..tasks.len()).filter(|&at| keep(at)).map(TaskIndex::new).collect()
}

fn state_leaves(tasks: &[Task], links: &[TaskLinks]) -> Vec<TaskIndex> {
    let counts = |at: usize| !tasks[at].is_teardown || tasks[at].on_failure_fail_dagrun;
    let leaves =
        indices(tasks, |at| counts(at) && !links[at].downstream.iter().any(|next| counts(next.at())));
    // A DAG of nothing but teardowns.
    if leaves.is_empty() { indices(tasks, |at| links[at].downstream.is_empty()) } else { leaves }
}

fn envelope(serialized: &Value) -> Result<&Map<String, Value>, DagError> {
    let version = serialized.get("__version");
    if version.and_then(Value::as_i64) != Some(FORMAT_VERSION) {
        return Err(DagError::Version {
            found: version.map_or_else(|| "none".into(), |value| reader::excerpt(value).into()),
            readable: FORMAT_VERSION,
        });
    }
    serialized.get("dag").and_then(Value::as_object).ok_or_else(|| DagError::Malformed {
        dag: "?".into(),
        place: DagPlace::Dag,
        field: "dag".into(),
        expected: "an object".into(),
        found: serialized.get("dag").map_or_else(|| "nothing".into(), |value| reader::excerpt(value).into()),
    })
}

/// Reads the tasks, and returns beside them each one's serialized values.
#[expect(clippy::type_complexity, reason = "Two parallel lists, taken apart at once.")]
fn read_tasks<'a>(
    dag: &Reader<'a>,
    client_defaults: &Map<String, Value>,
) -> Result<(Vec<Task>, Vec<&'a Map<String, Value>>), DagError> {
    let items = dag.list("tasks")?;
    let mut tasks = Vec::with_capacity(items.len());
    let mut own_values = Vec::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        let own = reader::untyped(item, "operator").as_object().ok_or_else(|| {
            dag.malformed(&format!("tasks[{position}]"), "a serialized operator", Some(item))
        })?;
        let name =
            own.get("task_id").and_then(Value::as_str).map_or_else(|| format!("#{position}"), str::to_owned);
        let place = DagPlace::Task(name.into());
        let is_mapped = own.get("_is_mapped").and_then(Value::as_bool).unwrap_or(false);
        let no_partial = Map::new();
        let partial = if is_mapped {
            own.get("partial_kwargs").and_then(Value::as_object).unwrap_or(&no_partial)
        } else {
            &no_partial
        };
        let layers = [partial, own, client_defaults];
        let reader = Reader { dag: dag.dag, place: &place, layers: &layers };
        tasks.push(Task::read(&reader, own, is_mapped)?);
        own_values.push(own);
    }
    Ok((tasks, own_values))
}

fn read_task_expand(
    dag_id: &str,
    task: &Task,
    own: &Map<String, Value>,
    by_id: &BTreeMap<TaskId, TaskIndex>,
) -> Result<Option<ExpandInput>, DagError> {
    if !own.get("_is_mapped").and_then(Value::as_bool).unwrap_or(false) {
        return Ok(None);
    }
    let field = own.get("_expand_input_attr").and_then(Value::as_str).unwrap_or("expand_input");
    read_expand(dag_id, &DagPlace::Task(task.task_id.as_str().into()), field, own.get(field), by_id).map(Some)
}

fn read_expand(
    dag_id: &str,
    place: &DagPlace,
    field: &str,
    value: Option<&Value>,
    by_id: &BTreeMap<TaskId, TaskIndex>,
) -> Result<ExpandInput, DagError> {
    let malformed = |expected: &str| DagError::Malformed {
        dag: dag_id.into(),
        place: place.clone(),
        field: field.into(),
        expected: expected.into(),
        found: value.map_or_else(|| "nothing".into(), |value| reader::excerpt(value).into()),
    };
    let given = value.ok_or_else(|| malformed("what it is mapped over"))?;
    ExpandInput::read(given, &|task_id| by_id.get(task_id).copied()).map_err(|error| match error {
        ExpandError::Expected(expected) => malformed(expected),
        ExpandError::UnknownTask(missing) => DagError::UnknownTask {
            dag: dag_id.into(),
            place: place.clone(),
            field: field.into(),
            missing: missing.into(),
        },
    })
}

fn edges(
    dag_id: &str,
    tasks: &[Task],
    by_id: &BTreeMap<TaskId, TaskIndex>,
) -> Result<Vec<Vec<TaskIndex>>, DagError> {
    tasks
        .iter()
        .map(|task| {
            task.downstream_ids
                .iter()
                .map(|id| {
                    by_id.get(id.as_str()).copied().ok_or_else(|| DagError::UnknownTask {
                        dag: dag_id.into(),
                        place: DagPlace::Task(task.task_id.as_str().into()),
                        field: "downstream_task_ids".into(),
                        missing: id.as_str().into(),
                    })
                })
                .collect()
        })
        .collect()
}

/// Reads the groups and notes each task's innermost one in it. Tasks that no group names are in the root.
fn read_groups(
    dag: &Reader<'_>,
    tasks: &mut [Task],
    by_id: &BTreeMap<TaskId, TaskIndex>,
) -> Result<Vec<TaskGroup>, DagError> {
    let empty = Map::new();
    let root = dag.object("task_group")?.unwrap_or(&empty);
    let mut groups = Vec::new();
    read_group_tree(dag.dag, root, None, by_id, tasks, &mut groups)?;
    Ok(groups)
}

/// Reads a group and what is in it. The depth is bounded: the JSON reader refuses deep nesting.
fn read_group_tree(
    dag_id: &str,
    object: &Map<String, Value>,
    parent: Option<GroupIndex>,
    by_id: &BTreeMap<TaskId, TaskIndex>,
    tasks: &mut [Task],
    groups: &mut Vec<TaskGroup>,
) -> Result<GroupIndex, DagError> {
    let index = GroupIndex::new(groups.len());
    let group = read_group(dag_id, object, parent.map(|parent| (parent, &groups[parent.at()])), by_id)?;
    let place = DagPlace::TaskGroup(group.group_id.as_deref().unwrap_or_default().into());
    groups.push(group);
    let layers = [object];
    let reader = Reader { dag: dag_id, place: &place, layers: &layers };
    let empty = Map::new();
    for (label, child) in reader.object("children")?.unwrap_or(&empty) {
        let child = match (child.get(0).and_then(Value::as_str), child.get(1)) {
            (Some("operator"), Some(Value::String(task_id))) => {
                let task = by_id.get(task_id.as_str()).copied().ok_or_else(|| DagError::UnknownTask {
                    dag: dag_id.into(),
                    place: place.clone(),
                    field: "children".into(),
                    missing: task_id.as_str().into(),
                })?;
                tasks[task.at()].group = index;
                GroupChild::Task(task)
            }
            (Some("taskgroup"), Some(Value::Object(inner))) => {
                GroupChild::Group(read_group_tree(dag_id, inner, Some(index), by_id, tasks, groups)?)
            }
            _ => {
                let expected = "a list of \"operator\" and a task id, or of \"taskgroup\" and a group";
                return Err(reader.malformed(&format!("children.{label}"), expected, Some(child)));
            }
        };
        groups[index.at()].children.push(child);
    }
    Ok(index)
}

fn read_group(
    dag_id: &str,
    object: &Map<String, Value>,
    parent: Option<(GroupIndex, &TaskGroup)>,
    by_id: &BTreeMap<TaskId, TaskIndex>,
) -> Result<TaskGroup, DagError> {
    let own_id = object.get("_group_id").and_then(Value::as_str).filter(|id| !id.is_empty());
    let prefix =
        parent.filter(|(_, group)| group.prefix_group_id).and_then(|(_, group)| group.group_id.as_deref());
    let group_id = own_id.map(|id| match prefix {
        Some(prefix) => format!("{prefix}.{id}"),
        None => id.to_owned(),
    });
    let place = DagPlace::TaskGroup(group_id.as_deref().unwrap_or_default().into());
    let layers = [object];
    let reader = Reader { dag: dag_id, place: &place, layers: &layers };
    let expand = if reader.is_set("is_mapped")? {
        Some(read_expand(dag_id, &place, "expand_input", object.get("expand_input"), by_id)?)
    } else {
        None
    };
    Ok(TaskGroup {
        display_name: reader.text("group_display_name")?.unwrap_or_default().to_owned(),
        prefix_group_id: reader.flag("prefix_group_id")?.unwrap_or(true),
        parent: parent.map(|(index, _)| index),
        children: Vec::new(),
        expand,
        tooltip: reader.text("tooltip")?.unwrap_or_default().to_owned(),
        doc_md: reader.owned_text("doc_md")?,
        upstream_group_ids: reader.texts("upstream_group_ids")?,
        downstream_group_ids: reader.texts("downstream_group_ids")?,
        upstream_task_ids: reader.texts("upstream_task_ids")?,
        downstream_task_ids: reader.texts("downstream_task_ids")?,
        attributes: Value::Object(
            object
                .iter()
                .filter(|(key, _)| *key != "children")
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        ),
        group_id,
    })
}
