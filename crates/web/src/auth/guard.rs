//! The guard before every route: the host, forwarded headers, the token or session, and what a session's changes must
//! show.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use gust_model::record::Timestamp;

use super::{AuthError, AuthMode, CSRF_FIELD, CSRF_HEADER, Identity, Proof, Role, session};
use crate::{error::ApiError, state::AppState};

/// What the guard knows.
#[derive(Clone)]
pub(crate) struct Guarded {
    pub state: AppState,
    /// The routes that are open to anybody, by method and pattern.
    pub open: Arc<BTreeSet<(String, String)>>,
}

/// Lets a request through, with the caller's [`Identity`] in its extensions, or answers why not.
pub(crate) async fn guard(State(guarded): State<Guarded>, request: Request, next: Next) -> Response {
    match admit(&guarded, request).await {
        Ok(Admitted { request, set_cookie }) => {
            let mut response = next.run(*request).await;
            if let Some(cookie) = set_cookie {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
            response
        }
        Err(response) => *response,
    }
}

struct Admitted {
    request: Box<Request>,
    set_cookie: Option<axum::http::HeaderValue>,
}

async fn admit(guarded: &Guarded, mut request: Request) -> Result<Admitted, Box<Response>> {
    let state = &guarded.state;
    let refuse = |error: ApiError| Box::new(error.into_response());
    check_host(state, &request).map_err(refuse)?;
    let now = state.clock.now();
    let is_open = request
        .extensions()
        .get::<MatchedPath>()
        .is_some_and(|path| guarded.open.contains(&(request.method().to_string(), path.as_str().to_owned())));
    let admitted = |request: Request, set_cookie| Admitted { request: Box::new(request), set_cookie };

    let identified = identify(state, request.headers(), now);
    match identified {
        Ok(Some(who)) => {
            if is_change(request.method()) {
                request = check_change(state, &who, request).await.map_err(refuse)?;
            }
            request.extensions_mut().insert(who);
            Ok(admitted(request, None))
        }
        // A bad token on an open route is no token.
        Ok(None) | Err(_) if is_open => {
            request.extensions_mut().insert(Identity::nobody());
            Ok(admitted(request, None))
        }
        Err(error) if !wants_page(&request) => {
            let status =
                if error == AuthError::Expired { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
            Err(refuse(ApiError::Status(status, error.to_string())))
        }
        Ok(None) | Err(_) if wants_page(&request) => match state.auth.mode() {
            AuthMode::AllAdmins => {
                let begun = session::begin(state, "Anonymous", Role::Admin, now)
                    .and_then(|(token, cookie)| Ok((state.auth.check_session(&token, now)?, cookie)));
                let (who, cookie) = begun.map_err(|error| refuse(ApiError::Internal(error.to_string())))?;
                request.extensions_mut().insert(who);
                Ok(admitted(request, Some(cookie)))
            }
            AuthMode::Password { .. } | AuthMode::TokensOnly => {
                let from = request.uri().path_and_query().map_or("/", |path| path.as_str());
                let next: String = url::form_urlencoded::byte_serialize(from.as_bytes()).collect();
                Err(Box::new(Redirect::to(&format!("/auth/login?next={next}")).into_response()))
            }
        },
        Ok(None) | Err(_) => {
            Err(refuse(ApiError::Status(StatusCode::UNAUTHORIZED, "Not authenticated".into())))
        }
    }
}

fn identify(state: &AppState, headers: &HeaderMap, now: Timestamp) -> Result<Option<Identity>, AuthError> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let text = value.to_str().map_err(|_| AuthError::Invalid)?;
        let (scheme, token) = text.split_once(' ').ok_or(AuthError::Invalid)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(AuthError::Invalid);
        }
        return state.auth.check_token(token.trim(), now).map(Some);
    }
    session::cookie(headers).map(|token| state.auth.check_session(token, now)).transpose()
}

/// Where everybody is an administrator, a web site elsewhere must not reach the server through a visitor's browser
/// under a name of its own (DNS rebinding), and a proxy must not make it reachable for others.
fn check_host(state: &AppState, request: &Request) -> Result<(), ApiError> {
    let is_open_to_all = matches!(state.auth.mode(), AuthMode::AllAdmins);
    if is_open_to_all
        && let Some(name) = request.headers().keys().map(header::HeaderName::as_str).find(|name| {
            *name == "forwarded" || name.starts_with("x-forwarded-") || *name == "x-real-ip" || *name == "via"
        })
    {
        let text = format!(
            "this server runs with everybody as administrator, so it does not take forwarded requests (the header \
             {name} says that this is one); give it a password or tokens before putting a proxy in front of it"
        );
        return Err(ApiError::Status(StatusCode::FORBIDDEN, text));
    }
    let allowed = &state.settings.allowed_hosts;
    if allowed.is_empty() && !is_open_to_all {
        return Ok(());
    }
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .or_else(|| request.uri().authority().map(axum::http::uri::Authority::as_str))
        .unwrap_or_default();
    let name = without_port(host);
    if allowed.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    let text = format!("this server is not called {name:?}; it answers to {}", allowed.join(", "));
    Err(ApiError::Status(StatusCode::FORBIDDEN, text))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

fn is_change(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn wants_page(request: &Request) -> bool {
    let path = request.uri().path();
    let accepts_html = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    *request.method() == Method::GET && accepts_html && !path.starts_with("/api/") && path != "/openapi.json"
}

/// What a change must show: a role that may change things, and, where a cookie speaks for the caller, that the request
/// comes from our own pages.
async fn check_change(state: &AppState, who: &Identity, request: Request) -> Result<Request, ApiError> {
    if who.role != Role::Admin {
        return Err(ApiError::Status(StatusCode::FORBIDDEN, "Forbidden".into()));
    }
    let Proof::Cookie { csrf } = &who.proof else { return Ok(request) };
    let headers = request.headers();
    if is_from_elsewhere(headers) {
        return Err(foreign());
    }
    if let Some(shown) = text(headers, CSRF_HEADER) {
        return if is_same(shown, csrf) { Ok(request) } else { Err(foreign()) };
    }
    if !text(headers, "content-type")
        .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"))
    {
        return Err(foreign());
    }
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, state.settings.max_body_bytes)
        .await
        .map_err(|_| ApiError::Status(StatusCode::PAYLOAD_TOO_LARGE, "the form is too large".into()))?;
    let is_shown =
        url::form_urlencoded::parse(&bytes).any(|(name, value)| name == CSRF_FIELD && is_same(&value, csrf));
    if is_shown { Ok(Request::from_parts(parts, Body::from(bytes))) } else { Err(foreign()) }
}

fn foreign() -> ApiError {
    ApiError::Status(
        StatusCode::FORBIDDEN,
        "this change does not come from a page of this server; reload the page and try again".into(),
    )
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Whether the browser says that another site asks.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    if text(headers, "sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") {
        return true;
    }
    let host = text(headers, "host").unwrap_or_default();
    text(headers, "origin").is_some_and(|origin| {
        !origin.split_once("://").is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(host))
    })
}

/// Compares without telling by its time how much is right.
fn is_same(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().zip(other.bytes()).fold(0, |found, (a, b)| found | (a ^ b)) == 0
}
