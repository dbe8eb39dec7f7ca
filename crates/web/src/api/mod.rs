//! The endpoints of the REST API, one module a resource. Their shapes are Airflow 3.3.2's
//! (`airflow/api_fastapi/core_api/{routes/public,datamodels}`).

mod assets;
mod dag_runs;
mod dags;
mod lists;
mod logs;
mod monitor;
mod pools;
mod registry;
mod secrets;
mod task_instances;
mod xcoms;

use crate::{auth, endpoint::Endpoint};

/// All endpoints.
pub(crate) fn endpoints() -> Vec<Endpoint> {
    [
        auth::endpoints(),
        monitor::endpoints(),
        dags::endpoints(),
        dag_runs::endpoints(),
        task_instances::endpoints(),
        logs::endpoints(),
        xcoms::endpoints(),
        registry::endpoints(),
        secrets::endpoints(),
        pools::endpoints(),
        assets::endpoints(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
