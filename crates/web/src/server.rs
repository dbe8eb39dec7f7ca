use std::{any::Any, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing,
};
use thiserror::Error;
use tokio::net::TcpListener;
use tower_http::{
    catch_panic::CatchPanicLayer, compression::CompressionLayer, set_header::SetResponseHeaderLayer,
};
use tracing::Instrument;

use crate::{
    api,
    auth::{self, AuthMode, Guarded},
    endpoint::Access,
    error::ApiError,
    openapi::openapi_document,
    state::AppState,
};

/// Pages take scripts, styles, pictures and events from this server only, run nothing inline, and are framed nowhere.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data:; base-uri 'none'; \
                                       form-action 'self'; frame-ancestors 'none'; object-src 'none'";
/// The header that names a request in logs.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// How long requests under way may take after the server was told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// Why the server does not serve.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Everybody would be an administrator for the whole network.
    #[error(
        "with everybody as administrator the server must be bound to a loopback address such as 127.0.0.1, not to {0}"
    )]
    NotLoopback(SocketAddr),
    /// The mode needs to know by which names it may be called.
    #[error("with everybody as administrator allowed_hosts must name at least one host, such as localhost")]
    NoHosts,
    /// The socket failed.
    #[error("the web server's socket failed: {0}")]
    Socket(#[from] std::io::Error),
}

/// All routes, guarded.
pub fn router(state: AppState) -> Router {
    let endpoints = api::endpoints();
    let mut open: std::collections::BTreeSet<(String, String)> = endpoints
        .iter()
        .filter(|endpoint| endpoint.shape.access == Access::Public)
        .map(|endpoint| (endpoint.method.to_string(), endpoint.path.to_owned()))
        .collect();
    for (method, path) in [("GET", "/auth/login"), ("POST", "/auth/login"), ("GET", "/static/{*path}")] {
        open.insert((method.to_owned(), path.to_owned()));
    }
    let guarded = Guarded { state: state.clone(), open: Arc::new(open) };

    let mut routes = Router::new()
        .route("/openapi.json", routing::get(openapi))
        .merge(auth::session_routes())
        .merge(crate::pages::routes())
        .merge(crate::events::routes());
    for endpoint in endpoints {
        routes = endpoint.add_to(routes);
    }
    routes
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(guarded, auth::guard))
        .layer(DefaultBodyLimit::max(state.settings.max_body_bytes))
        .layer(CompressionLayer::new())
        .layer(strict(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(strict(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .layer(strict(header::REFERRER_POLICY, "same-origin"))
        .layer(strict(header::X_FRAME_OPTIONS, "DENY"))
        .layer(SetResponseHeaderLayer::if_not_present(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        ))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(state.clone(), observe))
        .with_state(state)
}

fn strict(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

async fn openapi() -> impl IntoResponse {
    Json(openapi_document())
}

async fn not_found() -> ApiError {
    ApiError::not_found("Not Found")
}

async fn method_not_allowed() -> ApiError {
    ApiError::Status(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed".into())
}

#[expect(clippy::needless_pass_by_value, reason = "The layer hands it over.")]
fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let what = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("something without a text");
    ApiError::Internal(format!("a handler panicked: {what}")).into_response()
}

/// Names each request, and writes the access log.
async fn observe(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let id = state.ids.fresh().simple().to_string();
    let started = state.clock.monotonic();
    let method = request.method().clone();
    // The pattern rather than the path keeps ids out of the names of spans; the path is in the log line.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let path = request.uri().path().to_owned();
    let span = tracing::info_span!("request", request_id = %id, %method, route);
    let mut response = next.run(request).instrument(span.clone()).await;
    let took_ms = state.clock.monotonic().saturating_sub(started).as_secs_f64() * 1000.0;
    span.in_scope(|| {
        let status = response.status().as_u16();
        if method == Method::GET && status < 400 {
            tracing::debug!(path, status, took_ms, "answered");
        } else {
            tracing::info!(path, status, took_ms, "answered");
        }
    });
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// Serves until `shutdown` ends, then lets the requests under way finish for a few seconds.
///
/// # Errors
/// [`ServeError::NotLoopback`] and [`ServeError::NoHosts`] where everybody would be an administrator for others too.
pub async fn serve(
    listener: TcpListener,
    state: AppState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let address = listener.local_addr()?;
    if matches!(state.auth.mode(), AuthMode::AllAdmins) {
        if !address.ip().is_loopback() {
            return Err(ServeError::NotLoopback(address));
        }
        if state.settings.allowed_hosts.is_empty() {
            return Err(ServeError::NoHosts);
        }
    }
    let clock = Arc::clone(&state.clock);
    let (told, mut was_told) = tokio::sync::watch::channel(false);
    let server = axum::serve(listener, router(state)).with_graceful_shutdown(async move {
        shutdown.await;
        // Nobody listens once the server has ended by itself.
        let _ = told.send(true);
    });
    let drained = async move {
        // A closed channel means that the server ended; then the other branch has won.
        if was_told.wait_for(|is_told| *is_told).await.is_ok() {
            clock.sleep(DRAIN).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        result = async { server.await } => Ok(result?),
        // Event streams never end by themselves.
        () = drained => Ok(()),
    }
}
