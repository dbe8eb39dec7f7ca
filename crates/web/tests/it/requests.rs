//! How requests are read: what is wrong with one is said in FastAPI's shape.

use axum::{
    body::Body,
    http::{Method, StatusCode, header},
};
use rstest::rstest;
use serde_json::{Value, json};

use crate::world::World;

#[rstest]
#[case("/api/v2/dags?limit=x", "int_parsing", json!(["query", "limit"]))]
#[case("/api/v2/dags?limit=-1", "greater_than_equal", json!(["query", "limit"]))]
#[case("/api/v2/dags?paused=maybe", "bool_parsing", json!(["query", "paused"]))]
#[case("/api/v2/dags?nonsense=1", "extra_forbidden", json!(["query", "nonsense"]))]
#[case("/api/v2/dags/shop/dagRuns?state=done", "enum", json!(["query", "state"]))]
#[case("/api/v2/dags/shop/dagRuns?start_date_gte=soon", "datetime_from_date_parsing", json!(["query", "start_date_gte"]))]
#[case("/api/v2/importErrors/x", "int_parsing", json!(["path", "import_error_id"]))]
#[tokio::test]
async fn what_is_wrong_in_a_path_or_query_is_named(
    #[case] path: &str,
    #[case] kind: &str,
    #[case] place: Value,
) {
    let world = World::new().await;
    let (status, answer) = world.get(path).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    assert_eq!((&answer["detail"][0]["type"], &answer["detail"][0]["loc"]), (&json!(kind), &place));
}

#[rstest]
#[case(json!({}), "missing", json!(["body", "logical_date"]))]
#[case(json!({"logical_date": null, "extra": 1}), "extra_forbidden", json!(["body", "extra"]))]
#[case(json!({"logical_date": "2026-01-01T00:00:00"}), "timezone_aware", json!(["body", "logical_date"]))]
#[case(json!({"logical_date": null, "conf": [1]}), "dict_type", json!(["body", "conf"]))]
#[case(json!({"logical_date": null, "data_interval_start": "2026-01-01T00:00:00Z"}), "value_error", json!(["body"]))]
#[case(json!([1]), "model_attributes_type", json!(["body"]))]
#[tokio::test]
async fn what_is_wrong_in_a_body_is_named(#[case] body: Value, #[case] kind: &str, #[case] place: Value) {
    let world = World::new().await;
    let (status, answer) = world.post("/api/v2/dags/shop/dagRuns", body).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    assert_eq!((&answer["detail"][0]["type"], &answer["detail"][0]["loc"]), (&json!(kind), &place));
}

#[tokio::test]
async fn a_body_must_be_json_and_not_too_large() {
    let world = World::new().await;
    let send = |kind: &str, body: String| {
        let request = world
            .request(Method::POST, "/api/v2/pools")
            .header(header::CONTENT_TYPE, kind)
            .body(Body::from(body))
            .unwrap();
        world.send(request)
    };
    assert_eq!(send("application/json", "{".into()).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(send("text/plain", "{}".into()).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let huge = format!("{{\"name\": \"{}\"}}", "x".repeat(5 << 20));
    assert_eq!(send("application/json", huge).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn run_ids_are_decoded_from_the_path_and_dates_take_offsets() {
    let world = World::new().await;
    for run_id in ["scheduled__2026-02-01T00:00:00+00:00", "scheduled__2026-02-01T00%3A00%3A00%2B00%3A00"] {
        assert_eq!(world.get(&format!("/api/v2/dags/shop/dagRuns/{run_id}")).await.0, StatusCode::OK);
    }
    for bound in
        ["2026-02-02T02:00:00%2B02:00", "2026-02-02T02:00:00+02:00", "2026-02-02", "2026-02-02T00:00:00Z"]
    {
        let (status, answer) =
            world.get(&format!("/api/v2/dags/shop/dagRuns?logical_date_gte={bound}")).await;
        assert_eq!((status, &answer["total_entries"]), (StatusCode::OK, &json!(2)), "{bound}: {answer}");
    }
}

#[tokio::test]
async fn every_answer_carries_strict_headers_and_a_request_id() {
    use tower::ServiceExt;
    let world = World::new().await;
    let request = world.request(Method::GET, "/api/v2/dags").body(Body::empty()).unwrap();
    let response = world.router.clone().oneshot(request).await.unwrap();
    let get = |name: &str| response.headers().get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!(get("x-content-type-options"), "nosniff");
    assert!(get("content-security-policy").starts_with("default-src 'self'"));
    assert_eq!(get("cache-control"), "no-store");
    assert!(!get("x-request-id").is_empty());
}

#[tokio::test]
async fn the_openapi_document_names_each_operation_once_and_all_its_schemas() {
    let document = gust_web::openapi_document();
    let mut ids = std::collections::BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} twice, again at {method} {path}");
        }
    }
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"].get(name).is_some(), "no schema {name}");
    }
    insta::assert_snapshot!("operations", ids.into_iter().collect::<Vec<_>>().join("\n"));
}
