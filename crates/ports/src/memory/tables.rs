//! The tables of the in-memory metastore and what is unique in each.

use std::sync::Arc;

use gust_model::{
    BundleName, BundleVersion, DagRunId, EventId, TaskInstanceId,
    record::{
        Asset, AssetEvent, AssetReference, Callback, Component, ConnectionRecord, DagRecord, DagRun,
        DagVersion, ImportError, Pool, QueuedAssetEvent, StateStoreScope, TaskInstance, TaskReschedule,
        TaskTally, Timestamp, Trigger, VariableRecord, XCom,
    },
};
use serde_json::Value;

use super::table::{IndexKey, Key, Row, Table, key};
use crate::metastore::Hitl;

/// A run with what its record does not show.
#[derive(Debug, Clone)]
pub(super) struct RunRow {
    pub run: DagRun,
    pub updated_at: Timestamp,
}

/// A task instance with what its record does not show.
#[derive(Debug, Clone)]
pub(super) struct TaskInstanceRow {
    pub task_instance: TaskInstance,
    pub followed_until: Option<Timestamp>,
}

/// A try that is over.
#[derive(Debug, Clone)]
pub(super) struct TryRow(pub TaskInstance);

/// A graph under its hash.
#[derive(Debug, Clone)]
pub(super) struct SerializedDag {
    pub hash: String,
    pub json: Arc<str>,
}

/// The newest version of a bundle.
#[derive(Debug, Clone)]
pub(super) struct CurrentBundle {
    pub name: BundleName,
    pub version: BundleVersion,
}

/// A reschedule under its number.
#[derive(Debug, Clone)]
pub(super) struct RescheduleRow {
    pub number: i64,
    pub reschedule: TaskReschedule,
}

/// A reference under its number.
#[derive(Debug, Clone)]
pub(super) struct ReferenceRow {
    pub number: i64,
    pub reference: AssetReference,
}

/// The rendered fields of a task instance.
#[derive(Debug, Clone)]
pub(super) struct Rendered {
    pub id: TaskInstanceId,
    pub fields: Value,
}

/// An entry of a state store.
#[derive(Debug, Clone)]
pub(super) struct StateEntry {
    pub scope: StateStoreScope,
    pub key: String,
    pub value: Value,
    pub expires_at: Option<Timestamp>,
}

/// An event that a run was started by.
#[derive(Debug, Clone)]
pub(super) struct ConsumedEvent {
    pub dag_run_id: DagRunId,
    pub event_id: EventId,
}

/// The index of what belongs to one run.
pub(super) const BY_RUN: &str = "run";
/// The index of what belongs to one DAG.
pub(super) const BY_DAG: &str = "DAG";
/// The index of what belongs to one task instance.
pub(super) const BY_TASK_INSTANCE: &str = "task instance";
/// A run's id within its DAG.
pub(super) const BY_RUN_ID: &str = "run id";
/// A run's logical date within its DAG.
pub(super) const BY_LOGICAL_DATE: &str = "logical date";
/// A task instance's task and map index within its run.
pub(super) const BY_PLACE: &str = "task and map index";
/// An asset's name and URI.
pub(super) const BY_NAME_AND_URI: &str = "name and URI";
/// A version's number within its DAG.
pub(super) const BY_NUMBER: &str = "version number";

/// The key of a state store's owner.
pub(super) fn scope_key(scope: &StateStoreScope) -> Key {
    match scope {
        StateStoreScope::Task(run, task, index) => key!["task", run.0, task.as_str(), index.0],
        StateStoreScope::Asset(name) => key!["asset", name.as_str()],
    }
}

fn state_entry_key(scope: &StateStoreScope, name: &str) -> Key {
    let mut key = scope_key(scope);
    key.extend(key![name]);
    key
}

/// Declares the tables: the field, its rows, the name in errors, the primary key, unique keys, other indexes.
macro_rules! tables {
    ($($field:ident: $row:ty, $name:literal, |$r:ident| $key:expr, unique $unique:expr, indexed $indexed:expr;)+) => {
        /// All tables.
        #[derive(Debug, Default)]
        pub(super) struct Tables { $($field: Table<$row>,)+ }

        $(impl Row for $row {
            const TABLE: &'static str = $name;

            fn key(&self) -> Key {
                let $r = self;
                $key
            }

            fn unique(&self) -> Vec<IndexKey> {
                let $r = self;
                let _ = $r;
                $unique
            }

            fn indexed(&self) -> Vec<IndexKey> {
                let $r = self;
                let _ = $r;
                $indexed
            }

            fn table(tables: &Tables) -> &Table<Self> {
                &tables.$field
            }

            fn table_mut(tables: &mut Tables) -> &mut Table<Self> {
                &mut tables.$field
            }
        })+
    };
}

tables! {
    dags: DagRecord, "DAG", |r| key![r.dag_id.as_str()], unique vec![], indexed vec![];
    dag_versions: DagVersion, "DAG version", |r| key![r.id.0],
        unique vec![(BY_NUMBER, key![r.dag_id.as_str(), r.version_number])],
        indexed vec![(BY_DAG, key![r.dag_id.as_str()])];
    serialized_dags: SerializedDag, "serialized DAG", |r| key![r.hash.as_str()],
        unique vec![], indexed vec![];
    import_errors: ImportError, "import error", |r| key![r.id], unique vec![], indexed vec![];
    bundles: CurrentBundle, "bundle", |r| key![r.name.as_str()], unique vec![], indexed vec![];
    runs: RunRow, "DAG run", |r| key![r.run.id.0],
        unique {
            let mut unique = vec![(BY_RUN_ID, key![r.run.dag_id.as_str(), r.run.run_id.as_str()])];
            unique.extend(r.run.logical_date.map(|date| (BY_LOGICAL_DATE, key![r.run.dag_id.as_str(), date])));
            unique
        },
        indexed vec![(BY_DAG, key![r.run.dag_id.as_str()])];
    tallies: TaskTally, "tally", |r| key![r.dag_run_id.0, r.task_id.as_str()],
        unique vec![], indexed vec![(BY_RUN, key![r.dag_run_id.0])];
    task_instances: TaskInstanceRow, "task instance", |r| key![r.task_instance.id.0],
        unique vec![(
            BY_PLACE,
            key![r.task_instance.dag_run_id.0, r.task_instance.task_id.as_str(), r.task_instance.map_index.0],
        )],
        indexed vec![(BY_RUN, key![r.task_instance.dag_run_id.0])];
    tries: TryRow, "try", |r| key![r.0.id.0, r.0.try_number],
        unique vec![], indexed vec![(BY_TASK_INSTANCE, key![r.0.id.0])];
    reschedules: RescheduleRow, "reschedule", |r| key![r.number],
        unique vec![], indexed vec![(BY_TASK_INSTANCE, key![r.reschedule.task_instance_id.0])];
    pools: Pool, "pool", |r| key![r.name.as_str()], unique vec![], indexed vec![];
    xcoms: XCom, "XCom",
        |r| key![r.key.dag_run_id.0, r.key.task_id.as_str(), r.key.map_index.0, r.key.key.as_str()],
        unique vec![], indexed vec![(BY_RUN, key![r.key.dag_run_id.0])];
    rendered: Rendered, "rendered fields", |r| key![r.id.0], unique vec![], indexed vec![];
    state_entries: StateEntry, "state store entry", |r| state_entry_key(&r.scope, &r.key),
        unique vec![], indexed vec![];
    variables: VariableRecord, "Variable", |r| key![r.key.as_str()], unique vec![], indexed vec![];
    connections: ConnectionRecord, "Connection", |r| key![r.conn_id.as_str()], unique vec![], indexed vec![];
    assets: Asset, "asset", |r| key![r.id.0],
        unique vec![(BY_NAME_AND_URI, key![r.name.as_str(), r.uri.as_str()])], indexed vec![];
    references: ReferenceRow, "asset reference", |r| key![r.number],
        unique vec![], indexed vec![(BY_DAG, key![r.reference.dag_id.as_str()])];
    asset_events: AssetEvent, "asset event", |r| key![r.id.0], unique vec![], indexed vec![];
    queued_events: QueuedAssetEvent, "queued asset event", |r| key![r.dag_id.as_str(), r.asset_id.0],
        unique vec![], indexed vec![(BY_DAG, key![r.dag_id.as_str()])];
    consumed_events: ConsumedEvent, "consumed event", |r| key![r.dag_run_id.0, r.event_id.0],
        unique vec![], indexed vec![(BY_RUN, key![r.dag_run_id.0])];
    triggers: Trigger, "trigger", |r| key![r.id.0],
        unique vec![], indexed vec![(BY_TASK_INSTANCE, key![r.task_instance_id.0])];
    callbacks: Callback, "callback", |r| key![r.id.0], unique vec![], indexed vec![];
    questions: Hitl, "question", |r| key![r.task_instance_id.0], unique vec![], indexed vec![];
    components: Component, "component", |r| key![r.kind as i32, r.name.as_str()],
        unique vec![], indexed vec![];
}
