use chrono::TimeDelta;
use serde_json::{Map, Value};

use super::{
    AssetLike, DagError, ExpandInput, GroupIndex, TriggerRule, WeightRule,
    reader::{Reader, untyped},
};
use crate::{PoolName, QueueName, TaskId, record::Timestamp};

/// Longest retry delay, in seconds: a day (`airflow/sdk/definitions/_internal/abstractoperator.py: MAX_RETRY_DELAY`).
pub const MAX_RETRY_DELAY_S: i64 = 24 * 60 * 60;

/// What starts a task without a worker (`airflow/triggers/base.py: StartTriggerArgs`).
#[derive(Debug, Clone, PartialEq)]
pub struct StartTrigger {
    /// The trigger's class.
    pub classpath: String,
    /// Its arguments, serialized.
    pub kwargs: Value,
    /// The method to resume with.
    pub next_method: String,
    /// Its arguments, serialized; null if none.
    pub next_kwargs: Value,
    /// How long it may take.
    pub timeout: Option<TimeDelta>,
}

/// A task of a DAG (`airflow/serialization/definitions/baseoperator.py`, `mappedoperator.py`).
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its id.
    pub task_id: TaskId,
    /// The operator's class name.
    pub task_type: String,
    /// The module of that class.
    pub task_module: String,
    /// The operator's name as pages show it, where it differs from the class.
    pub operator_name: Option<String>,
    /// Its name as pages show it, where it differs from the id.
    pub display_name: Option<String>,
    /// Who owns it.
    pub owner: String,
    /// The innermost group it is in.
    pub group: GroupIndex,
    /// What it is mapped over, for a mapped task.
    pub expand: Option<ExpandInput>,
    /// Whether it is mapped itself or within a mapped group.
    pub needs_expansion: bool,
    /// When it may run.
    pub trigger_rule: TriggerRule,
    /// Whether it sets something up.
    pub is_setup: bool,
    /// Whether it tears something down.
    pub is_teardown: bool,
    /// Whether the run fails if this teardown does.
    pub on_failure_fail_dagrun: bool,
    /// Whether it waits for itself in the run before.
    pub depends_on_past: bool,
    /// Whether it runs where the run before does not have it.
    pub ignore_first_depends_on_past: bool,
    /// Whether it also waits for its direct downstreams in the run before.
    pub wait_for_downstream: bool,
    /// Whether skips wait for the past as well. Airflow 3.3's scheduler never asks for it.
    pub wait_for_past_depends_before_skipping: bool,
    /// How many tries it has after the first.
    pub retries: i32,
    /// The wait before a retry.
    pub retry_delay: TimeDelta,
    /// The factor by which the wait grows with every try; 0 or 1 for not at all.
    pub retry_exponential_backoff: f64,
    /// The longest wait.
    pub max_retry_delay: Option<TimeDelta>,
    /// Whether a retry policy decides in the task's own process.
    pub has_retry_policy: bool,
    /// How long a try may take.
    pub execution_timeout: Option<TimeDelta>,
    /// The pool.
    pub pool: PoolName,
    /// How many of its slots it takes.
    pub pool_slots: i32,
    /// The logical queue.
    pub queue: QueueName,
    /// The executor it names.
    pub executor: Option<String>,
    /// What it tells the executor, serialized.
    pub executor_config: Value,
    /// Its own priority.
    pub priority_weight: i64,
    /// How its weight follows from priorities.
    pub weight_rule: WeightRule,
    /// How many of its instances may be executing, over all runs.
    pub max_active_tis_per_dag: Option<u32>,
    /// How many of its instances may be executing in one run.
    pub max_active_tis_per_dagrun: Option<u32>,
    /// It does not run in runs that stand for an earlier date.
    pub start_date: Option<Timestamp>,
    /// It does not run in runs that stand for a later date.
    pub end_date: Option<Timestamp>,
    /// Whether it does nothing, so that the scheduler may end it.
    pub is_empty: bool,
    /// Whether it is a sensor.
    pub is_sensor: bool,
    /// Whether it is a sensor in reschedule mode.
    pub is_rescheduling: bool,
    /// Whether it may skip what comes after it: a branch, a short circuit.
    pub can_skip_downstream: bool,
    /// Whether it starts with a trigger rather than in a worker.
    pub start_from_trigger: bool,
    /// That trigger.
    pub start_trigger: Option<StartTrigger>,
    /// Whether it has a callback for the start of a try.
    pub has_on_execute_callback: bool,
    /// Whether it has one for its failure.
    pub has_on_failure_callback: bool,
    /// Whether it has one for a retry.
    pub has_on_retry_callback: bool,
    /// Whether it has one for its success.
    pub has_on_success_callback: bool,
    /// Whether it has one for its being skipped.
    pub has_on_skipped_callback: bool,
    /// Whom to write to when it fails or retries, serialized; null for nobody.
    pub email: Value,
    /// Whether to write when it fails.
    pub email_on_failure: bool,
    /// Whether to write when it retries.
    pub email_on_retry: bool,
    /// What it updates.
    pub outlets: Vec<AssetLike>,
    /// What it reads.
    pub inlets: Vec<AssetLike>,
    /// The template for the names of its mapped instances.
    pub map_index_template: Option<String>,
    /// Its parameters, serialized.
    pub params: Value,
    /// The tasks after it, by id, as serialized.
    pub(super) downstream_ids: Vec<String>,
    /// All of the serialized task, for pages and for what nothing here uses.
    pub attributes: Map<String, Value>,
}

impl Task {
    /// Whether it is mapped itself.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        self.expand.is_some()
    }

    /// Whether the scheduler ends it by itself: it does nothing and nobody would notice its running
    /// (`airflow/models/taskinstance.py: TaskInstance.is_task_schedulable`).
    #[must_use]
    pub fn ends_in_scheduler(&self) -> bool {
        self.is_empty
            && !self.has_on_execute_callback
            && !self.has_on_success_callback
            && self.outlets.is_empty()
            && self.inlets.is_empty()
    }

    /// Whether a limit on its instances binds admission.
    #[must_use]
    pub fn has_concurrency_limit(&self) -> bool {
        self.max_active_tis_per_dag.is_some() || self.max_active_tis_per_dagrun.is_some()
    }

    /// Reads everything that does not refer to other parts of the DAG. `reader`'s layers are the task's own values
    /// and the defaults behind them.
    pub(super) fn read(
        reader: &Reader<'_>,
        own: &Map<String, Value>,
        is_mapped: bool,
    ) -> Result<Self, DagError> {
        let trigger_rule = match reader.text("trigger_rule")? {
            None => TriggerRule::AllSuccess,
            Some(text) => match text {
                // What older serializations may still hold (`airflow/task/trigger_rule.py`).
                "dummy" => TriggerRule::Always,
                "none_failed_or_skipped" => TriggerRule::NoneFailedMinOneSuccess,
                text => text.parse().map_err(|()| {
                    let known: Vec<_> = TriggerRule::ALL.iter().map(|rule| rule.as_str()).collect();
                    reader.malformed(
                        "trigger_rule",
                        &format!("one of {}", known.join(", ")),
                        reader.get("trigger_rule"),
                    )
                })?,
            },
        };
        let has_callback = |event: &str| -> Result<bool, DagError> {
            if reader.is_set(&format!("has_on_{event}_callback"))? {
                return Ok(true);
            }
            // Older serializations hold the callbacks themselves.
            Ok(reader.get(&format!("on_{event}_callback")).is_some_and(is_truthy))
        };
        let assets = |field: &str| -> Result<Vec<AssetLike>, DagError> {
            reader
                .list(field)?
                .iter()
                .map(|item| {
                    AssetLike::from_serialized(item).map_err(|_| {
                        reader.malformed(field, "a list of assets, aliases and references", Some(item))
                    })
                })
                .collect()
        };
        let start_trigger = match reader.object("start_trigger_args")? {
            None => None,
            Some(object) => Some(read_start_trigger(reader, object)?),
        };
        Ok(Self {
            task_id: TaskId::from(reader.required_text("task_id")?),
            task_type: reader.text("task_type")?.unwrap_or("BaseOperator").to_owned(),
            task_module: reader.text("_task_module")?.unwrap_or_default().to_owned(),
            operator_name: reader.owned_text("_operator_name")?,
            display_name: match reader.owned_text("task_display_name")? {
                Some(name) => Some(name),
                None => reader.owned_text("_task_display_name")?,
            },
            owner: reader.text("owner")?.unwrap_or("airflow").to_owned(),
            group: GroupIndex::ROOT,
            expand: None,
            needs_expansion: is_mapped || reader.is_set("_needs_expansion")?,
            trigger_rule,
            is_setup: reader.is_set("is_setup")?,
            is_teardown: reader.is_set("is_teardown")?,
            on_failure_fail_dagrun: reader.is_set("on_failure_fail_dagrun")?
                || reader.is_set("_on_failure_fail_dagrun")?,
            depends_on_past: reader.is_set("depends_on_past")?,
            ignore_first_depends_on_past: reader.is_set("ignore_first_depends_on_past")?,
            wait_for_downstream: reader.is_set("wait_for_downstream")?,
            wait_for_past_depends_before_skipping: reader.is_set("wait_for_past_depends_before_skipping")?,
            retries: reader.integer("retries")?.unwrap_or(0),
            retry_delay: reader.duration("retry_delay")?.unwrap_or(TimeDelta::seconds(300)),
            retry_exponential_backoff: reader.number("retry_exponential_backoff")?.unwrap_or(0.0),
            max_retry_delay: reader.duration("max_retry_delay")?,
            has_retry_policy: reader.is_set("has_retry_policy")?,
            execution_timeout: reader.duration("execution_timeout")?,
            pool: PoolName::from(reader.text("pool")?.unwrap_or(crate::record::DEFAULT_POOL)),
            pool_slots: reader.integer("pool_slots")?.unwrap_or(1),
            queue: QueueName::from(reader.text("queue")?.unwrap_or("default")),
            executor: reader.owned_text("executor")?,
            executor_config: reader.raw("executor_config"),
            priority_weight: reader.long("priority_weight")?.unwrap_or(1),
            weight_rule: WeightRule::parse(reader.text("weight_rule")?.unwrap_or("downstream")),
            max_active_tis_per_dag: reader.positive("max_active_tis_per_dag")?,
            max_active_tis_per_dagrun: reader.positive("max_active_tis_per_dagrun")?,
            start_date: reader.timestamp("start_date")?,
            end_date: reader.timestamp("end_date")?,
            is_empty: reader.is_set("_is_empty")?,
            is_sensor: reader.is_set("_is_sensor")?,
            is_rescheduling: reader.get("reschedule").and_then(Value::as_bool).unwrap_or(false),
            can_skip_downstream: reader.is_set("_can_skip_downstream")?,
            start_from_trigger: reader.is_set("start_from_trigger")?,
            start_trigger,
            has_on_execute_callback: has_callback("execute")?,
            has_on_failure_callback: has_callback("failure")?,
            has_on_retry_callback: has_callback("retry")?,
            has_on_success_callback: has_callback("success")?,
            has_on_skipped_callback: has_callback("skipped")?,
            email: reader.raw("email"),
            email_on_failure: reader.flag("email_on_failure")?.unwrap_or(true),
            email_on_retry: reader.flag("email_on_retry")?.unwrap_or(true),
            outlets: assets("outlets")?,
            inlets: assets("inlets")?,
            map_index_template: reader.owned_text("map_index_template")?,
            params: reader.raw("params"),
            downstream_ids: reader.texts("downstream_task_ids")?,
            attributes: own.clone(),
        })
    }
}

fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Array(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        Value::Number(_) | Value::Object(_) => true,
    }
}

fn read_start_trigger(reader: &Reader<'_>, object: &Map<String, Value>) -> Result<StartTrigger, DagError> {
    let layers = [object];
    let inner = Reader { layers: &layers, ..*reader };
    Ok(StartTrigger {
        classpath: inner.required_text("trigger_cls")?.to_owned(),
        kwargs: untyped(&inner.raw("trigger_kwargs"), "dict").clone(),
        next_method: inner.required_text("next_method")?.to_owned(),
        next_kwargs: untyped(&inner.raw("next_kwargs"), "dict").clone(),
        timeout: inner.duration("timeout")?,
    })
}
