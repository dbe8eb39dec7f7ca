//! The triggerer against processes that the test plays.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use gust_model::{Epoch, MapIndex, TaskInstanceState as S, TriggerId, record::Trigger as Row};
use gust_ports::{Ids as _, RandomIds, memory::NoFaults, metastore::TxMode};
use gust_python_host::{Answers, Error, Trigger, TriggerReport};
use gust_worker::{TriggerProcess, TriggerProcesses, Triggerer, TriggererConfig};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::fakes::Play;

/// A process in which every trigger fires at once, but those of the class `airflow.Never`.
#[derive(Default)]
struct Process {
    reports: Mutex<VecDeque<TriggerReport>>,
    reported: Notify,
}

struct Handle(Arc<Process>);

#[async_trait]
impl TriggerProcess for Handle {
    async fn add(&self, trigger: &Trigger) -> Result<(), Error> {
        if trigger.classpath != "airflow.Never" {
            let mut reports = self.0.reports.lock().unwrap();
            reports.push_back(TriggerReport::Fired {
                id: trigger.id,
                event_type: "TriggerEvent".to_owned(),
                payload: json!("now"),
                xcoms: None,
            });
            reports.push_back(TriggerReport::Finished { id: trigger.id });
            self.0.reported.notify_one();
        }
        Ok(())
    }

    async fn cancel(&self, _: i64, _: bool) -> Result<(), Error> {
        Ok(())
    }

    async fn next(&mut self) -> Option<TriggerReport> {
        loop {
            if let Some(report) = self.0.reports.lock().unwrap().pop_front() {
                return Some(report);
            }
            self.0.reported.notified().await;
        }
    }
}

struct Started;

#[async_trait]
impl TriggerProcesses for Started {
    async fn start(
        &self,
        _: Option<(PathBuf, String)>,
        _: BTreeMap<String, String>,
        _: Arc<dyn Answers>,
    ) -> Result<Box<dyn TriggerProcess>, Error> {
        Ok(Box::new(Handle(Arc::default())))
    }
}

/// Task instances that wait for triggers of these classes.
async fn defer(play: &Play, first: i32, classes: &[&str]) -> Vec<Row> {
    let model = play.house.row(&play.hand, "t", -1).await;
    let now = play.house.services.clock.now();
    let (mut rows, mut triggers) = (Vec::new(), Vec::new());
    for (index, class) in (first..).zip(classes) {
        let mut row = model.clone();
        row.id = gust_model::TaskInstanceId(RandomIds.fresh());
        row.map_index = MapIndex(index);
        row.state = S::Deferred;
        row.try_number = 1;
        row.next_method = Some("go_on".to_owned());
        let trigger = Row {
            id: TriggerId(RandomIds.fresh()),
            task_instance_id: row.id,
            classpath: (*class).to_owned(),
            kwargs: Value::Null,
            created_at: now,
            epoch: Epoch(0),
            lease: None,
        };
        row.trigger_id = Some(trigger.id);
        rows.push(row);
        triggers.push(trigger);
    }
    let mut tx = play.house.write().await;
    tx.insert_task_instances(&rows).await.unwrap();
    for trigger in &triggers {
        tx.insert_trigger(trigger).await.unwrap();
    }
    tx.commit().await.unwrap();
    triggers
}

fn begin(play: &Play) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let config = TriggererConfig::new("played".to_owned());
    let triggerer = Triggerer::with(play.house.services.clone(), config, Arc::new(Started));
    let stop = CancellationToken::new();
    let running = triggerer.run(stop.clone());
    (stop, tokio::spawn(async move { running.await.unwrap() }))
}

/// Waits, the clock moving on, until a trigger's row is as wanted.
async fn until(play: &Play, id: TriggerId, wanted: impl Fn(Option<Row>) -> bool) {
    let seen = async {
        loop {
            let mut tx = play.house.services.metastore.begin(TxMode::Read).await.unwrap();
            if wanted(tx.trigger(id).await.unwrap()) {
                return;
            }
            drop(tx);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), play.pass_time_until(seen)).await.expect("it comes to that");
}

#[tokio::test]
async fn hundreds_of_triggers_that_fire_at_once_do_not_lock_the_triggerer_and_its_process_up() {
    let play = Play::begin(Arc::new(NoFaults)).await;
    let triggers = defer(&play, 0, &["airflow.Now"; 1_000]).await;
    let (stop, running) = begin(&play);
    for trigger in triggers {
        until(&play, trigger.id, |row| row.is_none()).await;
    }
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_trigger_whose_claim_was_never_heard_of_is_run_all_the_same() {
    let play = Play::begin(Arc::new(NoFaults)).await;
    let waits = defer(&play, 0, &["airflow.Never"]).await.remove(0);
    let (stop, running) = begin(&play);
    until(&play, waits.id, |row| row.is_some_and(|row| row.lease.is_some())).await;
    // As if the commit of its claim had got through and the answer had not.
    let mut tx = play.house.write().await;
    let lease = tx.trigger(waits.id).await.unwrap().unwrap().lease;
    drop(tx);
    let lost = defer(&play, 1, &["airflow.Never"]).await.remove(0);
    let fires = Row { classpath: "airflow.Now".to_owned(), lease, ..lost };
    let mut tx = play.house.write().await;
    tx.delete_trigger(fires.id).await.unwrap();
    tx.insert_trigger(&fires).await.unwrap();
    tx.commit().await.unwrap();
    until(&play, fires.id, |row| row.is_none()).await;
    stop.cancel();
    running.await.unwrap();
}
