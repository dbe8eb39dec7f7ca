//! Where tokens and sessions are given.

use axum::{
    Form, Json, Router,
    extract::{Query, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing,
};
use maud::{DOCTYPE, Markup, html};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AuthMode, CLI_TOKEN_LIFE, Role, TOKEN_LIFE, session};
use crate::{
    call::Call,
    endpoint::{Access, Endpoint},
    error::ApiError,
    inputs::{Field, TEXT, required},
    state::AppState,
};

const CREDENTIALS: &[Field] = &[required("username", TEXT), required("password", TEXT)];

/// `airflow/api_fastapi/auth/managers/simple/datamodels/login.py: LoginResponse`.
#[derive(Serialize, ToSchema)]
pub(crate) struct LoginResponse {
    access_token: String,
}

/// The endpoints that give tokens.
pub(crate) fn endpoints() -> Vec<Endpoint> {
    let tag = "SimpleAuthManagerLogin";
    vec![
        Endpoint::new(Method::POST, "/auth/token", "create_token", create_token)
            .about(tag, "Gives a token for a name and a password.")
            .body(CREDENTIALS)
            .access(Access::Public)
            .status(201)
            .answers::<LoginResponse>(),
        Endpoint::new(Method::GET, "/auth/token", "create_token_all_admins", create_token_all_admins)
            .about(tag, "Gives a token to anybody, where everybody is an administrator.")
            .access(Access::Public)
            .status(201)
            .answers::<LoginResponse>(),
        Endpoint::new(Method::POST, "/auth/token/cli", "create_token_cli", create_token_cli)
            .about(tag, "Gives a short-lived token for a name and a password.")
            .body(CREDENTIALS)
            .access(Access::Public)
            .status(201)
            .answers::<LoginResponse>(),
    ]
}

type Token = (StatusCode, Json<LoginResponse>);

fn token(state: &AppState, user: &str, life: chrono::TimeDelta) -> Result<Token, ApiError> {
    let access_token = state
        .auth
        .sign(user, Role::Admin, state.clock.now(), life, None)
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok((StatusCode::CREATED, Json(LoginResponse { access_token })))
}

async fn create_token(call: Call) -> Result<Token, ApiError> {
    token_for_password(call, TOKEN_LIFE).await
}

async fn create_token_cli(call: Call) -> Result<Token, ApiError> {
    token_for_password(call, CLI_TOKEN_LIFE).await
}

async fn token_for_password(call: Call, life: chrono::TimeDelta) -> Result<Token, ApiError> {
    let (name, password) =
        (call.body.text("username").unwrap_or_default(), call.body.text("password").unwrap_or_default());
    if matches!(call.state.auth.mode(), AuthMode::AllAdmins) {
        return token(&call.state, "Anonymous", life);
    }
    if call.state.auth.check_password(name, password).await {
        token(&call.state, name, life)
    } else {
        Err(ApiError::Status(StatusCode::UNAUTHORIZED, "Invalid credentials".into()))
    }
}

async fn create_token_all_admins(call: Call) -> Result<Token, ApiError> {
    match call.state.auth.mode() {
        AuthMode::AllAdmins => token(&call.state, "Anonymous", TOKEN_LIFE),
        AuthMode::Password { .. } | AuthMode::TokensOnly => Err(ApiError::Status(
            StatusCode::FORBIDDEN,
            "This method is only allowed if ``[core] simple_auth_manager_all_admins`` is True".into(),
        )),
    }
}

/// The pages on which a browser's session begins and ends.
pub(crate) fn session_routes() -> Router<AppState> {
    Router::new()
        .route("/auth/login", routing::get(login_page).post(log_in))
        .route("/auth/logout", routing::post(log_out))
}

#[derive(Deserialize)]
struct Next {
    next: Option<String>,
}

#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
    next: Option<String>,
}

/// A path of our own to go on to; anything else would send people elsewhere.
fn own_path(next: Option<String>) -> String {
    next.filter(|path| {
        path.starts_with('/')
            && !path.starts_with("//")
            && !path.contains('\\')
            && !path.chars().any(char::is_control)
    })
    .unwrap_or_else(|| "/".to_owned())
}

fn login_form(next: &str, problem: Option<&str>) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { "Sign in · Gust" }
                link rel="stylesheet" href="/static/gust.css";
            }
            body {
                main {
                    h1 { "Gust" }
                    @if let Some(problem) = problem { p role="alert" { (problem) } }
                    form method="post" action="/auth/login" {
                        input type="hidden" name="next" value=(next);
                        p { label { "Name " input name="username" autocomplete="username" required autofocus; } }
                        p {
                            label {
                                "Password "
                                input name="password" type="password" autocomplete="current-password" required;
                            }
                        }
                        p { button { "Sign in" } }
                    }
                }
            }
        }
    }
}

async fn login_page(State(state): State<AppState>, Query(query): Query<Next>) -> Response {
    let next = own_path(query.next);
    match state.auth.mode() {
        AuthMode::AllAdmins => Redirect::to(&next).into_response(),
        AuthMode::Password { .. } => login_form(&next, None).into_response(),
        AuthMode::TokensOnly => ApiError::Status(
            StatusCode::UNAUTHORIZED,
            "this server takes tokens only; set an administrator's password to sign in here".into(),
        )
        .into_response(),
    }
}

async fn log_in(State(state): State<AppState>, Form(login): Form<Login>) -> Result<Response, ApiError> {
    let next = own_path(login.next);
    if !state.auth.check_password(&login.username, &login.password).await {
        let page = login_form(&next, Some("The name or the password is wrong."));
        return Ok((StatusCode::UNAUTHORIZED, page).into_response());
    }
    let (_, cookie) = session::begin(&state, &login.username, Role::Admin, state.clock.now())
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(&next)).into_response())
}

async fn log_out(State(state): State<AppState>) -> Result<Response, ApiError> {
    let cookie = session::end(&state).map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/auth/login")).into_response())
}
