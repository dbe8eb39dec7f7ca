//! Every message of the supervisor protocol, version `2026-06-16`, by name
//! (`airflow/sdk/execution_time/schema/schema.json`).
//!
//! Names and fields are those of the schema, so that both can be read side by side; a test compares them with the
//! installed one.

mod replies;
mod requests;
mod time;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use replies::*;
pub use requests::*;
pub use time::IsoDuration;

/// The protocol's version that these messages follow.
pub const SCHEMA_VERSION: &str = "2026-06-16";

/// Why a request was not served (`airflow/sdk/exceptions.py: ErrorType`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorType {
    /// No such connection.
    ConnectionNotFound,
    /// No such variable.
    VariableNotFound,
    /// No such XCom.
    #[serde(rename = "XCOM_NOT_FOUND")]
    XComNotFound,
    /// No such asset.
    AssetNotFound,
    /// No such entry in a task's state store.
    TaskStoreNotFound,
    /// No such entry in an asset's state store.
    AssetStoreNotFound,
    /// A DAG run of that id or logical date exists.
    #[serde(rename = "DAGRUN_ALREADY_EXISTS")]
    DagRunAlreadyExists,
    /// The task may not do this.
    PermissionDenied,
    /// Anything else.
    #[default]
    GenericError,
    /// The other side failed.
    ApiServerError,
}

/// A message of a known kind, or what arrived instead.
macro_rules! message_enum {
    ($(#[$doc:meta])* $name:ident { $($variant:ident($body:ty)),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(tag = "type")]
        #[expect(missing_docs, reason = "variants are the protocol's messages by name")]
        #[allow(clippy::large_enum_variant, reason = "messages are moved once and seldom kept")]
        pub enum $name {
            $($variant($body),)*
            /// A kind that this version does not know, or a known one whose fields are not as the schema says.
            #[serde(skip)]
            Unknown {
                /// The message's `type`, empty where it has none.
                kind: String,
                /// The message as it came.
                raw: Value,
                /// For a known kind: what is wrong with it.
                problem: Option<String>,
            },
        }

        impl $name {
            /// Names of all kinds, as in the schema.
            pub const KINDS: &[&str] = &[$(stringify!($variant)),*];

            /// Reads a message by its `type`. Never fails: what cannot be read is `Unknown`.
            #[must_use]
            pub fn from_json(raw: Value) -> Self {
                let kind = raw.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
                let read = match kind.as_str() {
                    $(stringify!($variant) => <$body>::deserialize(&raw).map(Self::$variant),)*
                    _ => return Self::Unknown { kind, raw, problem: None },
                };
                read.unwrap_or_else(|problem| Self::Unknown { kind, raw, problem: Some(problem.to_string()) })
            }

            /// The message's `type`.
            #[must_use]
            pub fn kind(&self) -> &str {
                match self {
                    $(Self::$variant(_) => stringify!($variant),)*
                    Self::Unknown { kind, .. } => kind,
                }
            }
        }
    };
}

message_enum! {
    /// What a child asks or reports (`comms.py: ToSupervisor`).
    FromTask {
        AwaitInputTask(AwaitInputTask),
        ClearAssetStateStoreByName(ClearAssetStateStoreByName),
        ClearAssetStateStoreByUri(ClearAssetStateStoreByUri),
        ClearTaskStateStore(ClearTaskStateStore),
        DeferTask(DeferTask),
        DeleteAssetStateStoreByName(DeleteAssetStateStoreByName),
        DeleteAssetStateStoreByUri(DeleteAssetStateStoreByUri),
        DeleteTaskStateStore(DeleteTaskStateStore),
        DeleteXCom(DeleteXCom),
        GetAssetByName(GetAssetByName),
        GetAssetByUri(GetAssetByUri),
        GetAssetsByAlias(GetAssetsByAlias),
        GetAssetEventByAsset(GetAssetEventByAsset),
        GetAssetEventByAssetAlias(GetAssetEventByAssetAlias),
        GetAssetStateStoreByName(GetAssetStateStoreByName),
        GetAssetStateStoreByUri(GetAssetStateStoreByUri),
        GetConnection(GetConnection),
        GetDagRun(GetDagRun),
        GetDagRunState(GetDagRunState),
        GetDRCount(GetDRCount),
        GetDag(GetDag),
        GetPrevSuccessfulDagRun(GetPrevSuccessfulDagRun),
        GetPreviousDagRun(GetPreviousDagRun),
        GetPreviousTI(GetPreviousTI),
        GetTaskRescheduleStartDate(GetTaskRescheduleStartDate),
        GetTaskStateStore(GetTaskStateStore),
        GetTICount(GetTICount),
        GetTaskBreadcrumbs(GetTaskBreadcrumbs),
        GetTaskStates(GetTaskStates),
        GetVariable(GetVariable),
        GetVariableKeys(GetVariableKeys),
        GetXCom(GetXCom),
        GetXComCount(GetXComCount),
        GetXComSequenceItem(GetXComSequenceItem),
        GetXComSequenceSlice(GetXComSequenceSlice),
        PutVariable(PutVariable),
        RescheduleTask(RescheduleTask),
        RetryTask(RetryTask),
        SetAssetStateStoreByName(SetAssetStateStoreByName),
        SetAssetStateStoreByUri(SetAssetStateStoreByUri),
        SetRenderedFields(SetRenderedFields),
        SetRenderedMapIndex(SetRenderedMapIndex),
        SetTaskStateStore(SetTaskStateStore),
        SetXCom(SetXCom),
        SkipDownstreamTasks(SkipDownstreamTasks),
        SucceedTask(SucceedTask),
        ValidateInletsAndOutlets(ValidateInletsAndOutlets),
        TaskState(TaskState),
        TriggerDagRun(TriggerDagRun),
        DeleteVariable(DeleteVariable),
        ResendLoggingFD(ResendLoggingFD),
        CreateHITLDetailPayload(CreateHITLDetailPayload),
        UpdateHITLDetail(UpdateHITLDetail),
        GetHITLDetailResponse(GetHITLDetailResponse),
        MaskSecret(MaskSecret),
    }
}

message_enum! {
    /// What a child is told (`comms.py: ToTask`). An [`ErrorResponse`] here is an *answer* ("not found"); a failed
    /// request is answered with [`Reply::Error`].
    ToTask {
        AssetResult(AssetResponse),
        AssetsByAliasResult(AssetsByAliasResult),
        AssetEventsResult(AssetEventsResult),
        AssetStateStoreResult(AssetStateStoreResult),
        ConnectionResult(ConnectionResponse),
        DagRunResult(DagRun),
        DagRunStateResult(DagRunStateResult),
        DRCount(DRCount),
        DagResult(DagResult),
        ErrorResponse(ErrorResponse),
        PrevSuccessfulDagRunResult(PrevSuccessfulDagRunResult),
        PreviousTIResult(PreviousTIResult),
        SentFDs(SentFDs),
        StartupDetails(StartupDetails),
        TaskRescheduleStartDate(TaskRescheduleStartDate),
        TaskStateStoreResult(TaskStateStoreResult),
        TICount(TICount),
        TaskBreadcrumbsResult(TaskBreadcrumbsResult),
        TaskStatesResult(TaskStatesResult),
        VariableResult(VariableResponse),
        VariableKeysResult(VariableKeysResult),
        XComCountResponse(XComCountResponse),
        XComResult(XComResult),
        XComSequenceIndexResult(XComSequenceIndexResult),
        XComSequenceSliceResult(XComSequenceSliceResult),
        InactiveAssetsResult(InactiveAssetsResult),
        CreateHITLDetailPayload(CreateHITLDetailPayload),
        HITLDetailRequestResult(CreateHITLDetailPayload),
        OKResponse(OKResponse),
        PreviousDagRunResult(PreviousDagRunResult),
    }
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "made, sent and dropped at once")]
pub enum Reply {
    /// `[id, body]`.
    Body(ToTask),
    /// `[id, nil]`: done, nothing to say.
    Empty,
    /// `[id, nil, error]`: the child raises it.
    Error(ErrorResponse),
}

impl Reply {
    /// An error with a detail of free form.
    #[must_use]
    pub fn error(error: ErrorType, detail: Value) -> Self {
        let detail = match detail {
            Value::Object(map) => Some(map),
            Value::Null => None,
            other => Some([("message".to_owned(), other)].into_iter().collect()),
        };
        Self::Error(ErrorResponse { error, detail })
    }

    /// "Not found" of that sort, as an answer rather than a failure.
    #[must_use]
    pub fn not_found(error: ErrorType, detail: Value) -> Self {
        match Self::error(error, detail) {
            Self::Error(response) => Self::Body(ToTask::ErrorResponse(response)),
            other => other,
        }
    }
}

impl From<ToTask> for Reply {
    fn from(body: ToTask) -> Self {
        Self::Body(body)
    }
}
