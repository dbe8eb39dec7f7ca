//! The endpoints of the REST API, one module a resource. Their shapes are Airflow 3.3.2's
//! (`airflow/api_fastapi/core_api/{routes/public,datamodels}`).

mod monitor;

use crate::{auth, endpoint::Endpoint};

/// All endpoints.
pub(crate) fn endpoints() -> Vec<Endpoint> {
    [auth::endpoints(), monitor::endpoints()].into_iter().flatten().collect()
}
