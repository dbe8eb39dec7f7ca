//! XComs, rendered fields and state stores.

use gust_model::{
    DagRunId, MapIndex, TaskId, TaskInstanceId,
    record::{DagRun, StateStoreScope, XCom, XComKey},
};
use gust_ports::metastore::XComFilter;
use serde_json::{Value, json};

use crate::{
    backend::Backend,
    behaviours,
    fixtures::{at, dag, id, one_run, put_dag, put_runs, put_task_instances, run, task_instance},
};

behaviours! { everywhere:
    xcom_is_stored_whole_and_overwritten
    json_null_is_a_value_and_absence_is_none
    xcom_is_deleted_once
    clearing_takes_all_xcoms_of_one_index
    sequence_by_index_and_not_by_text
    latest_xcom_is_of_the_newest_run_that_has_one
    xcoms_by_every_filter_in_pages
    map_lengths_of_return_values
    rendered_fields_are_replaced
    state_store_is_kept_by_scope
    state_store_entries_lapse
}

/// An XCom of a task of a run.
pub fn xcom(run: &DagRun, task: &str, index: i32, key: &str, value: i64) -> XCom {
    XCom {
        key: XComKey {
            dag_run_id: run.id,
            task_id: task.into(),
            map_index: MapIndex(index),
            key: key.to_owned(),
        },
        dag_id: run.dag_id.clone(),
        run_id: run.run_id.clone(),
        value: json!(value),
        mapped_length: None,
        is_dag_result: false,
        timestamp: at(8),
    }
}

async fn put(backend: &Backend, xcoms: &[XCom]) {
    let mut tx = backend.write().await;
    tx.put_xcoms(xcoms).await.unwrap();
    tx.commit().await.unwrap();
}

async fn xcom_is_stored_whole_and_overwritten(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let first = XCom {
        value: json!({"ü": [1, 2.5, "x", null, true, {"n": 12_345_678_901_234_567_u64}]}),
        mapped_length: Some(6),
        is_dag_result: true,
        ..xcom(&run, "t", 2, "schlüssel", 0)
    };
    put(backend, std::slice::from_ref(&first)).await;
    assert_eq!(backend.read().await.xcom(&first.key).await.unwrap(), Some(first.clone()));
    let second = XCom {
        value: json!(""),
        mapped_length: None,
        is_dag_result: false,
        timestamp: at(9),
        ..first.clone()
    };
    put(backend, std::slice::from_ref(&second)).await;
    assert_eq!(backend.read().await.xcom(&first.key).await.unwrap(), Some(second));
    let none = XComKey { key: "none".to_owned(), ..first.key };
    assert_eq!(backend.read().await.xcom(&none).await.unwrap(), None);
}

async fn json_null_is_a_value_and_absence_is_none(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let null = XCom { value: Value::Null, ..xcom(&run, "t", -1, "k", 0) };
    let text = XCom { value: json!("null"), ..xcom(&run, "t", -1, "text", 0) };
    put(backend, &[null.clone(), text.clone()]).await;
    let mut tx = backend.read().await;
    assert_eq!(tx.xcom(&null.key).await.unwrap(), Some(null));
    assert_eq!(tx.xcom(&text.key).await.unwrap(), Some(text));
}

async fn xcom_is_deleted_once(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let (gone, kept) = (xcom(&run, "t", -1, "a", 1), xcom(&run, "t", -1, "b", 2));
    put(backend, &[gone.clone(), kept.clone()]).await;
    let mut tx = backend.write().await;
    assert!(tx.delete_xcom(&gone.key).await.unwrap());
    assert!(!tx.delete_xcom(&gone.key).await.unwrap());
    assert_eq!(tx.xcom(&kept.key).await.unwrap(), Some(kept));
}

async fn clearing_takes_all_xcoms_of_one_index(backend: &Backend) {
    let (record, run_1) = one_run(backend).await;
    let run_2 = run(&record, 2);
    put_runs(backend, &[&run_2]).await;
    put(
        backend,
        &[
            xcom(&run_1, "t", 0, "a", 1),
            xcom(&run_1, "t", 0, "b", 2),
            xcom(&run_1, "t", 1, "a", 3),
            xcom(&run_1, "u", 0, "a", 4),
            xcom(&run_2, "t", 0, "a", 5),
        ],
    )
    .await;
    let mut tx = backend.write().await;
    tx.clear_xcoms(run_1.id, &"t".into(), MapIndex(0)).await.unwrap();
    let left = tx.xcoms(&XComFilter::default(), 9, 0).await.unwrap().items;
    let mut values: Vec<i64> = left.iter().map(|xcom| xcom.value.as_i64().unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values, [3, 4, 5]);
}

async fn sequence_by_index_and_not_by_text(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let mut xcoms: Vec<XCom> = [10, 2, 0, -1].iter().map(|n| xcom(&run, "t", *n, "k", (*n).into())).collect();
    xcoms.push(xcom(&run, "t", 1, "other", 100));
    xcoms.push(xcom(&run, "u", 1, "k", 101));
    put(backend, &xcoms).await;
    let mut tx = backend.read().await;
    let task = TaskId::from("t");
    let mut values = async |offset, limit| {
        let found = tx.xcom_sequence(run.id, &task, "k", offset, limit).await.unwrap();
        found.iter().map(|xcom| xcom.value.as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(values(0, 10).await, [0, 2, 10]);
    assert_eq!(values(1, 1).await, [2]);
    assert_eq!(values(3, 10).await, Vec::<i64>::new());
    assert_eq!(tx.xcom_count(run.id, &task, "k").await.unwrap(), 3);
    assert_eq!(tx.xcom_count(run.id, &task, "none").await.unwrap(), 0);
    assert_eq!(tx.xcom_count(DagRunId(id()), &task, "k").await.unwrap(), 0);
}

async fn latest_xcom_is_of_the_newest_run_that_has_one(backend: &Backend) {
    let record = dag("d");
    let other = dag("e");
    put_dag(backend, &record).await;
    put_dag(backend, &other).await;
    let runs: Vec<DagRun> = (1..=4).map(|day| run(&record, day)).collect();
    let dateless = DagRun { logical_date: None, run_id: "manual".into(), ..run(&record, 1) };
    let elsewhere = run(&other, 3);
    put_runs(backend, &runs.iter().chain([&dateless, &elsewhere]).collect::<Vec<_>>()).await;
    put(
        backend,
        &[
            xcom(&runs[0], "t", -1, "k", 1),
            xcom(&runs[1], "t", -1, "k", 2),
            xcom(&runs[2], "t", 0, "k", 3),
            xcom(&runs[2], "t", -1, "other", 4),
            xcom(&runs[3], "t", -1, "k", 5),
            xcom(&dateless, "t", -1, "k", 6),
            xcom(&elsewhere, "t", -1, "k", 7),
        ],
    )
    .await;
    let mut tx = backend.read().await;
    for (day, expected) in [(1, Some(1)), (2, Some(2)), (3, Some(2)), (4, Some(5)), (9, Some(5)), (0, None)] {
        let date = at(day * 86_400);
        let found = tx.latest_xcom(&"d".into(), &"t".into(), MapIndex(-1), "k", date).await.unwrap();
        assert_eq!(found.map(|xcom| xcom.value), expected.map(|n: i64| json!(n)), "day {day}");
    }
}

async fn xcoms_by_every_filter_in_pages(backend: &Backend) {
    let (record, run_1) = one_run(backend).await;
    let other = dag("e");
    put_dag(backend, &other).await;
    let (run_2, run_3) = (run(&record, 2), run(&other, 3));
    put_runs(backend, &[&run_2, &run_3]).await;
    put(
        backend,
        &[
            xcom(&run_1, "b", 10, "k", 5),
            xcom(&run_1, "b", 2, "l", 4),
            xcom(&run_1, "b", 2, "k", 3),
            xcom(&run_2, "a", -1, "k", 1),
            xcom(&run_3, "a", 0, "k", 2),
        ],
    )
    .await;
    let any = XComFilter::default;
    let cases: Vec<(XComFilter, &[i64])> = vec![
        (any(), &[1, 2, 3, 4, 5]),
        (XComFilter { dag_id: Some("d".into()), ..any() }, &[1, 3, 4, 5]),
        (XComFilter { run_id: Some(run_3.run_id.clone()), ..any() }, &[2]),
        (XComFilter { task_id: Some("b".into()), ..any() }, &[3, 4, 5]),
        (XComFilter { map_index: Some(MapIndex(2)), ..any() }, &[3, 4]),
        (XComFilter { key: Some("k".to_owned()), ..any() }, &[1, 2, 3, 5]),
        (XComFilter { task_id: Some("b".into()), key: Some("k".to_owned()), ..any() }, &[3, 5]),
    ];
    let mut tx = backend.read().await;
    for (filter, expected) in cases {
        let listing = tx.xcoms(&filter, 10, 0).await.unwrap();
        let values: Vec<i64> = listing.items.iter().map(|xcom| xcom.value.as_i64().unwrap()).collect();
        assert_eq!(values, expected, "{filter:?}");
        assert_eq!(listing.total, expected.len() as u64);
    }
    let page = tx.xcoms(&any(), 2, 1).await.unwrap();
    assert_eq!((page.items.len(), page.total), (2, 5));
    assert_eq!(page.items[0].value, json!(2));
}

async fn map_lengths_of_return_values(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let with = |task: &str, index, key: &str, length| XCom {
        mapped_length: length,
        ..xcom(&run, task, index, key, 0)
    };
    put(
        backend,
        &[
            with("a", -1, "return_value", Some(3)),
            with("b", 10, "return_value", Some(0)),
            with("b", 2, "return_value", Some(7)),
            with("b", 3, "return_value", None),
            with("a", 0, "other", Some(5)),
            with("c", -1, "return_value", Some(9)),
        ],
    )
    .await;
    let mut tx = backend.read().await;
    let mut lengths = tx.map_lengths(run.id, &["a".into(), "b".into(), "none".into()]).await.unwrap();
    lengths.sort();
    let expected: Vec<(TaskId, MapIndex, u32)> =
        vec![("a".into(), MapIndex(-1), 3), ("b".into(), MapIndex(2), 7), ("b".into(), MapIndex(10), 0)];
    assert_eq!(lengths, expected);
}

async fn rendered_fields_are_replaced(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let row = task_instance(&run, "t");
    put_task_instances(backend, std::slice::from_ref(&row)).await;
    let mut tx = backend.write().await;
    assert_eq!(tx.rendered_fields(row.id).await.unwrap(), None);
    for fields in [json!({"bash_command": "echo ü", "env": null}), json!({})] {
        tx.put_rendered_fields(row.id, &fields).await.unwrap();
        assert_eq!(tx.rendered_fields(row.id).await.unwrap(), Some(fields));
    }
    assert_eq!(tx.rendered_fields(TaskInstanceId(id())).await.unwrap(), None);
}

async fn state_store_is_kept_by_scope(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let task = |index| StateStoreScope::Task(run.id, "t".into(), MapIndex(index));
    let asset = StateStoreScope::Asset("s3://b/ü".to_owned());
    let mut tx = backend.write().await;
    for (n, scope) in [task(-1), task(0), asset.clone()].iter().enumerate() {
        assert_eq!(tx.state_store_get(scope, "k").await.unwrap(), None);
        tx.state_store_put(scope, "k", &json!("old"), None).await.unwrap();
        tx.state_store_put(scope, "k", &json!({"n": n}), None).await.unwrap();
        tx.state_store_put(scope, "null", &Value::Null, None).await.unwrap();
    }
    for (n, scope) in [task(-1), task(0), asset.clone()].iter().enumerate() {
        assert_eq!(tx.state_store_get(scope, "k").await.unwrap(), Some(json!({"n": n})));
        assert_eq!(tx.state_store_get(scope, "null").await.unwrap(), Some(Value::Null));
    }
    tx.state_store_delete(&task(0), Some("k")).await.unwrap();
    assert_eq!(tx.state_store_get(&task(0), "k").await.unwrap(), None);
    assert!(tx.state_store_get(&task(0), "null").await.unwrap().is_some());
    tx.state_store_delete(&asset, None).await.unwrap();
    assert_eq!(tx.state_store_get(&asset, "k").await.unwrap(), None);
    assert_eq!(tx.state_store_get(&asset, "null").await.unwrap(), None);
    assert!(tx.state_store_get(&task(-1), "k").await.unwrap().is_some());
}

async fn state_store_entries_lapse(backend: &Backend) {
    let scope = StateStoreScope::Asset("a".to_owned());
    let mut tx = backend.write().await;
    let now = tx.now().await.unwrap();
    let hour = chrono::TimeDelta::hours(1);
    tx.state_store_put(&scope, "k", &json!(1), Some(now + hour)).await.unwrap();
    assert_eq!(tx.state_store_get(&scope, "k").await.unwrap(), Some(json!(1)));
    tx.state_store_put(&scope, "k", &json!(2), Some(now - hour)).await.unwrap();
    assert_eq!(tx.state_store_get(&scope, "k").await.unwrap(), None);
    tx.state_store_put(&scope, "k", &json!(3), None).await.unwrap();
    assert_eq!(tx.state_store_get(&scope, "k").await.unwrap(), Some(json!(3)));
}
