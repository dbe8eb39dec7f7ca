//! What requests change.

use axum::http::StatusCode;
use gust_ports::{Wake, metastore::TxMode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::world::{PATIENCE, World};

const RUNS: &str = "/api/v2/dags/shop/dagRuns";
const GOOD: &str = "scheduled__2026-02-01T00:00:00+00:00";
const BAD: &str = "scheduled__2026-02-02T00:00:00+00:00";
const GOING: &str = "scheduled__2026-02-03T00:00:00+00:00";

async fn state_of(world: &World, run: &str, task: &str) -> Value {
    world.get(&format!("{RUNS}/{run}/taskInstances/{task}")).await.1["state"].clone()
}

#[tokio::test]
async fn a_run_is_triggered_and_wakes_the_scheduler() {
    use futures::StreamExt;
    let world = World::new().await;
    let mut wakes = world.state.wakeups.listen();
    let body = json!({"logical_date": null, "conf": {"city": "Basel"}, "note": "please"});
    let (status, run) = world.post(RUNS, body).await;
    assert_eq!(status, StatusCode::OK, "{run}");
    insta::assert_json_snapshot!("triggered", run);
    let wake = timeout(PATIENCE, wakes.next()).await.unwrap().unwrap();
    assert!(matches!(wake, Wake::Run { plan: true, .. }), "{wake:?}");
}

#[tokio::test]
async fn a_trigger_that_makes_no_sense_is_refused_with_the_reason() {
    let world = World::new().await;
    for (body, expected, holds) in [
        (
            json!({"logical_date": "2026-02-01T00:00:00Z", "dag_run_id": "x"}),
            StatusCode::CONFLICT,
            "already stands",
        ),
        (
            json!({"logical_date": null, "dag_run_id": GOOD}),
            StatusCode::BAD_REQUEST,
            "reserved for scheduled runs",
        ),
        (json!({"logical_date": null, "dag_run_id": "../x"}), StatusCode::BAD_REQUEST, "path traversal"),
        (json!({"logical_date": null, "dag_run_id": "a b"}), StatusCode::BAD_REQUEST, "does not match regex"),
        (
            json!({"logical_date": null, "conf": {"count": "three"}}),
            StatusCode::BAD_REQUEST,
            "Invalid input for param count",
        ),
        (
            json!({"logical_date": null, "conf": {"count": 0}}),
            StatusCode::BAD_REQUEST,
            "less than the minimum",
        ),
        (
            json!({"logical_date": null, "partition_key": "k"}),
            StatusCode::BAD_REQUEST,
            "not a partitioned Dag",
        ),
    ] {
        let (status, answer) = world.post(RUNS, body.clone()).await;
        assert_eq!(status, expected, "{body}: {answer}");
        assert!(answer.to_string().contains(holds), "{body}: {answer}");
    }
    let (status, _) = world.post("/api/v2/dags/nope/dagRuns", json!({"logical_date": null})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_dag_is_paused() {
    let world = World::new().await;
    let (status, dag) = world.patch("/api/v2/dags/shop", json!({"is_paused": true})).await;
    assert_eq!((status, &dag["is_paused"]), (StatusCode::OK, &json!(true)));
    assert_eq!(world.get("/api/v2/dags?paused=true").await.1["total_entries"], 1);
}

#[tokio::test]
async fn a_clear_says_what_it_would_do_then_does_it_and_keeps_the_try() {
    let world = World::new().await;
    let body = |dry_run: bool| json!({"dag_run_id": BAD, "task_ids": [["pack", 0]], "include_downstream": true, "only_failed": false, "dry_run": dry_run});
    let (_, planned) = world.post("/api/v2/dags/shop/clearTaskInstances", body(true)).await;
    assert_eq!(planned["total_entries"], 2, "{planned}");
    assert_eq!(state_of(&world, BAD, "pack/0").await, "failed");
    let (status, cleared) = world.post("/api/v2/dags/shop/clearTaskInstances", body(false)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(cleared["total_entries"], 2);
    assert_eq!(state_of(&world, BAD, "pack/0").await, Value::Null);
    assert_eq!(state_of(&world, BAD, "pack/1").await, "success");
    let (_, run) = world.get(&format!("{RUNS}/{BAD}")).await;
    assert_eq!((&run["state"], &run["start_date"]), (&json!("queued"), &Value::Null));
    let (_, tries) = world.get(&format!("{RUNS}/{BAD}/taskInstances/pack/0/tries")).await;
    assert_eq!(
        (&tries["total_entries"], &tries["task_instances"][0]["state"]),
        (&json!(1), &json!("failed"))
    );
    let (_, row) = world.get(&format!("{RUNS}/{BAD}/taskInstances/pack/0")).await;
    assert_eq!(row["max_tries"], 3);
}

#[tokio::test]
async fn clearing_what_runs_takes_it_from_its_worker() {
    use futures::StreamExt;
    let world = World::new().await;
    let mut wakes = world.state.wakeups.listen();
    let body = json!({"dag_run_id": GOING, "only_failed": false, "only_running": true, "dry_run": false});
    let (status, cleared) = world.post("/api/v2/dags/shop/clearTaskInstances", body).await;
    assert_eq!((status, &cleared["total_entries"]), (StatusCode::OK, &json!(1)), "{cleared}");
    let wake = timeout(PATIENCE, wakes.next()).await.unwrap().unwrap();
    let Wake::Revoked { task_instance_id } = wake else { panic!("{wake:?}") };
    let mut tx = world.state.metastore.begin(TxMode::Read).await.unwrap();
    let row = tx.task_instance(task_instance_id).await.unwrap().unwrap();
    assert_eq!((row.lease, row.epoch, row.is_dirty), (None, gust_model::Epoch(2), true));
    assert_eq!(world.get(&format!("{RUNS}/{GOING}")).await.1["state"], "running");
}

#[tokio::test]
async fn clearing_what_runs_can_be_prevented() {
    let world = World::new().await;
    let body =
        json!({"dag_run_id": GOING, "only_failed": false, "prevent_running_task": true, "dry_run": false});
    let (status, _) = world.post("/api/v2/dags/shop/clearTaskInstances", body).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(state_of(&world, GOING, "pack/0").await, "running");
}

#[tokio::test]
async fn a_mark_sets_the_state_once_and_resumes_what_failed_after_it() {
    let world = World::new().await;
    let path = format!("{RUNS}/{GOING}/taskInstances/pack/0");
    let (status, marked) = world.patch(&path, json!({"new_state": "success", "note": "by hand"})).await;
    assert_eq!(
        (status, &marked["task_instances"][0]["state"]),
        (StatusCode::OK, &json!("success")),
        "{marked}"
    );
    assert_eq!(marked["task_instances"][0]["note"], "by hand");
    let (status, answer) = world.patch(&path, json!({"new_state": "success"})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    let (status, _) = world.patch(&path, json!({"new_state": "queued"})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn ending_a_run_skips_what_waits_and_ends_what_runs() {
    let world = World::new().await;
    let (status, run) =
        world.patch(&format!("{RUNS}/{GOING}"), json!({"state": "failed", "note": "enough"})).await;
    assert_eq!((status, &run["state"], &run["note"]), (StatusCode::OK, &json!("failed"), &json!("enough")));
    assert_eq!(state_of(&world, GOING, "pack/0").await, "failed");
    assert_eq!(state_of(&world, GOING, "end.done").await, "skipped");
    assert_eq!(state_of(&world, GOING, "fetch").await, "success");
}

#[tokio::test]
async fn a_running_run_is_not_removed_and_a_finished_one_is() {
    let world = World::new().await;
    let (status, answer) = world.delete(&format!("{RUNS}/{GOING}")).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    assert_eq!(world.delete(&format!("{RUNS}/{GOOD}")).await.0, StatusCode::NO_CONTENT);
    assert_eq!(world.get(&format!("{RUNS}/{GOOD}")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.delete("/api/v2/dags/shop").await.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_run_is_cleared_as_a_whole() {
    let world = World::new().await;
    let path = format!("{RUNS}/{GOOD}/clear");
    let (_, planned) = world.post(&path, json!({"dry_run": true})).await;
    assert_eq!(planned["total_entries"], 5);
    let (status, run) = world.post(&path, json!({"dry_run": false, "note": "again"})).await;
    assert_eq!((status, &run["state"], &run["note"]), (StatusCode::OK, &json!("queued"), &json!("again")));
}

#[tokio::test]
async fn secrets_are_sealed_at_rest_and_masked_in_answers() {
    let world = World::new().await;
    let body = json!({"key": "a/b", "value": {"password": "x", "y": 1}});
    let (status, variable) = world.post("/api/v2/variables", body.clone()).await;
    assert_eq!((status, &variable["value"]), (StatusCode::CREATED, &json!(r#"{"password":"***","y":1}"#)));
    assert_eq!(world.post("/api/v2/variables", body).await.0, StatusCode::CONFLICT);
    let mut tx = world.state.metastore.begin(TxMode::Read).await.unwrap();
    let stored = tx.variable(&"a/b".into()).await.unwrap().unwrap();
    assert!(stored.sealed_value.starts_with("sealed:variable/a/b/value:"));
    drop(tx);

    let body = json!({"connection_id": "pg", "conn_type": "postgres", "password": "p", "extra": "{\"token\": \"t\"}"});
    let (status, connection) = world.post("/api/v2/connections", body).await;
    assert_eq!((status, &connection["password"]), (StatusCode::CREATED, &json!("***")));
    assert_eq!(connection["extra"], r#"{"token":"***"}"#);
    let sent_back = json!({"connection_id": "pg", "conn_type": "postgres", "password": "***", "extra": "{\"token\": \"***\"}", "host": "h"});
    assert_eq!(world.patch("/api/v2/connections/pg", sent_back).await.0, StatusCode::OK);
    let mut tx = world.state.metastore.begin(TxMode::Read).await.unwrap();
    let stored = tx.connection(&"pg".into()).await.unwrap().unwrap();
    assert_eq!(stored.sealed_password.as_deref(), Some("sealed:connection/pg/password:p"));
    assert_eq!(stored.sealed_extra.as_deref(), Some(r#"sealed:connection/pg/extra:{"token":"t"}"#));
    drop(tx);
    assert_eq!(world.delete("/api/v2/connections/pg").await.0, StatusCode::NO_CONTENT);
    assert_eq!(world.delete("/api/v2/variables/a/b").await.0, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn pools_keep_their_rules() {
    let world = World::new().await;
    let (status, pool) = world.post("/api/v2/pools", json!({"name": "p", "slots": 3})).await;
    assert_eq!((status, &pool["open_slots"]), (StatusCode::CREATED, &json!(3)));
    assert_eq!(world.post("/api/v2/pools", json!({"name": "p", "slots": 3})).await.0, StatusCode::CONFLICT);
    assert_eq!(world.patch("/api/v2/pools/p", json!({"slots": -1})).await.1["open_slots"], -1);
    assert_eq!(
        world.patch("/api/v2/pools/p", json!({"slots": -2})).await.0,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_eq!(world.delete("/api/v2/pools/p").await.0, StatusCode::NO_CONTENT);
    let (status, answer) = world.delete("/api/v2/pools/default_pool").await;
    assert_eq!(
        (status, answer),
        (StatusCode::BAD_REQUEST, json!({"detail": "Default Pool can't be deleted"}))
    );
}

#[tokio::test]
async fn an_xcom_of_a_client_is_kept_changed_and_removed_but_never_builds_objects() {
    let world = World::new().await;
    let all = format!("{RUNS}/{GOOD}/taskInstances/fetch/xcomEntries");
    let (status, xcom) = world.post(&all, json!({"key": "k/1", "value": {"a": 1}})).await;
    assert_eq!((status, &xcom["value"]), (StatusCode::CREATED, &json!({"a": 1})), "{xcom}");
    assert_eq!(world.patch(&format!("{all}/k/1"), json!({"value": 2})).await.1["value"], 2);
    assert_eq!(world.delete(&format!("{all}/k/1")).await.0, StatusCode::NO_CONTENT);
    for smuggled in [json!({"__classname__": "os.system"}), json!("{\"x\": {\"__type\": \"y\"}}")] {
        let (status, _) = world.post(&all, json!({"key": "k", "value": smuggled})).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    }
}

#[tokio::test]
async fn an_asset_event_is_noted_for_the_dags_that_wait() {
    let world = World::new().await;
    let id = world.get("/api/v2/assets").await.1["assets"][0]["id"].clone();
    let (status, event) =
        world.post("/api/v2/assets/events", json!({"asset_id": id, "extra": {"n": 1}})).await;
    assert_eq!((status, &event["uri"]), (StatusCode::OK, &json!("s3://shop/orders")), "{event}");
    assert_eq!(world.get("/api/v2/assets/events").await.1["total_entries"], 1);
    let mut tx = world.state.metastore.begin(TxMode::Read).await.unwrap();
    assert_eq!(tx.queued_asset_events(Some(&"shop".into())).await.unwrap().len(), 1);
    drop(tx);
    let (status, _) = world.post("/api/v2/assets/events", json!({"asset_id": 12345})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}
