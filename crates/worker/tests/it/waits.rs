//! Tries that end in order to go on.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use gust_model::TaskInstanceState as S;
use gust_ports::{
    WakeStream,
    metastore::{Guard, TaskInstancePatch, TaskInstanceWrite},
};
use gust_worker::{TriggerProcesses, Triggerer, TriggererConfig};
use serde_json::json;

use crate::house::{House, InHand};

#[tokio::test]
async fn a_sensor_that_reschedules_comes_back_in_the_same_try() {
    let Some(house) = House::open().await else { return };
    let body = "@task.sensor(mode='reschedule', poke_interval=5, timeout=3600)\ndef ready(**context):\n\
                \x20   from airflow.sdk import PokeReturnValue\n\
                \x20   return PokeReturnValue(is_done=os.path.exists(__file__ + '.ready'), xcom_value='done')\nready()";
    let hand = house.dag("d", "", body).await;
    let row = house.run(&hand, "ready").await;
    assert_eq!(row.state, S::UpForReschedule, "{}", house.log(&row).await);
    let reschedules = house.write().await.reschedules(row.id, 1).await.unwrap();
    assert_eq!(reschedules.len(), 1);
    assert_eq!(row.due_at, Some(reschedules[0].reschedule_date));
    let again = house.run(&hand, "ready").await;
    assert_eq!((again.state, again.try_number), (S::UpForReschedule, 1));
    assert_eq!(house.write().await.reschedules(row.id, 1).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_wait_for_a_time_needs_no_triggerer() {
    let Some(house) = House::open().await else { return };
    let body = "from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor\n\
                TimeDeltaSensor(task_id='wait', delta=datetime.timedelta(seconds=2), deferrable=True)";
    let hand = house.dag("d", "", body).await;
    let row = house.run(&hand, "wait").await;
    assert_eq!(row.state, S::Deferred, "{}", house.log(&row).await);
    assert_eq!(row.trigger_id, None);
    assert!(row.due_at.is_some() && row.next_kwargs.get("event").is_some(), "{row:?}");
    let row = house.run(&hand, "wait").await;
    assert_eq!((row.state, row.try_number), (S::Success, 1), "{}", house.log(&row).await);
    assert_eq!(row.next_method, None);
}

const TRIGGERS: &str = r#"
from airflow.sdk import DAG, BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent, TaskSuccessEvent, TaskFailedEvent
import asyncio

class Mine(BaseTrigger):
    def __init__(self, what):
        super().__init__()
        self.what = what
    def serialize(self):
        return ("waiting.Mine", {"what": self.what})
    async def run(self):
        self.log.info("the trigger runs")
        await asyncio.sleep(0)
        if self.what == "raise":
            raise ValueError("broken trigger")
        if self.what == "end":
            yield TaskSuccessEvent(xcoms={"return_value": "from the trigger"})
        elif self.what == "fail":
            yield TaskFailedEvent()
        else:
            yield TriggerEvent({"what": self.what})

class Wait(BaseOperator):
    def __init__(self, what, **kwargs):
        super().__init__(**kwargs)
        self.what = what
    def execute(self, context):
        self.defer(trigger=Mine(self.what), method_name="go_on", kwargs={"kept": 1})
    def go_on(self, context, event, kept):
        return [event, kept]

with DAG("waiting", schedule=None):
    for what in ("fire", "raise", "end", "fail"):
        Wait(what=what, task_id=what)
"#;

async fn until_moved(house: &House, hand: &InHand, tasks: &[&str], mut wakes: WakeStream) {
    for task in tasks {
        while house.row(hand, task, -1).await.state == S::Deferred {
            wakes.next().await;
        }
    }
}

#[tokio::test]
async fn a_trigger_in_python_wakes_fails_or_ends_its_task() {
    let Some(house) = House::open().await else { return };
    let hand = house.file("waiting.py", TRIGGERS).await.remove(0);
    let tasks = ["fire", "raise", "end", "fail"];
    for task in tasks {
        let row = house.run(&hand, task).await;
        assert_eq!(row.state, S::Deferred, "{}", house.log(&row).await);
        assert!(row.trigger_id.is_some());
    }
    let config = TriggererConfig::new("test-triggerer".to_owned());
    let processes = Arc::new(house.host()) as Arc<dyn TriggerProcesses>;
    let triggerer = Triggerer::with(house.services.clone(), config, processes);
    let shutdown = tokio_util::sync::CancellationToken::new();
    let wakes = house.services.wakeups.listen();
    let running = tokio::spawn(triggerer.run(shutdown.clone()));
    tokio::time::timeout(Duration::from_mins(1), until_moved(&house, &hand, &tasks, wakes))
        .await
        .expect("all triggers fire");

    assert_eq!(house.row(&hand, "fire", -1).await.state, S::Scheduled);
    let row = house.run(&hand, "fire").await;
    assert_eq!((row.state, row.try_number), (S::Success, 1), "{}", house.log(&row).await);
    assert_eq!(house.returned(&hand, "fire", -1).await, json!([{"what": "fire"}, 1]));

    assert_eq!(house.row(&hand, "raise", -1).await.next_method.as_deref(), Some("__fail__"));
    let row = house.run(&hand, "raise").await;
    assert_eq!(row.state, S::Failed);
    assert!(house.log(&row).await.contains("broken trigger"));

    assert_eq!(house.row(&hand, "end", -1).await.state, S::Success);
    assert_eq!(house.returned(&hand, "end", -1).await, "from the trigger");
    assert_eq!(house.row(&hand, "fail", -1).await.state, S::Failed);
    shutdown.cancel();
    running.await.unwrap().unwrap();
    let row = house.row(&hand, "fire", -1).await;
    assert!(house.log(&row).await.contains("the trigger runs"), "{}", house.log(&row).await);
}

#[tokio::test]
async fn a_person_is_asked_and_the_answer_goes_back_into_the_task() {
    let Some(house) = House::open().await else { return };
    let body = "from airflow.providers.standard.operators.hitl import ApprovalOperator\n\
                ApprovalOperator(task_id='ask', subject='Go?', execution_timeout=datetime.timedelta(hours=1))";
    let hand = house.dag("d", "", body).await;
    let row = house.run(&hand, "ask").await;
    assert!(matches!(row.state, S::AwaitingInput | S::Deferred), "{:?} {}", row.state, house.log(&row).await);
    let asked = house.write().await.hitl(row.id).await.unwrap().expect("the question is kept");
    assert_eq!(asked.detail["subject"], "Go?");
    let answer = json!({
        "response_received": true, "responded_by_user": null, "responded_at": "2026-01-01T00:00:00Z",
        "chosen_options": ["Approve"], "params_input": {},
    });
    let event = gust_model::sdk_value::hitl_event(&answer, false);
    let next_kwargs = gust_model::sdk_value::with_event(&row.next_kwargs, event);
    let patch = TaskInstancePatch { next_kwargs: Some(next_kwargs), ..TaskInstancePatch::default() };
    let mut tx = house.write().await;
    tx.update_task_instances(&[TaskInstanceWrite { id: row.id, guard: Guard::Any, patch }]).await.unwrap();
    tx.commit().await.unwrap();
    let row = house.run(&hand, "ask").await;
    assert_eq!(row.state, S::Success, "{}", house.log(&row).await);
}
