//! Sessions of browsers: a token in a cookie, and the secret that changes must show besides it.

use axum::http::{HeaderMap, HeaderValue, header};
use gust_model::record::Timestamp;

use super::{AuthError, Role, TOKEN_LIFE};
use crate::state::AppState;

/// The cookie's name, as Airflow's.
pub(crate) const COOKIE: &str = "_token";
/// The header in which a script shows the session's secret.
pub(crate) const CSRF_HEADER: &str = "x-gust-csrf";
/// The form field in which a form shows it.
pub(crate) const CSRF_FIELD: &str = "csrf";

/// The session cookie that a request carries.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value)
}

/// A new session and the header that sets it.
pub(super) fn begin(
    state: &AppState,
    user: &str,
    role: Role,
    now: Timestamp,
) -> Result<(String, HeaderValue), AuthError> {
    // The tail of a version 7 UUID is random; two of them make 124 bits.
    let csrf = format!("{}{}", state.ids.fresh().simple(), state.ids.fresh().simple());
    let token = state.auth.sign(user, role, now, TOKEN_LIFE, Some(csrf))?;
    let header = set(state, &token, TOKEN_LIFE.num_seconds())?;
    Ok((token, header))
}

/// The header that ends a session.
pub(super) fn end(state: &AppState) -> Result<HeaderValue, AuthError> {
    set(state, "", 0)
}

fn set(state: &AppState, token: &str, life_s: i64) -> Result<HeaderValue, AuthError> {
    let secure = if state.settings.secure_cookies { "; Secure" } else { "" };
    let text = format!("{COOKIE}={token}; Path=/; Max-Age={life_s}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::from_str(&text).map_err(|_| AuthError::Invalid)
}
