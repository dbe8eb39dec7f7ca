//! Custom timetables and priority strategies.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use gust_python_host::{Answer, Interval, NoAnswers, ParseEvent, ParseRequest, Question, RunInfo};
use serde_json::{Value, json};

use crate::support::Lab;

const PLUGIN: &str = r"
from datetime import timedelta
from airflow.plugins_manager import AirflowPlugin
from airflow.task.priority_strategy import PriorityWeightStrategy
from airflow.timetables.base import DagRunInfo, DataInterval, Timetable

class EverySecondHour(Timetable):
    def next_dagrun_info(self, *, last_automated_data_interval, restriction):
        if last_automated_data_interval is None:
            start = restriction.earliest
        else:
            start = last_automated_data_interval.end
        if start is None or (restriction.latest and start > restriction.latest):
            return None
        return DagRunInfo.interval(start, start + timedelta(hours=2))
    def infer_manual_data_interval(self, *, run_after):
        return DataInterval(run_after - timedelta(hours=2), run_after)

class Broken(EverySecondHour):
    def next_dagrun_info(self, **kwargs):
        raise RuntimeError('no idea')

class Falling(PriorityWeightStrategy):
    def get_weight(self, ti):
        return ti.task.priority_weight - ti.try_number

class Plugin(AirflowPlugin):
    name = 'lab'
    timetables = [EverySecondHour, Broken]
    priority_weight_strategies = [Falling]
";

fn moment(hour: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap() + TimeDelta::hours(hour)
}

#[tokio::test]
async fn custom_timetables_and_strategies_are_asked() {
    let Some(lab) = Lab::new().await else { return };
    lab.file("plugins/lab_plugin.py", PLUGIN);
    lab.file(
        "dags/weighed.py",
        "from airflow.sdk import DAG\nfrom airflow.providers.standard.operators.empty import EmptyOperator\n\
         from lab_plugin import Falling\nwith DAG('weighed', schedule=None) as dag:\n    \
         EmptyOperator(task_id='t', priority_weight=10, weight_rule=Falling())\n",
    );
    let request = ParseRequest {
        bundle_path: lab.dags.path().to_owned(),
        bundle_name: "lab".into(),
        files: Some(vec!["dags/weighed.py".into()]),
        safe_mode: true,
        file_limit: Duration::from_mins(1),
        env: std::collections::BTreeMap::new(),
    };
    let mut parse = lab.host.parse(request, Arc::new(NoAnswers));
    let Some(ParseEvent::Parsed(file)) = parse.next().await.unwrap() else { panic!() };
    let dag = file.dags.first().unwrap_or_else(|| panic!("{file:?}")).data.clone();
    let timetable = |name: &str| json!({"__type": format!("lab_plugin.{name}"), "__var": {}});
    let next = |name: &str, last: Option<RunInfo>| Question::NextRun {
        timetable: timetable(name),
        last,
        earliest: Some(moment(0)),
        latest: Some(moment(3)),
        catchup: true,
    };
    let covered = |start, end| RunInfo {
        run_after: moment(end),
        data_interval: Some(Interval { start: moment(start), end: moment(end) }),
        partition_key: None,
        partition_date: None,
    };
    let questions = [
        next("EverySecondHour", None),
        next("EverySecondHour", Some(covered(0, 2))),
        next("EverySecondHour", Some(covered(2, 4))),
        next("Broken", None),
        next("Unregistered", None),
        Question::ManualInterval { timetable: timetable("EverySecondHour"), run_after: moment(5) },
        Question::Weight {
            strategy: "lab_plugin.Falling".into(),
            dag,
            ti: json!({"task_id": "t", "try_number": 3, "max_tries": 3, "map_index": -1}),
        },
    ];
    let answers = lab.host.ask(lab.dags.path(), "lab", &questions, Duration::from_mins(1)).await.unwrap();
    let told = |at: usize| match &answers[at] {
        Answer::NextRun(run) => run.as_ref().map(|run| run.info.clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(told(0), Some(covered(0, 2)));
    assert_eq!(told(1), Some(covered(2, 4)));
    assert_eq!(told(2), None);
    assert!(matches!(&answers[3], Answer::Failed(text) if text.contains("no idea")), "{:?}", answers[3]);
    assert!(matches!(&answers[4], Answer::Failed(text) if text.contains("Unregistered")), "{:?}", answers[4]);
    assert_eq!(answers[5], Answer::Interval(Some(Interval { start: moment(3), end: moment(5) })));
    assert_eq!(answers[6], Answer::Weight(7));
    let Answer::NextRun(Some(run)) = &answers[0] else { panic!() };
    assert!(run.run_id.starts_with("scheduled__2023-11-15"), "{}", run.run_id);
}

#[tokio::test]
async fn a_timetable_of_airflows_examples_is_found() {
    let Some(lab) = Lab::new().await else { return };
    let timetable = json!({"__type": "airflow.example_dags.plugins.workday.AfterWorkdayTimetable", "__var": Value::Object(serde_json::Map::default())});
    let question =
        Question::NextRun { timetable, last: None, earliest: Some(moment(0)), latest: None, catchup: true };
    let answers = lab.host.ask(lab.dags.path(), "lab", &[question], Duration::from_mins(1)).await.unwrap();
    assert!(matches!(&answers[0], Answer::NextRun(Some(_))), "{answers:?}");
}
