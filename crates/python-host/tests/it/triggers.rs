//! The triggerer child.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use gust_python_host::{NoAnswers, Trigger, TriggerReport, Triggerer};
use serde_json::{Value, json};

use crate::support::Lab;

const TRIGGERS: &str = r"
import asyncio, time
from airflow.sdk import Variable
from airflow.triggers.base import BaseTrigger, TriggerEvent

class Base(BaseTrigger):
    def __init__(self, **kwargs):
        super().__init__()
        self.kwargs = kwargs
    def serialize(self):
        return (type(self).__module__ + '.' + type(self).__name__, self.kwargs)

class Echo(Base):
    async def run(self):
        yield TriggerEvent(self.kwargs['say'])

class Raises(Base):
    async def run(self):
        raise ValueError('no luck')
        yield

class Silent(Base):
    async def run(self):
        return
        yield

class Forever(Base):
    async def run(self):
        await asyncio.sleep(1000)
        yield
    async def on_kill(self):
        with open(self.kwargs['mark'], 'w') as f:
            f.write('killed')

class Blocks(Base):
    async def run(self):
        time.sleep(1.2)
        yield TriggerEvent(None)

class Asks(Base):
    async def run(self):
        yield TriggerEvent(Variable.get('absent', default='fallback'))
";

async fn triggerer(lab: &Lab) -> Triggerer {
    lab.file("my_triggers.py", TRIGGERS);
    lab.host.triggerer(Some((lab.dags.path(), "lab")), BTreeMap::new(), Arc::new(NoAnswers)).await.unwrap()
}

fn trigger(id: i64, class: &str, kwargs: Value) -> Trigger {
    Trigger { id, classpath: format!("my_triggers.{class}"), kwargs, ti: None, timeout_at: None }
}

#[tokio::test]
async fn triggers_fire_fail_and_finish() {
    let Some(lab) = Lab::new().await else { return };
    let mut triggerer = triggerer(&lab).await;
    triggerer.add(&trigger(1, "Echo", json!({"say": {"a": [1, "b"]}}))).await.unwrap();
    triggerer.add(&trigger(2, "Raises", json!({}))).await.unwrap();
    triggerer.add(&trigger(3, "Silent", json!({}))).await.unwrap();
    triggerer.add(&trigger(4, "Missing", json!({}))).await.unwrap();
    triggerer.add(&trigger(5, "Asks", json!({}))).await.unwrap();
    let (mut fired, mut failed, mut finished) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    while finished.len() < 5 {
        match triggerer.next().await.unwrap() {
            TriggerReport::Fired { id, payload, event_type, .. } => {
                assert_eq!(event_type, "TriggerEvent");
                fired.insert(id, payload);
            }
            TriggerReport::Failed { id, error, timed_out } => {
                assert!(!timed_out);
                failed.insert(id, error);
            }
            TriggerReport::Finished { id } => finished.push(id),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fired, BTreeMap::from([(1, json!({"a": [1, "b"]})), (5, json!("fallback"))]), "{failed:?}");
    assert!(failed[&2].contains("no luck"));
    assert!(failed[&3].contains("without an event"));
    assert!(failed[&4].contains("Missing"));
}

#[tokio::test]
async fn a_date_time_trigger_carries_its_moment_in_serdes_form() {
    let Some(lab) = Lab::new().await else { return };
    let mut triggerer = triggerer(&lab).await;
    let moment = json!({"__classname__": "datetime.datetime", "__version__": 2, "__data__": {"timestamp": 1.5, "tz": ["UTC", "pendulum.tz.timezone.Timezone", 1, true]}});
    let trigger = Trigger {
        id: 9,
        classpath: "airflow.providers.standard.triggers.temporal.DateTimeTrigger".into(),
        kwargs: json!({"moment": moment, "end_from_trigger": false}),
        ti: None,
        timeout_at: None,
    };
    triggerer.add(&trigger).await.unwrap();
    let report = triggerer.next().await.unwrap();
    let TriggerReport::Fired { id: 9, payload, .. } = &report else { panic!("{report:?}") };
    assert!(payload["__classname__"].as_str().unwrap().contains("DateTime"), "{payload}");
}

#[tokio::test]
async fn a_users_cancel_runs_on_kill_and_a_timeout_fails() {
    let Some(lab) = Lab::new().await else { return };
    let mark = lab.dags.path().join("mark");
    let mut triggerer = triggerer(&lab).await;
    triggerer.add(&trigger(1, "Forever", json!({"mark": mark}))).await.unwrap();
    let late =
        Trigger { timeout_at: Some(Utc::now() - TimeDelta::seconds(1)), ..trigger(2, "Forever", json!({})) };
    triggerer.add(&late).await.unwrap();
    let report = triggerer.next().await.unwrap();
    assert!(matches!(report, TriggerReport::Failed { id: 2, timed_out: true, .. }), "{report:?}");
    assert_eq!(triggerer.next().await.unwrap(), TriggerReport::Finished { id: 2 });
    triggerer.cancel(1, true).await.unwrap();
    assert_eq!(triggerer.next().await.unwrap(), TriggerReport::Finished { id: 1 });
    assert_eq!(std::fs::read_to_string(mark).unwrap(), "killed");
}

#[tokio::test]
async fn a_trigger_that_blocks_the_loop_is_noticed() {
    let Some(lab) = Lab::new().await else { return };
    let mut triggerer = triggerer(&lab).await;
    triggerer.add(&trigger(1, "Blocks", json!({}))).await.unwrap();
    loop {
        match triggerer.next().await.unwrap() {
            TriggerReport::LoopBlocked { seconds } => {
                assert!(seconds > 0.5);
                break;
            }
            TriggerReport::Exited(exited) => panic!("{exited:?}"),
            _ => {}
        }
    }
}
