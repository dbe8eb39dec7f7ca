//! Who gets in, and with what.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use gust_web::{Auth, AuthError, AuthMode, Role};
use rstest::rstest;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::world::{SECRET, World};

fn operations() -> Vec<(Method, String)> {
    let document = gust_web::openapi_document();
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            all.push((method.to_uppercase().parse().unwrap(), path.clone()));
        }
    }
    all
}

/// What Airflow leaves open as well.
fn is_open(path: &str) -> bool {
    path.starts_with("/auth/token") || path == "/api/v2/monitor/health" || path == "/api/v2/version"
}

fn concrete(path: &str) -> String {
    let segments = path.split('/').map(|segment| if segment.starts_with('{') { "1" } else { segment });
    segments.collect::<Vec<_>>().join("/")
}

fn bare(method: Method, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header(header::HOST, "localhost")
}

#[tokio::test]
async fn every_operation_is_denied_without_a_token_unless_airflow_leaves_it_open() {
    let world = World::new().await;
    let operations = operations();
    assert!(operations.len() > 60, "{}", operations.len());
    for (method, path) in operations {
        let request = bare(method.clone(), &concrete(&path)).body(Body::empty()).unwrap();
        let (status, answer) = world.send(request).await;
        if is_open(&path) {
            assert_ne!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
        } else {
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}: {answer}");
            assert_eq!(answer, json!({"detail": "Not authenticated"}));
        }
    }
}

#[tokio::test]
async fn what_is_no_route_is_denied_too() {
    let world = World::new().await;
    for path in ["/openapi.json", "/api/v2/nothing", "/api/v2", "/.git/config"] {
        let (status, _) = world.send(bare(Method::GET, path).body(Body::empty()).unwrap()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(world.get("/api/v2/nothing").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn where_everybody_is_an_administrator_a_token_is_given_and_works() {
    let world = World::new().await;
    let (status, answer) = world.send(bare(Method::GET, "/auth/token").body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::CREATED);
    let token = answer["access_token"].as_str().unwrap();
    let request = bare(Method::GET, "/api/v2/dags").header(header::AUTHORIZATION, format!("Bearer {token}"));
    assert_eq!(world.send(request.body(Body::empty()).unwrap()).await.0, StatusCode::OK);
}

#[tokio::test]
async fn with_a_password_only_the_right_one_gives_a_token() {
    let mode = AuthMode::Password {
        username: "root".into(),
        password_hash: Auth::hash_password("correct horse").unwrap(),
    };
    let world = World::with(mode).await;
    let ask = |body: Value| {
        let request = bare(Method::POST, "/auth/token").header(header::CONTENT_TYPE, "application/json");
        world.send(request.body(Body::from(body.to_string())).unwrap())
    };
    let (status, _) = ask(json!({"username": "root", "password": "correct horse"})).await;
    assert_eq!(status, StatusCode::CREATED);
    for wrong in [
        json!({"username": "root", "password": "wrong"}),
        json!({"username": "other", "password": "correct horse"}),
    ] {
        assert_eq!(ask(wrong).await, (StatusCode::UNAUTHORIZED, json!({"detail": "Invalid credentials"})));
    }
    let (status, _) = world.send(bare(Method::GET, "/auth/token").body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_token_that_ran_out_or_was_signed_by_another_is_refused() {
    let world = World::new().await;
    let other = Auth::new(AuthMode::TokensOnly, b"another secret of thirty-two bytes!").unwrap();
    let now = world.state.clock.now();
    let cases = [
        (other.token("x", Role::Admin, now).unwrap(), StatusCode::FORBIDDEN, "Invalid JWT token"),
        ("nonsense".to_owned(), StatusCode::FORBIDDEN, "Invalid JWT token"),
        (
            world.state.auth.token("x", Role::Admin, now - chrono::TimeDelta::days(2)).unwrap(),
            StatusCode::UNAUTHORIZED,
            "Token Expired",
        ),
    ];
    for (token, expected, text) in cases {
        let request =
            bare(Method::GET, "/api/v2/dags").header(header::AUTHORIZATION, format!("Bearer {token}"));
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer, (expected, json!({ "detail": text })));
    }
}

#[tokio::test]
async fn a_viewer_looks_but_neither_changes_nor_sees_variables() {
    let world = World::new().await;
    let token = world.state.auth.token("v", Role::Viewer, world.state.clock.now()).unwrap();
    for (method, path, expected) in [
        (Method::GET, "/api/v2/dags", StatusCode::OK),
        (Method::GET, "/api/v2/variables", StatusCode::FORBIDDEN),
        (Method::GET, "/api/v2/connections", StatusCode::FORBIDDEN),
        (Method::DELETE, "/api/v2/dags/shop", StatusCode::FORBIDDEN),
    ] {
        let request = bare(method, path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        assert_eq!(world.send(request.body(Body::empty()).unwrap()).await.0, expected, "{path}");
    }
}

#[rstest]
#[case("host", "evil.example")]
#[case("host", "localhost.evil.example:8080")]
#[case("forwarded", "for=1.2.3.4")]
#[case("x-forwarded-for", "1.2.3.4")]
#[case("x-forwarded-host", "localhost")]
#[tokio::test]
async fn where_everybody_is_an_administrator_strange_hosts_and_proxies_are_refused(
    #[case] name: &str,
    #[case] value: &str,
) {
    let world = World::new().await;
    let mut request = bare(Method::GET, "/auth/token").body(Body::empty()).unwrap();
    request
        .headers_mut()
        .insert(header::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    assert_eq!(world.send(request).await.0, StatusCode::FORBIDDEN);
}

async fn session(world: &World) -> String {
    // Any page will do; the guard begins the session before the route is looked at.
    let request =
        bare(Method::GET, "/nowhere").header(header::ACCEPT, "text/html").body(Body::empty()).unwrap();
    let response = world.router.clone().oneshot(request).await.unwrap();
    let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    cookie.split(';').next().unwrap().to_owned()
}

fn csrf_of(cookie: &str) -> String {
    let claims =
        jsonwebtoken::dangerous::insecure_decode::<Value>(cookie.split_once('=').unwrap().1).unwrap();
    claims.claims["csrf"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_looks_freely_but_changes_only_from_our_own_pages() {
    let world = World::new().await;
    let cookie = session(&world).await;
    let csrf = csrf_of(&cookie);
    let look = bare(Method::GET, "/api/v2/dags").header(header::COOKIE, &cookie).body(Body::empty()).unwrap();
    assert_eq!(world.send(look).await.0, StatusCode::OK);
    let change = |headers: &[(&str, &str)]| {
        let mut request = bare(Method::PATCH, "/api/v2/dags/shop")
            .header(header::COOKIE, &cookie)
            .header(header::CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        world.send(request.body(Body::from(json!({"is_paused": true}).to_string())).unwrap())
    };
    assert_eq!(change(&[]).await.0, StatusCode::FORBIDDEN);
    assert_eq!(change(&[("x-gust-csrf", "guess")]).await.0, StatusCode::FORBIDDEN);
    let elsewhere = [("x-gust-csrf", csrf.as_str()), ("origin", "http://evil.example")];
    assert_eq!(change(&elsewhere).await.0, StatusCode::FORBIDDEN);
    let cross = [("x-gust-csrf", csrf.as_str()), ("sec-fetch-site", "cross-site")];
    assert_eq!(change(&cross).await.0, StatusCode::FORBIDDEN);
    let own =
        [("x-gust-csrf", csrf.as_str()), ("origin", "http://localhost"), ("sec-fetch-site", "same-origin")];
    assert_eq!(change(&own).await.0, StatusCode::OK);
}

#[test]
fn a_short_secret_or_a_password_in_the_clear_is_refused_at_start() {
    assert_eq!(Auth::new(AuthMode::AllAdmins, b"short").unwrap_err(), AuthError::WeakSecret(5));
    let clear = AuthMode::Password { username: "a".into(), password_hash: "hunter2".into() };
    assert!(matches!(Auth::new(clear, SECRET), Err(AuthError::BadHash(_))));
}

#[tokio::test]
async fn with_everybody_as_administrator_the_server_binds_to_loopback_only() {
    let world = World::new().await;
    let Ok(listener) = tokio::net::TcpListener::bind("0.0.0.0:0").await else {
        println!("skipped: this machine lets nobody bind to all addresses");
        return;
    };
    let served = gust_web::serve(listener, world.state.clone(), std::future::pending()).await;
    assert!(matches!(served, Err(gust_web::ServeError::NotLoopback(_))));
}
