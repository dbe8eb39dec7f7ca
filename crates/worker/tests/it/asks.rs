//! What tasks ask of their supervisor besides values and secrets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use gust_model::{
    AssetId, TaskInstanceState as S,
    record::{Asset, AssetReference, AssetReferenceKind},
};
use gust_ports::{
    Ids as _, RandomIds, Wake,
    memory::{Fault, FaultHook, FaultPoint},
    metastore::AssetEventFilter,
};
use serde_json::json;

use crate::house::House;

/// Counts transactions.
#[derive(Default)]
struct Count(AtomicUsize);

impl FaultHook for Count {
    fn at(&self, point: FaultPoint) -> Fault {
        if point == FaultPoint::Begin {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        Fault::None
    }
}

#[tokio::test]
async fn a_task_that_does_nothing_costs_two_transactions() {
    let count = Arc::new(Count::default());
    let Some(house) = House::with(|c| c.write_delay = Duration::from_mins(1), count.clone()).await else {
        return;
    };
    let hand = house.dag("d", "", "@task\ndef t():\n    return 1\nt()").await;
    let message = house.queue(&hand, "t", -1).await;
    let before = count.0.load(Ordering::SeqCst);
    assert!(house.worker.run(message, &gust_worker::Limits::default()).await.unwrap());
    assert_eq!(count.0.load(Ordering::SeqCst) - before, 2, "the claim and the end");
    assert_eq!(house.row(&hand, "t", -1).await.state, S::Success);
    assert_eq!(house.returned(&hand, "t", -1).await, 1);
}

/// The metastore is silent from a transaction with a given statement on, for so many beginnings.
struct Silence {
    from: &'static str,
    left: AtomicU64,
    begun: std::sync::atomic::AtomicBool,
}

impl FaultHook for Silence {
    fn at(&self, point: FaultPoint) -> Fault {
        if let FaultPoint::Statement { name, .. } = point
            && name == self.from
        {
            self.begun.store(true, Ordering::SeqCst);
        }
        let is_silent = self.begun.load(Ordering::SeqCst)
            && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if is_silent { Fault::Unavailable } else { Fault::None }
    }
}

#[tokio::test]
async fn an_outage_is_waited_out_and_nothing_is_lost() {
    let faults = Arc::new(Silence {
        from: "insert_reschedule",
        left: AtomicU64::new(6),
        begun: std::sync::atomic::AtomicBool::default(),
    });
    let Some(house) = House::with(|_| {}, faults.clone()).await else { return };
    let body = "@task.sensor(mode='reschedule', poke_interval=5)\ndef t():\n    return False\nt()";
    let hand = house.dag("d", "", body).await;
    let row = house.run(&hand, "t").await;
    assert_eq!(faults.left.load(Ordering::SeqCst), 0);
    assert_eq!(row.state, S::UpForReschedule);
    assert_eq!(house.write().await.reschedules(row.id, 1).await.unwrap().len(), 1);
}

async fn asset(house: &House, name: &str, uri: &str, waits: &str) -> AssetId {
    let mut tx = house.write().await;
    let asset = Asset {
        id: AssetId(RandomIds.fresh()),
        name: name.to_owned(),
        uri: uri.to_owned(),
        group: "asset".to_owned(),
        extra: json!({}),
        is_active: true,
    };
    let id = tx.put_asset(&asset).await.unwrap();
    let reference = AssetReference {
        dag_id: waits.into(),
        kind: AssetReferenceKind::Schedule,
        task_id: None,
        name: name.to_owned(),
        uri: Some(uri.to_owned()),
    };
    tx.replace_asset_references(&waits.into(), &[reference]).await.unwrap();
    tx.commit().await.unwrap();
    id
}

#[tokio::test]
async fn what_a_task_updates_is_noted_for_who_waits_for_it() {
    let Some(house) = House::open().await else { return };
    house.dag("consumer", "", "@task\ndef t():\n    pass\nt()").await;
    let id = asset(&house, "a", "s3://bucket/a", "consumer").await;
    let body = "@task(outlets=[Asset(name='a', uri='s3://bucket/a')])\ndef update(*, outlet_events):\n\
                \x20   outlet_events[Asset(name='a', uri='s3://bucket/a')].extra = {'rows': 3}\n\
                @task(outlets=[AssetAlias('named-later')])\ndef through(*, outlet_events):\n\
                \x20   outlet_events[AssetAlias('named-later')].add(Asset(name='late', uri='s3://bucket/late'))\n\
                @task(inlets=[Asset(name='a', uri='s3://bucket/a')])\ndef look(*, inlet_events):\n\
                \x20   return [e.extra for e in inlet_events[Asset(name='a', uri='s3://bucket/a')]]\n\
                @task(outlets=[Asset(name='gone', uri='s3://bucket/gone')])\ndef inactive():\n    pass\n\
                update(); through(); look(); inactive()";
    let hand = house.dag("d", "", body).await;
    let row = house.run(&hand, "update").await;
    assert_eq!(row.state, S::Success, "{}", house.log(&row).await);
    let filter = AssetEventFilter { asset_ids: vec![id], ..AssetEventFilter::default() };
    let events = house.write().await.asset_events(&filter).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].extra, json!({"rows": 3}));
    assert_eq!(events[0].source_task_id, Some("update".into()));
    let queued = house.write().await.queued_asset_events(Some(&"consumer".into())).await.unwrap();
    assert_eq!(queued.iter().map(|q| q.asset_id).collect::<Vec<_>>(), [id]);
    let wakes = house.said.wakes.lock().unwrap().clone();
    assert!(wakes.contains(&Wake::Dag { dag_id: "consumer".into() }), "{wakes:?}");

    let row = house.run(&hand, "through").await;
    assert_eq!(row.state, S::Success, "{}", house.log(&row).await);
    let filter = AssetEventFilter { alias: Some("named-later".into()), ..AssetEventFilter::default() };
    assert_eq!(house.write().await.asset_events(&filter).await.unwrap().len(), 1);
    assert!(house.write().await.asset(Some("late"), None).await.unwrap().is_some());

    let row = house.run(&hand, "look").await;
    assert_eq!(row.state, S::Success, "{}", house.log(&row).await);
    assert_eq!(house.returned(&hand, "look", -1).await, json!([{"rows": 3}]));

    let row = house.run(&hand, "inactive").await;
    assert_eq!(row.state, S::Failed);
    assert!(house.log(&row).await.contains("gone"));
}

#[tokio::test]
async fn a_task_asks_about_runs_and_task_instances_and_keeps_a_state() {
    let Some(house) = House::open().await else { return };
    let body = "from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance as R\n\
                @task\ndef first():\n    pass\n\
                @task\ndef ask(**context):\n    ti = context['ti']\n    return {\n\
                \x20       'count': R.get_ti_count(dag_id='d', task_ids=['first'], states=['success']),\n\
                \x20       'states': R.get_task_states(dag_id='d', run_ids=['manual__1'], task_ids=['first']),\n\
                \x20       'run': R.get_dagrun_state(dag_id='d', run_id='manual__1'),\n\
                \x20       'runs': R.get_dr_count(dag_id='d'),\n\
                \x20       'previous': ti.get_previous_ti() is None,\n\
                \x20       'crumbs': list(R.get_task_breadcrumbs(dag_id='d', run_id='manual__1')),\n\
                \x20       'before': ti.get_previous_dagrun() is None,\n\
                \x20   }\n\
                @task\ndef missing():\n    return R.get_dagrun_state(dag_id='d', run_id='nothing')\n\
                first(); ask(); missing()";
    let hand = house.dag("d", "", body).await;
    house.run(&hand, "first").await;
    let row = house.run(&hand, "ask").await;
    assert_eq!(row.state, S::Success, "{}", house.log(&row).await);
    let told = house.returned(&hand, "ask", -1).await;
    assert_eq!(told["count"], 1);
    assert_eq!(told["states"], json!({"manual__1": {"first": "success"}}));
    assert_eq!((told["run"].as_str(), told["runs"].as_i64()), (Some("running"), Some(1)));
    assert_eq!((told["previous"].as_bool(), told["before"].as_bool()), (Some(true), Some(true)));
    assert_eq!(told["crumbs"][0]["task_id"], "first");
    let row = house.run(&hand, "missing").await;
    assert_eq!(row.state, S::Failed);
}

#[tokio::test]
async fn the_first_failed_task_of_a_fail_fast_dag_stops_the_others() {
    let Some(house) = House::open().await else { return };
    let body = "@task\ndef bad():\n    raise ValueError()\n@task\ndef other():\n    pass\n\
                @task\ndef down():\n    pass\n\
                bad(); other() >> down().as_teardown()";
    let hand = house.dag("d", ", fail_fast=True", body).await;
    house.row(&hand, "other", -1).await;
    house.row(&hand, "down", -1).await;
    assert_eq!(house.run(&hand, "bad").await.state, S::Failed);
    assert_eq!(house.row(&hand, "other", -1).await.state, S::Skipped);
    assert_eq!(house.row(&hand, "down", -1).await.state, S::None);
}
