//! Assets, their events and who waits for them.

use gust_model::{
    AssetId, DagRunId, EventId, MapIndex,
    record::{Asset, AssetEvent, AssetReference, AssetReferenceKind, QueuedAssetEvent},
};
use gust_ports::metastore::{AssetEventFilter, TimeRange};
use serde_json::{Value, json};

use crate::{
    backend::Backend,
    behaviours,
    fixtures::{at, dag, id, one_run, put_dag},
};

behaviours! { everywhere:
    asset_is_found_by_name_by_uri_or_by_both
    an_asset_written_again_keeps_its_id
    assets_by_name_in_pages
    references_of_a_dag_are_replaced
    references_by_name_and_kind
    event_is_stored_whole
    events_by_every_filter
    a_noted_event_stays_as_first_noted
    noted_events_of_a_dag_are_used_up
    consumed_events_by_moment
}

fn asset(name: &str, uri: &str) -> Asset {
    Asset {
        id: AssetId(id()),
        name: name.to_owned(),
        uri: uri.to_owned(),
        group: "asset".to_owned(),
        extra: json!({"owner": "ünn"}),
        is_active: true,
    }
}

fn event(asset_id: AssetId, seconds: i64) -> AssetEvent {
    AssetEvent {
        id: EventId(id()),
        asset_id,
        timestamp: at(seconds),
        extra: json!({"rows": 3}),
        source_dag_id: Some("d".into()),
        source_run_id: Some("r".into()),
        source_task_id: Some("t".into()),
        source_map_index: MapIndex(4),
        source_aliases: vec!["alias one".to_owned(), "two".to_owned()],
        partition_key: Some("p".to_owned()),
    }
}

fn reference(dag_id: &str, kind: AssetReferenceKind, task: Option<&str>, name: &str) -> AssetReference {
    AssetReference {
        dag_id: dag_id.into(),
        kind,
        task_id: task.map(Into::into),
        name: name.to_owned(),
        uri: (name != "alias").then(|| format!("s3://{name}")),
    }
}

fn sorted(mut references: Vec<AssetReference>) -> Vec<AssetReference> {
    references.sort_by_key(|r| (r.dag_id.clone(), r.kind, r.task_id.clone(), r.name.clone()));
    references
}

async fn asset_is_found_by_name_by_uri_or_by_both(backend: &Backend) {
    let (a, b) = (asset("a", "s3://a"), asset("b", "s3://b"));
    let mut tx = backend.write().await;
    for asset in [&a, &b] {
        assert_eq!(tx.put_asset(asset).await.unwrap(), asset.id);
    }
    assert_eq!(tx.asset(Some("a"), None).await.unwrap(), Some(a.clone()));
    assert_eq!(tx.asset(None, Some("s3://b")).await.unwrap(), Some(b));
    assert_eq!(tx.asset(Some("a"), Some("s3://a")).await.unwrap(), Some(a));
    assert_eq!(tx.asset(Some("a"), Some("s3://b")).await.unwrap(), None);
    assert_eq!(tx.asset(Some("none"), None).await.unwrap(), None);
}

async fn an_asset_written_again_keeps_its_id(backend: &Backend) {
    let first = asset("a", "u");
    let again = Asset {
        id: AssetId(id()),
        group: "model".to_owned(),
        extra: Value::Null,
        is_active: false,
        ..first.clone()
    };
    let same_name = asset("a", "other");
    let mut tx = backend.write().await;
    assert_eq!(tx.put_asset(&first).await.unwrap(), first.id);
    assert_eq!(tx.put_asset(&again).await.unwrap(), first.id);
    assert_eq!(tx.asset(Some("a"), Some("u")).await.unwrap(), Some(Asset { id: first.id, ..again }));
    assert_eq!(tx.put_asset(&same_name).await.unwrap(), same_name.id);
}

async fn assets_by_name_in_pages(backend: &Backend) {
    let mut tx = backend.write().await;
    let assets = [asset("c", "1"), asset("a", "2"), asset("B", "3")];
    for asset in &assets {
        tx.put_asset(asset).await.unwrap();
    }
    let all = tx.assets(10, 0).await.unwrap();
    assert_eq!(all.items, [assets[2].clone(), assets[1].clone(), assets[0].clone()]);
    let page = tx.assets(1, 1).await.unwrap();
    assert_eq!((page.items, page.total), (vec![assets[1].clone()], 3));
}

async fn references_of_a_dag_are_replaced(backend: &Backend) {
    use AssetReferenceKind::{Inlet, Outlet, Schedule};
    for name in ["d", "e"] {
        put_dag(backend, &dag(name)).await;
    }
    let first = vec![
        reference("d", Schedule, None, "x"),
        reference("d", Outlet, Some("t"), "x"),
        reference("d", Inlet, Some("t"), "alias"),
    ];
    let elsewhere = vec![reference("e", Schedule, None, "x")];
    let mut tx = backend.write().await;
    tx.replace_asset_references(&"d".into(), &first).await.unwrap();
    tx.replace_asset_references(&"e".into(), &elsewhere).await.unwrap();
    assert_eq!(sorted(tx.asset_references_of(&"d".into()).await.unwrap()), sorted(first));
    let second = vec![reference("d", Outlet, Some("u"), "y")];
    tx.replace_asset_references(&"d".into(), &second).await.unwrap();
    assert_eq!(tx.asset_references_of(&"d".into()).await.unwrap(), second);
    tx.replace_asset_references(&"d".into(), &[]).await.unwrap();
    assert_eq!(tx.asset_references_of(&"d".into()).await.unwrap(), []);
    assert_eq!(tx.asset_references_of(&"e".into()).await.unwrap(), elsewhere);
}

async fn references_by_name_and_kind(backend: &Backend) {
    use AssetReferenceKind::{Outlet, Schedule};
    for name in ["d", "e"] {
        put_dag(backend, &dag(name)).await;
    }
    let mut tx = backend.write().await;
    let of_d = [reference("d", Schedule, None, "x"), reference("d", Outlet, Some("t"), "x")];
    let of_e = [reference("e", Schedule, None, "x"), reference("e", Schedule, None, "y")];
    tx.replace_asset_references(&"d".into(), &of_d).await.unwrap();
    tx.replace_asset_references(&"e".into(), &of_e).await.unwrap();
    let all = sorted(tx.asset_references("x", None).await.unwrap());
    assert_eq!(all, sorted(vec![of_d[0].clone(), of_d[1].clone(), of_e[0].clone()]));
    let scheduled = sorted(tx.asset_references("x", Some(Schedule)).await.unwrap());
    assert_eq!(scheduled, [of_d[0].clone(), of_e[0].clone()]);
    assert_eq!(tx.asset_references("none", None).await.unwrap(), []);
}

async fn put_asset(backend: &Backend, name: &str) -> AssetId {
    let mut tx = backend.write().await;
    let id = tx.put_asset(&asset(name, name)).await.unwrap();
    tx.commit().await.unwrap();
    id
}

async fn event_is_stored_whole(backend: &Backend) {
    let asset_id = put_asset(backend, "a").await;
    let full = event(asset_id, 1);
    let bare = AssetEvent {
        extra: Value::Null,
        source_dag_id: None,
        source_run_id: None,
        source_task_id: None,
        source_map_index: MapIndex::UNMAPPED,
        source_aliases: Vec::new(),
        partition_key: None,
        ..event(asset_id, 2)
    };
    let mut tx = backend.write().await;
    tx.insert_asset_event(&full).await.unwrap();
    tx.insert_asset_event(&bare).await.unwrap();
    let filter = AssetEventFilter { ascending: true, ..AssetEventFilter::default() };
    assert_eq!(tx.asset_events(&filter).await.unwrap(), [full, bare]);
}

async fn events_by_every_filter(backend: &Backend) {
    let (a, b) = (put_asset(backend, "a").await, put_asset(backend, "b").await);
    let events =
        [event(a, 10), event(b, 20), AssetEvent { source_aliases: vec!["alias".to_owned()], ..event(a, 30) }];
    let mut tx = backend.write().await;
    for event in &events {
        tx.insert_asset_event(event).await.unwrap();
    }
    let any = || AssetEventFilter { ascending: true, ..AssetEventFilter::default() };
    let range = |gte: Option<i64>, lt: Option<i64>| TimeRange {
        gte: gte.map(at),
        lt: lt.map(at),
        ..TimeRange::default()
    };
    let cases: Vec<(AssetEventFilter, &[usize])> = vec![
        (any(), &[0, 1, 2]),
        (AssetEventFilter { ascending: false, ..any() }, &[2, 1, 0]),
        (AssetEventFilter { asset_ids: vec![a], ..any() }, &[0, 2]),
        (AssetEventFilter { asset_ids: vec![b, AssetId(id())], ..any() }, &[1]),
        (AssetEventFilter { alias: Some("alias".to_owned()), ..any() }, &[2]),
        (AssetEventFilter { alias: Some("alias one".to_owned()), ..any() }, &[0, 1]),
        (AssetEventFilter { alias: Some("one".to_owned()), ..any() }, &[]),
        (AssetEventFilter { timestamp: range(Some(20), None), ..any() }, &[1, 2]),
        (AssetEventFilter { timestamp: range(Some(10), Some(30)), ..any() }, &[0, 1]),
        (AssetEventFilter { limit: Some(2), ..any() }, &[0, 1]),
        (AssetEventFilter { limit: Some(1), ascending: false, ..any() }, &[2]),
    ];
    for (filter, expected) in cases {
        let expected: Vec<AssetEvent> = expected.iter().map(|n| events[*n].clone()).collect();
        assert_eq!(tx.asset_events(&filter).await.unwrap(), expected, "{filter:?}");
    }
}

fn noted(dag_id: &str, asset_id: AssetId, seconds: i64) -> QueuedAssetEvent {
    QueuedAssetEvent { dag_id: dag_id.into(), asset_id, created_at: at(seconds) }
}

async fn a_noted_event_stays_as_first_noted(backend: &Backend) {
    put_dag(backend, &dag("d")).await;
    let asset_id = put_asset(backend, "a").await;
    let mut tx = backend.write().await;
    tx.put_queued_asset_event(&noted("d", asset_id, 1)).await.unwrap();
    tx.put_queued_asset_event(&noted("d", asset_id, 2)).await.unwrap();
    assert_eq!(tx.queued_asset_events(None).await.unwrap(), [noted("d", asset_id, 1)]);
}

async fn noted_events_of_a_dag_are_used_up(backend: &Backend) {
    for name in ["d", "e"] {
        put_dag(backend, &dag(name)).await;
    }
    let (a, b) = (put_asset(backend, "a").await, put_asset(backend, "b").await);
    let mut tx = backend.write().await;
    for queued in [noted("d", a, 1), noted("d", b, 2), noted("e", a, 3)] {
        tx.put_queued_asset_event(&queued).await.unwrap();
    }
    assert_eq!(tx.queued_asset_events(None).await.unwrap().len(), 3);
    let mut of_d = tx.queued_asset_events(Some(&"d".into())).await.unwrap();
    of_d.sort_by_key(|queued| queued.created_at);
    assert_eq!(of_d, [noted("d", a, 1), noted("d", b, 2)]);
    tx.delete_queued_asset_events(&"d".into()).await.unwrap();
    assert_eq!(tx.queued_asset_events(None).await.unwrap(), [noted("e", a, 3)]);
}

async fn consumed_events_by_moment(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let asset_id = put_asset(backend, "a").await;
    let events = [event(asset_id, 20), event(asset_id, 10), event(asset_id, 30)];
    let mut tx = backend.write().await;
    for event in &events {
        tx.insert_asset_event(event).await.unwrap();
    }
    tx.link_consumed_events(run.id, &[events[0].id, events[1].id]).await.unwrap();
    tx.link_consumed_events(run.id, &[events[0].id]).await.unwrap();
    tx.link_consumed_events(run.id, &[]).await.unwrap();
    assert_eq!(tx.consumed_events(run.id).await.unwrap(), [events[1].clone(), events[0].clone()]);
    assert_eq!(tx.consumed_events(DagRunId(id())).await.unwrap(), []);
}
