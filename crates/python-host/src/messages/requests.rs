//! Messages of a child to its supervisor.
#![expect(missing_docs, reason = "messages and fields bear the schema's names and meanings")]

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{AssetProfile, HITLUser, IsoDuration};

/// The end that a task reports of itself other than success, retry, deferral and rescheduling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndState {
    Failed,
    Skipped,
    Removed,
}

/// A task to skip: all of it, or one mapped instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SkippedTask {
    Task(String),
    Mapped(String, i64),
}

fn yes() -> bool {
    true
}

fn unmapped() -> i64 {
    -1
}

fn one() -> i64 {
    1
}

fn thousand() -> i64 {
    1_000
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AwaitInputTask {
    #[serde(default)]
    pub timeout: Option<IsoDuration>,
    pub next_method: String,
    #[serde(default)]
    pub next_kwargs: Option<Map<String, Value>>,
    #[serde(default)]
    pub rendered_map_index: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClearAssetStateStoreByName {
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClearAssetStateStoreByUri {
    pub uri: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClearTaskStateStore {
    pub ti_id: Uuid,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeferTask {
    pub classpath: String,
    #[serde(default)]
    pub trigger_kwargs: Value,
    #[serde(default)]
    pub trigger_timeout: Option<IsoDuration>,
    #[serde(default)]
    pub queue: Option<String>,
    pub next_method: String,
    #[serde(default)]
    pub next_kwargs: Option<Map<String, Value>>,
    #[serde(default)]
    pub rendered_map_index: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeleteAssetStateStoreByName {
    pub name: String,
    pub key: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeleteAssetStateStoreByUri {
    pub uri: String,
    pub key: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeleteTaskStateStore {
    pub ti_id: Uuid,
    pub key: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeleteXCom {
    pub key: String,
    pub dag_id: String,
    pub run_id: String,
    pub task_id: String,
    #[serde(default)]
    pub map_index: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetAssetByName {
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetAssetByUri {
    pub uri: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetAssetsByAlias {
    pub alias_name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetAssetEventByAsset {
    pub name: Option<String>,
    pub uri: Option<String>,
    #[serde(default)]
    pub after: Option<DateTime<Utc>>,
    #[serde(default)]
    pub before: Option<DateTime<Utc>>,
    #[serde(default)]
    pub limit: Option<i64>,
    #[serde(default = "yes")]
    pub ascending: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetAssetEventByAssetAlias {
    pub alias_name: String,
    #[serde(default)]
    pub after: Option<DateTime<Utc>>,
    #[serde(default)]
    pub before: Option<DateTime<Utc>>,
    #[serde(default)]
    pub limit: Option<i64>,
    #[serde(default = "yes")]
    pub ascending: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetAssetStateStoreByName {
    pub name: String,
    pub key: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetAssetStateStoreByUri {
    pub uri: String,
    pub key: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetConnection {
    pub conn_id: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetDagRun {
    pub dag_id: String,
    pub run_id: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetDagRunState {
    pub dag_id: String,
    pub run_id: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetDRCount {
    pub dag_id: String,
    #[serde(default)]
    pub logical_dates: Option<Vec<DateTime<Utc>>>,
    #[serde(default)]
    pub run_ids: Option<Vec<String>>,
    #[serde(default)]
    pub states: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetDag {
    pub dag_id: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetPrevSuccessfulDagRun {
    pub ti_id: Uuid,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetPreviousDagRun {
    pub dag_id: String,
    pub logical_date: DateTime<Utc>,
    #[serde(default)]
    pub state: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetPreviousTI {
    pub dag_id: String,
    pub task_id: String,
    #[serde(default)]
    pub logical_date: Option<DateTime<Utc>>,
    #[serde(default = "unmapped")]
    pub map_index: i64,
    #[serde(default)]
    pub state: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetTaskRescheduleStartDate {
    pub ti_id: Uuid,
    #[serde(default = "one")]
    pub try_number: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetTaskStateStore {
    pub ti_id: Uuid,
    pub key: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetTICount {
    pub dag_id: String,
    #[serde(default)]
    pub map_index: Option<i64>,
    #[serde(default)]
    pub task_ids: Option<Vec<String>>,
    #[serde(default)]
    pub task_group_id: Option<String>,
    #[serde(default)]
    pub logical_dates: Option<Vec<DateTime<Utc>>>,
    #[serde(default)]
    pub run_ids: Option<Vec<String>>,
    #[serde(default)]
    pub states: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetTaskBreadcrumbs {
    pub dag_id: String,
    pub run_id: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetTaskStates {
    pub dag_id: String,
    #[serde(default)]
    pub map_index: Option<i64>,
    #[serde(default)]
    pub task_ids: Option<Vec<String>>,
    #[serde(default)]
    pub task_group_id: Option<String>,
    #[serde(default)]
    pub logical_dates: Option<Vec<DateTime<Utc>>>,
    #[serde(default)]
    pub run_ids: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetVariable {
    pub key: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetVariableKeys {
    #[serde(default)]
    pub prefix: Option<String>,
    #[serde(default = "thousand")]
    pub limit: i64,
    #[serde(default)]
    pub offset: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetXCom {
    pub key: String,
    pub dag_id: String,
    pub run_id: String,
    pub task_id: String,
    #[serde(default)]
    pub map_index: Option<i64>,
    #[serde(default)]
    pub include_prior_dates: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetXComCount {
    pub key: String,
    pub dag_id: String,
    pub run_id: String,
    pub task_id: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetXComSequenceItem {
    pub key: String,
    pub dag_id: String,
    pub run_id: String,
    pub task_id: String,
    pub offset: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetXComSequenceSlice {
    pub key: String,
    pub dag_id: String,
    pub run_id: String,
    pub task_id: String,
    pub start: Option<i64>,
    pub stop: Option<i64>,
    pub step: Option<i64>,
    #[serde(default)]
    pub include_prior_dates: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PutVariable {
    pub key: String,
    pub value: Option<String>,
    pub description: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RescheduleTask {
    pub reschedule_date: DateTime<Utc>,
    pub end_date: DateTime<Utc>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetryTask {
    pub end_date: DateTime<Utc>,
    #[serde(default)]
    pub rendered_map_index: Option<String>,
    #[serde(default)]
    pub retry_delay_seconds: Option<f64>,
    #[serde(default)]
    pub retry_reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetAssetStateStoreByName {
    pub name: String,
    pub key: String,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetAssetStateStoreByUri {
    pub uri: String,
    pub key: String,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetRenderedFields {
    pub rendered_fields: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetRenderedMapIndex {
    pub rendered_map_index: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetTaskStateStore {
    pub ti_id: Uuid,
    pub key: String,
    pub value: Value,
    pub expires_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetXCom {
    pub key: String,
    pub value: Value,
    pub dag_id: String,
    pub run_id: String,
    pub task_id: String,
    #[serde(default)]
    pub map_index: Option<i64>,
    #[serde(default)]
    pub dag_result: bool,
    #[serde(default)]
    pub mapped_length: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SkipDownstreamTasks {
    pub tasks: Vec<SkippedTask>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SucceedTask {
    pub end_date: DateTime<Utc>,
    #[serde(default)]
    pub task_outlets: Option<Vec<AssetProfile>>,
    #[serde(default)]
    pub outlet_events: Option<Vec<Map<String, Value>>>,
    #[serde(default)]
    pub rendered_map_index: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValidateInletsAndOutlets {
    pub ti_id: Uuid,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskState {
    pub state: EndState,
    #[serde(default)]
    pub end_date: Option<DateTime<Utc>>,
    #[serde(default)]
    pub rendered_map_index: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TriggerDagRun {
    #[serde(default)]
    pub logical_date: Option<DateTime<Utc>>,
    #[serde(default)]
    pub run_after: Option<DateTime<Utc>>,
    #[serde(default)]
    pub conf: Option<Map<String, Value>>,
    #[serde(default)]
    pub reset_dag_run: Option<bool>,
    #[serde(default)]
    pub partition_key: Option<String>,
    #[serde(default)]
    pub note: Option<String>,
    pub dag_id: String,
    pub run_id: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeleteVariable {
    pub key: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResendLoggingFD {}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreateHITLDetailPayload {
    pub ti_id: Uuid,
    pub options: Vec<String>,
    pub subject: String,
    #[serde(default)]
    pub body: Option<String>,
    #[serde(default)]
    pub defaults: Option<Vec<String>>,
    #[serde(default)]
    pub multiple: Option<bool>,
    #[serde(default)]
    pub params: Option<Map<String, Value>>,
    #[serde(default)]
    pub assigned_users: Option<Vec<HITLUser>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpdateHITLDetail {
    pub ti_id: Uuid,
    pub chosen_options: Vec<String>,
    #[serde(default)]
    pub params_input: Option<Map<String, Value>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetHITLDetailResponse {
    pub ti_id: Uuid,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MaskSecret {
    pub value: Value,
    #[serde(default)]
    pub name: Option<String>,
}
