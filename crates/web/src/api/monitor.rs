//! Health and version.

use axum::{
    Json,
    http::{Method, StatusCode},
};
use chrono::TimeDelta;
use gust_model::record::{Component, ComponentKind, Timestamp};
use gust_ports::metastore::TxMode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    call::Call,
    endpoint::{Access, Endpoint},
    error::ApiError,
    inputs::{Field, TEXT, optional},
    state::AppState,
    time,
};

const SECTION: &[Field] = &[optional("section", TEXT)];

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new(Method::GET, "/api/v2/monitor/health", "get_health", health)
            .about("Monitor", "Says which parts are alive.")
            .access(Access::Public)
            .answers::<HealthInfoResponse>(),
        Endpoint::new(Method::GET, "/api/v2/version", "get_version", version)
            .about("Version", "Says which version serves.")
            .access(Access::Public)
            .answers::<VersionInfo>(),
        Endpoint::new(Method::GET, "/api/v2/config", "get_config", config)
            .about("Config", "Says that the configuration is not shown.")
            .query(SECTION),
    ]
}

#[derive(Serialize, ToSchema)]
struct BaseInfoResponse {
    status: Option<&'static str>,
}

#[derive(Serialize, ToSchema)]
struct SchedulerInfoResponse {
    status: Option<&'static str>,
    latest_scheduler_heartbeat: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct TriggererInfoResponse {
    status: Option<&'static str>,
    latest_triggerer_heartbeat: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct DagProcessorInfoResponse {
    status: Option<&'static str>,
    latest_dag_processor_heartbeat: Option<String>,
}

/// `airflow/api_fastapi/core_api/datamodels/monitor.py`.
#[derive(Serialize, ToSchema)]
struct HealthInfoResponse {
    metadatabase: BaseInfoResponse,
    scheduler: SchedulerInfoResponse,
    triggerer: TriggererInfoResponse,
    dag_processor: DagProcessorInfoResponse,
}

async fn components(state: &AppState) -> Result<(Timestamp, Vec<Component>), ApiError> {
    let mut tx = state.metastore.begin(TxMode::Read).await?;
    Ok((tx.now().await?, tx.components().await?))
}

async fn health(call: Call) -> Json<HealthInfoResponse> {
    let read = components(&call.state).await;
    let threshold = TimeDelta::seconds(call.state.settings.health_threshold_s.into());
    let metadatabase = BaseInfoResponse { status: Some(if read.is_ok() { "healthy" } else { "unhealthy" }) };
    // Without the metastore nothing is known of the others; Airflow says unhealthy then as well.
    let is_known = read.is_ok();
    let (now, components) = read.unwrap_or_else(|_| (call.state.clock.now(), Vec::new()));
    let latest = |kind: ComponentKind| {
        let beat = components
            .iter()
            .filter(|component| component.kind == kind)
            .map(|component| component.heartbeat_at)
            .max();
        let status = match beat {
            Some(beat) if now - beat < threshold => Some("healthy"),
            // A part that never ran is not counted on, as Airflow has it for the triggerer and the DAG processor.
            None if is_known && kind != ComponentKind::Scheduler => None,
            _ => Some("unhealthy"),
        };
        (status, beat.map(time::format))
    };
    let (scheduler, triggerer, dag_processor) = (
        latest(ComponentKind::Scheduler),
        latest(ComponentKind::Triggerer),
        latest(ComponentKind::DagProcessor),
    );
    Json(HealthInfoResponse {
        metadatabase,
        scheduler: SchedulerInfoResponse { status: scheduler.0, latest_scheduler_heartbeat: scheduler.1 },
        triggerer: TriggererInfoResponse { status: triggerer.0, latest_triggerer_heartbeat: triggerer.1 },
        dag_processor: DagProcessorInfoResponse {
            status: dag_processor.0,
            latest_dag_processor_heartbeat: dag_processor.1,
        },
    })
}

/// `airflow/api_fastapi/core_api/datamodels/version.py`.
#[derive(Serialize, ToSchema)]
struct VersionInfo {
    version: &'static str,
    git_version: Option<&'static str>,
}

async fn version(_call: Call) -> Json<VersionInfo> {
    // Clients read it to know which API they talk to, so it is Airflow's, whose API this is.
    Json(VersionInfo { version: "3.3.2", git_version: Some(concat!("gust ", env!("CARGO_PKG_VERSION"))) })
}

/// Airflow's answer where the configuration is not exposed, which Gust's never is: `gust config list` shows it to who
/// runs the server.
async fn config(_call: Call) -> ApiError {
    ApiError::Status(
        StatusCode::FORBIDDEN,
        "Your Airflow administrator chose not to expose the configuration, most likely for security reasons."
            .into(),
    )
}
