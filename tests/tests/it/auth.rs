//! Who is let in.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use gust_tests::{Gust, House, Options, Rest, Service, eventually, mint_token, python};
use reqwest::Method;
use serde_json::{Value, json};

const SECRET: &str = "a secret that only this test's server knows: 19fe03";

/// What anybody may ask a server that wants tokens: whether it lives, and for a token.
const OPEN: [(&str, &str); 5] = [
    ("GET", "/api/v2/monitor/health"),
    ("GET", "/api/v2/version"),
    ("GET", "/auth/token"),
    ("POST", "/auth/token"),
    ("POST", "/auth/token/cli"),
];

async fn start_web(house: &House) -> (Service, String) {
    house.run_well(["db", "migrate"]);
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let mut web = house.start("web", ["web", "--port", &port.to_string()]);
    let base = format!("http://127.0.0.1:{port}");
    let anybody = Rest::with_token(&base, "");
    eventually("the web server answers", Duration::from_mins(1), async || {
        web.check();
        anybody.call(Method::GET, "/api/v2/version", None).await.ok()
    })
    .await;
    (web, base)
}

/// Every method and path of a served OpenAPI document.
fn routes(document: &Value) -> Vec<(Method, String)> {
    let paths = document["paths"].as_object().unwrap();
    let mut routes = Vec::new();
    for (path, operations) in paths {
        for method in operations.as_object().unwrap().keys() {
            if let "get" | "put" | "post" | "patch" | "delete" = method.as_str() {
                routes.push((method.to_uppercase().parse().unwrap(), path.clone()));
            }
        }
    }
    routes
}

/// A path with something in the place of each parameter.
fn filled(path: &str) -> String {
    let part = |part: &str| if part.starts_with('{') { "1".to_owned() } else { part.to_owned() };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn a_web_server_denies_every_route_without_a_token_of_its_own() {
    let house = House::new().set("AIRFLOW__API_AUTH__JWT_SECRET", SECRET);
    let (_web, base) = start_web(&house).await;
    let with_token = Rest::with_token(&base, &mint_token(SECRET.as_bytes()));
    let document = with_token.get("/openapi.json").await;
    let routes = routes(&document);
    assert!(routes.len() > 40, "the document names only {} routes", routes.len());
    assert_eq!(with_token.get("/api/v2/dags").await["total_entries"], 0, "its own token is taken");

    let foreign = mint_token(b"another secret, of another server, just as long");
    let mut open = BTreeSet::new();
    let mut wrong = Vec::new();
    // As in Airflow, what is no token of ours is forbidden, and none at all is unauthorized.
    for (token, denied) in [("", 401), ("nonsense", 403), (foreign.as_str(), 403)] {
        let client = Rest::with_token(&base, token);
        for (method, path) in &routes {
            let body = (*method != Method::GET && *method != Method::DELETE).then(|| json!({}));
            let (status, text) =
                client.send(method.clone(), &filled(path), &[], body.as_ref()).await.unwrap();
            if OPEN.contains(&(method.as_str(), path.as_str())) {
                open.insert((method.as_str(), path.as_str()));
            } else if status != denied {
                wrong.push(format!("{method} {path} with the token {token:?}: {status} {text}"));
            }
        }
        for page in ["/", "/dags", "/events", "/openapi.json", "/pools", "/no/such/page"] {
            let accept = [("Accept", "application/json")];
            let (status, text) = client.send(Method::GET, page, &accept, None).await.unwrap();
            if status != denied {
                wrong.push(format!("GET {page} with the token {token:?}: {status} {text}"));
            }
        }
    }
    assert!(wrong.is_empty(), "answered without a token:\n{}", wrong.join("\n"));
    assert_eq!(open, OPEN.into_iter().collect(), "the open routes are all documented");
}

#[tokio::test]
async fn a_web_server_gives_no_token_to_whoever_asks() {
    let house = House::new().set("AIRFLOW__API_AUTH__JWT_SECRET", SECRET);
    let (_web, base) = start_web(&house).await;
    let anybody = Rest::with_token(&base, "");
    let login = json!({"username": "admin", "password": "admin"});
    for (method, path, body) in [
        (Method::GET, "/auth/token", None),
        (Method::POST, "/auth/token", Some(&login)),
        (Method::POST, "/auth/token/cli", Some(&login)),
    ] {
        let (status, text) = anybody.send(method.clone(), path, &[], body).await.unwrap();
        assert!((400..500).contains(&status), "{method} {path}: {status} {text}");
        assert!(!text.contains("access_token"), "{method} {path}: {text}");
    }
}

#[tokio::test]
async fn standalone_refuses_foreign_hosts_and_forwarded_requests() {
    let Some(python) = python().await else { return };
    let gust = Gust::start(&House::new(), &python, &Options::default()).await;
    for token in ["", gust.rest.token.as_str()] {
        let client = Rest::with_token(&gust.rest.base, token);
        for header in [
            ("Host", "gust.example.com"),
            ("Host", "127.0.0.1.nip.io"),
            ("X-Forwarded-For", "203.0.113.7"),
            ("X-Forwarded-Host", "gust.example.com"),
            ("Forwarded", "for=203.0.113.7"),
        ] {
            for path in ["/auth/token", "/api/v2/dags", "/", "/events"] {
                let (status, text) = client.send(Method::GET, path, &[header], None).await.unwrap();
                assert_eq!(status, 403, "{path} with {header:?}: {text}");
            }
        }
    }
    let port = gust.rest.base.rsplit(':').next().unwrap();
    let localhost = format!("localhost:{port}");
    let (status, _) =
        gust.rest.send(Method::GET, "/api/v2/dags", &[("Host", &localhost)], None).await.unwrap();
    assert_eq!(status, 200, "localhost is its name too");
}
