//! What each resource looks like.

use axum::{
    body::Body,
    http::{Method, StatusCode, header},
};
use rstest::rstest;
use serde_json::json;

use crate::world::World;

const GOOD: &str = "/api/v2/dags/shop/dagRuns/scheduled__2026-02-01T00:00:00+00:00";

#[rstest]
#[case("health", "/api/v2/monitor/health")]
#[case("version", "/api/v2/version")]
#[case("dags", "/api/v2/dags?order_by=-dag_id&tags=a&limit=5")]
#[case("dag", "/api/v2/dags/shop")]
#[case("dag_details", "/api/v2/dags/shop/details")]
#[case("dag_tags", "/api/v2/dagTags")]
#[case("dag_stats", "/api/v2/dagStats?dag_ids=shop")]
#[case("dag_versions", "/api/v2/dags/shop/dagVersions")]
#[case("tasks", "/api/v2/dags/shop/tasks?order_by=-task_id")]
#[case("dag_runs", "/api/v2/dags/shop/dagRuns?order_by=-start_date&state=success&state=failed")]
#[case("dag_run", GOOD)]
#[case(
    "task_instances",
    "/api/v2/dags/shop/dagRuns/scheduled__2026-02-03T00:00:00+00:00/taskInstances?limit=2&offset=1&order_by=task_id"
)]
#[case("task_instance", "/api/v2/dags/shop/dagRuns/scheduled__2026-02-01T00:00:00+00:00/taskInstances/fetch")]
#[case(
    "mapped_task_instance",
    "/api/v2/dags/shop/dagRuns/scheduled__2026-02-01T00:00:00+00:00/taskInstances/pack/1"
)]
#[case("tries", "/api/v2/dags/shop/dagRuns/scheduled__2026-02-01T00:00:00+00:00/taskInstances/pack/1/tries")]
#[case("log", "/api/v2/dags/shop/dagRuns/scheduled__2026-02-01T00:00:00+00:00/taskInstances/fetch/logs/1")]
#[case("xcoms", "/api/v2/dags/shop/dagRuns/~/taskInstances/~/xcomEntries?limit=1")]
#[case(
    "xcom",
    "/api/v2/dags/shop/dagRuns/scheduled__2026-02-01T00:00:00+00:00/taskInstances/fetch/xcomEntries/return_value"
)]
#[case("import_errors", "/api/v2/importErrors")]
#[case("pools", "/api/v2/pools")]
#[case("assets", "/api/v2/assets")]
#[tokio::test]
async fn it_looks_as_airflow_shows_it(#[case] name: &str, #[case] path: &str) {
    let world = World::new().await;
    let (status, answer) = world.get(path).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    insta::assert_json_snapshot!(name, answer);
}

#[rstest]
#[case("/api/v2/dags/nope", "The Dag with ID: `nope` was not found")]
#[case("/api/v2/dags/shop/dagRuns/r", "The DagRun with dag_id: `shop` and run_id: `r` was not found")]
#[case("/api/v2/dags/shop/tasks/nope", "Task with id nope was not found")]
#[case("/api/v2/pools/nope", "The Pool with name: `nope` was not found")]
#[case("/api/v2/variables/nope", "The Variable with key: `nope` was not found")]
#[case("/api/v2/connections/nope", "The Connection with connection_id: `nope` was not found")]
#[case("/api/v2/importErrors/99", "The ImportError with import_error_id: `99` was not found")]
#[case(
    "/api/v2/dags/shop/dagVersions/9",
    "The DagVersion with dag_id: `shop` and version_number: `9` was not found"
)]
#[tokio::test]
async fn what_is_not_there_is_said_in_airflows_words(#[case] path: &str, #[case] text: &str) {
    let world = World::new().await;
    assert_eq!(world.get(path).await, (StatusCode::NOT_FOUND, json!({ "detail": text })));
}

#[tokio::test]
async fn a_mapped_task_instance_wants_its_index() {
    let world = World::new().await;
    let (status, answer) = world.get(&format!("{GOOD}/taskInstances/pack")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(answer["detail"], "Task instance is mapped, add the map_index value to the URL");
    let (_, mapped) = world.get(&format!("{GOOD}/taskInstances/pack/listMapped")).await;
    assert_eq!(mapped["total_entries"], 2);
    let (status, answer) = world.get(&format!("{GOOD}/taskInstances/fetch/listMapped")).await;
    assert_eq!((status, &answer["detail"]), (StatusCode::NOT_FOUND, &json!("Task id fetch is not mapped")));
}

#[tokio::test]
async fn a_log_comes_as_lines_for_who_asks_and_goes_on_while_the_task_runs() {
    let world = World::new().await;
    let lines = world
        .request(Method::GET, &format!("{GOOD}/taskInstances/fetch/logs/1?full_content=true"))
        .header(header::ACCEPT, "application/x-ndjson")
        .body(Body::empty())
        .unwrap();
    let (status, text) = world.send(lines).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(text.as_str().unwrap().lines().count(), 2);

    let running = "/api/v2/dags/shop/dagRuns/scheduled__2026-02-03T00:00:00+00:00/taskInstances/pack/logs/1?map_index=0";
    let (_, first) = world.get(running).await;
    let token = first["continuation_token"].as_str().unwrap();
    let (status, _) = world.get(&format!("{running}&token={token}")).await;
    assert_eq!(status, StatusCode::OK);
    let (status, answer) = world.get(&format!("{running}&token=forged")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    let (status, answer) = world.get(&format!("{GOOD}/taskInstances/fetch/logs/7")).await;
    assert_eq!((status, answer), (StatusCode::NOT_FOUND, json!({"detail": "TaskInstance not found"})));
}

#[tokio::test]
async fn the_tilde_stands_for_all() {
    let world = World::new().await;
    for (path, total) in [
        ("/api/v2/dags/~/dagRuns", 3),
        ("/api/v2/dags/~/dagRuns/~/taskInstances?state=running", 1),
        ("/api/v2/dags/~/dagRuns/~/taskInstances?state=none", 1),
        ("/api/v2/dags/~/dagRuns/~/taskInstances/~/xcomEntries", 3),
    ] {
        assert_eq!(world.get(path).await.1["total_entries"], total, "{path}");
    }
    let body = json!({"dag_ids": ["shop"], "states": ["failed"], "order_by": "-run_after"});
    assert_eq!(world.post("/api/v2/dags/~/dagRuns/list", body).await.1["total_entries"], 1);
    let body = json!({"dag_ids": ["shop"], "state": ["failed"], "task_ids": ["pack"]});
    let (_, answer) = world.post("/api/v2/dags/~/dagRuns/~/taskInstances/list", body).await;
    assert_eq!(answer["total_entries"], 1);
}

#[tokio::test]
async fn an_order_that_nobody_knows_is_refused() {
    let world = World::new().await;
    let (status, answer) = world.get("/api/v2/dags/shop/dagRuns?order_by=-colour").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        answer["detail"],
        "Ordering with 'colour' is disallowed or the attribute does not exist on the model"
    );
}

#[tokio::test]
async fn a_task_instance_says_what_keeps_it_from_starting() {
    let world = World::new().await;
    let going = "/api/v2/dags/shop/dagRuns/scheduled__2026-02-03T00:00:00+00:00/taskInstances";
    let (status, answer) = world.get(&format!("{going}/end.done/dependencies")).await;
    assert_eq!(status, StatusCode::OK);
    insta::assert_json_snapshot!("dependencies", answer);
    assert_eq!(
        world.get(&format!("{going}/pack/0/dependencies")).await,
        (StatusCode::OK, json!({"dependencies": []}))
    );
}
