//! Messages of the supervisor to a child, and the records in them.
#![expect(missing_docs, reason = "messages and fields bear the schema's names and meanings")]

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::ErrorType;

fn yes() -> bool {
    true
}

fn unmapped() -> i64 {
    -1
}

/// The schema has plain lists here, whose default is nevertheless null.
fn null_is_empty<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn default_queue() -> String {
    "default".to_owned()
}

fn failure() -> String {
    "failure".to_owned()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssetProfile {
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub uri: Option<String>,
    pub r#type: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HITLUser {
    pub id: String,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssetResponse {
    pub name: String,
    pub uri: String,
    pub group: String,
    #[serde(default)]
    pub extra: Option<Map<String, Value>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssetsByAliasResult {
    pub assets: Vec<AssetResponse>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssetEventsResult {
    pub asset_events: Vec<AssetEventResponse>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssetEventResponse {
    pub id: i64,
    pub timestamp: DateTime<Utc>,
    #[serde(default)]
    pub extra: Option<Map<String, Value>>,
    pub asset: AssetResponse,
    pub created_dagruns: Vec<DagRunAssetReference>,
    #[serde(default)]
    pub source_task_id: Option<String>,
    #[serde(default)]
    pub source_dag_id: Option<String>,
    #[serde(default)]
    pub source_run_id: Option<String>,
    #[serde(default)]
    pub source_map_index: Option<i64>,
    #[serde(default)]
    pub partition_key: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DagRunAssetReference {
    pub run_id: String,
    pub dag_id: String,
    pub logical_date: Option<DateTime<Utc>>,
    pub start_date: DateTime<Utc>,
    pub end_date: Option<DateTime<Utc>>,
    pub state: String,
    pub data_interval_start: Option<DateTime<Utc>>,
    pub data_interval_end: Option<DateTime<Utc>>,
    pub partition_key: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssetStateStoreResult {
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectionResponse {
    pub conn_id: String,
    pub conn_type: String,
    pub host: Option<String>,
    pub schema: Option<String>,
    pub login: Option<String>,
    pub password: Option<String>,
    pub port: Option<i64>,
    pub extra: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DagRun {
    pub dag_id: String,
    pub run_id: String,
    pub logical_date: Option<DateTime<Utc>>,
    pub data_interval_start: Option<DateTime<Utc>>,
    pub data_interval_end: Option<DateTime<Utc>>,
    pub run_after: DateTime<Utc>,
    pub start_date: Option<DateTime<Utc>>,
    pub end_date: Option<DateTime<Utc>>,
    #[serde(default)]
    pub clear_number: i64,
    pub run_type: String,
    pub state: String,
    #[serde(default)]
    pub conf: Option<Map<String, Value>>,
    #[serde(default)]
    pub triggering_user_name: Option<String>,
    pub consumed_asset_events: Vec<AssetEventDagRunReference>,
    pub partition_key: Option<String>,
    #[serde(default)]
    pub partition_date: Option<DateTime<Utc>>,
    #[serde(default)]
    pub note: Option<String>,
    #[serde(default)]
    pub team_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssetEventDagRunReference {
    pub asset: AssetReferenceAssetEventDagRun,
    pub extra: Map<String, Value>,
    pub source_task_id: Option<String>,
    pub source_dag_id: Option<String>,
    pub source_run_id: Option<String>,
    pub source_map_index: Option<i64>,
    pub source_aliases: Vec<AssetAliasReferenceAssetEventDagRun>,
    pub timestamp: DateTime<Utc>,
    #[serde(default)]
    pub partition_key: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssetReferenceAssetEventDagRun {
    pub name: String,
    pub uri: String,
    pub extra: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssetAliasReferenceAssetEventDagRun {
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DagRunStateResult {
    pub state: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DRCount {
    pub count: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DagResult {
    pub dag_id: String,
    pub is_paused: bool,
    pub bundle_name: Option<String>,
    pub bundle_version: Option<String>,
    pub relative_fileloc: Option<String>,
    pub owners: Option<String>,
    pub tags: Vec<String>,
    pub next_dagrun: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorResponse {
    #[serde(default)]
    pub error: ErrorType,
    #[serde(default)]
    pub detail: Option<Map<String, Value>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrevSuccessfulDagRunResult {
    #[serde(default)]
    pub data_interval_start: Option<DateTime<Utc>>,
    #[serde(default)]
    pub data_interval_end: Option<DateTime<Utc>>,
    #[serde(default)]
    pub start_date: Option<DateTime<Utc>>,
    #[serde(default)]
    pub end_date: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PreviousTIResult {
    #[serde(default)]
    pub task_instance: Option<PreviousTIResponse>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PreviousTIResponse {
    pub task_id: String,
    pub dag_id: String,
    pub run_id: String,
    #[serde(default)]
    pub logical_date: Option<DateTime<Utc>>,
    #[serde(default)]
    pub start_date: Option<DateTime<Utc>>,
    #[serde(default)]
    pub end_date: Option<DateTime<Utc>>,
    #[serde(default)]
    pub state: Option<String>,
    pub try_number: i64,
    #[serde(default)]
    pub map_index: Option<i64>,
    #[serde(default)]
    pub duration: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SentFDs {
    pub fds: Vec<i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartupDetails {
    pub ti: TaskInstance,
    pub dag_rel_path: String,
    pub bundle_info: BundleInfo,
    pub start_date: DateTime<Utc>,
    pub ti_context: TIRunContext,
    pub sentry_integration: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskInstance {
    pub id: Uuid,
    pub task_id: String,
    pub dag_id: String,
    pub run_id: String,
    pub try_number: i64,
    pub dag_version_id: Uuid,
    #[serde(default = "unmapped")]
    pub map_index: i64,
    #[serde(default)]
    pub hostname: Option<String>,
    #[serde(default)]
    pub context_carrier: Option<Map<String, Value>>,
    #[serde(default = "default_queue")]
    pub queue: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BundleInfo {
    pub name: String,
    #[serde(default)]
    pub version: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TIRunContext {
    pub dag_run: DagRun,
    #[serde(default)]
    pub task_reschedule_count: i64,
    pub max_tries: i64,
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<VariableResponse>,
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub connections: Vec<ConnectionResponse>,
    #[serde(default)]
    pub next_method: Option<String>,
    #[serde(default)]
    pub next_kwargs: Value,
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub xcom_keys_to_clear: Vec<String>,
    #[serde(default)]
    pub should_retry: bool,
    #[serde(default)]
    pub start_date: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariableResponse {
    pub key: String,
    pub value: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRescheduleStartDate {
    pub start_date: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskStateStoreResult {
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TICount {
    pub count: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskBreadcrumbsResult {
    pub breadcrumbs: Vec<Map<String, Value>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskStatesResult {
    pub task_states: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariableKeysResult {
    pub keys: Vec<String>,
    pub total_entries: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct XComCountResponse {
    pub len: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct XComResult {
    pub key: String,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct XComSequenceIndexResult {
    pub root: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct XComSequenceSliceResult {
    pub root: Vec<Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InactiveAssetsResult {
    #[serde(default)]
    pub inactive_assets: Option<Vec<AssetProfile>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OKResponse {
    pub ok: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PreviousDagRunResult {
    #[serde(default)]
    pub dag_run: Option<DagRun>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskCallbackRequest {
    pub filepath: String,
    pub bundle_name: String,
    pub bundle_version: Option<String>,
    #[serde(default)]
    pub msg: Option<String>,
    pub ti: TaskInstance,
    #[serde(default)]
    pub task_callback_type: Option<String>,
    #[serde(default)]
    pub context_from_server: Option<TIRunContext>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DagCallbackRequest {
    pub filepath: String,
    pub bundle_name: String,
    pub bundle_version: Option<String>,
    #[serde(default)]
    pub msg: Option<String>,
    pub dag_id: String,
    pub run_id: String,
    #[serde(default)]
    pub context_from_server: Option<DagRunContext>,
    #[serde(default = "yes")]
    pub is_failure_callback: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DagRunContext {
    #[serde(default)]
    pub dag_run: Option<DagRun>,
    #[serde(default)]
    pub last_ti: Option<TaskInstance>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmailRequest {
    pub filepath: String,
    pub bundle_name: String,
    pub bundle_version: Option<String>,
    #[serde(default)]
    pub msg: Option<String>,
    pub ti: TaskInstance,
    #[serde(default = "failure")]
    pub email_type: String,
    pub context_from_server: TIRunContext,
}
