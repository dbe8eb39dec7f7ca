//! Parsing folders.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gust_python_host::messages::{FromTask, Reply, ToTask, VariableResponse};
use gust_python_host::{Answers, NoAnswers, ParseEvent, ParseRequest, ParsedFile};

use crate::support::Lab;

fn request(lab: &Lab) -> ParseRequest {
    ParseRequest {
        bundle_path: lab.dags.path().to_owned(),
        bundle_name: "lab".into(),
        files: None,
        safe_mode: true,
        file_limit: Duration::from_mins(1),
        env: BTreeMap::new(),
    }
}

async fn parse(lab: &Lab, request: ParseRequest, answers: Arc<dyn Answers>) -> BTreeMap<String, ParsedFile> {
    let mut parse = lab.host.parse(request, answers);
    let mut files = BTreeMap::new();
    while let Some(event) = parse.next().await.unwrap() {
        if let ParseEvent::Parsed(file) = event {
            assert!(files.insert(file.path.clone(), file).is_none(), "a file was parsed twice");
        }
    }
    files
}

#[tokio::test]
async fn a_folder_gives_its_dags_and_each_files_errors() {
    let Some(lab) = Lab::new().await else { return };
    lab.dag("good", "", "@task\ndef work():\n    pass\nwork()");
    lab.dag("bad", "1 / 0", "pass");
    lab.dag(
        "warns",
        "import warnings\nwarnings.warn('old ways', DeprecationWarning)",
        "@task\ndef a(): pass\na()",
    );
    lab.file(
        "two.py",
        "from airflow.sdk import DAG\na = DAG('a', schedule='@daily')\nb = DAG('b', schedule=None)\n",
    );
    lab.file(
        "unserializable.py",
        "from airflow.sdk import DAG\nwith DAG('u', schedule=None, params={'x': object()}): pass\n",
    );
    lab.file("helper.py", "VALUE = 1\n");
    lab.file(".airflowignore", "ignored/*\n");
    lab.file("ignored/gone.py", "from airflow.sdk import DAG\nDAG('gone')\n");
    let files = parse(&lab, request(&lab), Arc::new(NoAnswers)).await;
    let names: Vec<_> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["bad.py", "good.py", "two.py", "unserializable.py", "warns.py"]);
    assert_eq!(files["good.py"].dags[0].data["dag"]["dag_id"], "good");
    assert!(files["good.py"].import_errors.is_empty());
    assert!(files["bad.py"].import_errors["bad.py"].contains("ZeroDivisionError"), "{:?}", files["bad.py"]);
    assert!(files["unserializable.py"].dags.is_empty(), "{:?}", files["unserializable.py"]);
    assert!(files["unserializable.py"].import_errors.contains_key("unserializable.py"));
    assert!(files["warns.py"].warnings[0].contains("old ways"), "{:?}", files["warns.py"]);
    let ids: Vec<_> = files["two.py"].dags.iter().map(|dag| dag.dag_id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
}

#[tokio::test]
async fn a_file_that_hangs_or_crashes_is_reported_and_the_rest_is_parsed() {
    let Some(lab) = Lab::new().await else { return };
    lab.dag("a_first", "", "@task\ndef work(): pass\nwork()");
    // Neither an exception nor SIGALRM's handler gets through to this one.
    lab.dag("b_hangs", "import ctypes\nctypes.CDLL(None).sleep(1000)", "pass");
    lab.dag("c_crashes", "import ctypes\nctypes.string_at(0)", "pass");
    lab.dag("d_exits", "import os\nos._exit(3)", "pass");
    lab.dag("e_last", "", "@task\ndef work(): pass\nwork()");
    let mut request = request(&lab);
    request.file_limit = Duration::from_secs(2);
    let files = parse(&lab, request, Arc::new(NoAnswers)).await;
    assert_eq!(files.len(), 5);
    assert_eq!(files["a_first.py"].dags.len(), 1);
    assert!(files["b_hangs.py"].import_errors["b_hangs.py"].contains("longer than 2 s"));
    assert!(files["c_crashes.py"].import_errors["c_crashes.py"].contains("SIGSEGV"));
    assert!(files["d_exits.py"].import_errors["d_exits.py"].contains("code 3"));
    assert_eq!(files["e_last.py"].dags.len(), 1);
}

#[tokio::test]
async fn requests_made_at_import_are_answered() {
    struct Named;
    #[async_trait]
    impl Answers for Named {
        async fn answer(&self, request: &FromTask) -> Reply {
            let FromTask::GetVariable(asked) = request else { return NoAnswers.answer(request).await };
            let value = format!("dag_of_{}", asked.key);
            ToTask::VariableResult(VariableResponse { key: asked.key.clone(), value: Some(value) }).into()
        }
    }
    let Some(lab) = Lab::new().await else { return };
    lab.file(
        "named.py",
        "from airflow.sdk import DAG, Variable\ndag = DAG(Variable.get('me'), schedule=None)\n",
    );
    let files = parse(&lab, request(&lab), Arc::new(Named)).await;
    assert_eq!(files["named.py"].dags.first().map(|dag| dag.dag_id.as_str()), Some("dag_of_me"), "{files:?}");
    let files = parse(&lab, request(&lab), Arc::new(NoAnswers)).await;
    assert!(files["named.py"].import_errors["named.py"].contains("me"), "{files:?}");
}

#[tokio::test]
async fn a_bundle_in_mwaas_layout_has_its_plugins_and_includes() {
    let Some(lab) = Lab::new().await else { return };
    lab.file("include/names.py", "NAME = 'from_include'\n");
    lab.file(
        "plugins/yearly.py",
        "from airflow.plugins_manager import AirflowPlugin\n\
         from airflow.timetables.interval import CronDataIntervalTimetable\n\
         class Yearly(CronDataIntervalTimetable):\n    def __init__(self):\n        super().__init__('@yearly', 'UTC')\n\
         \x20   @classmethod\n    def deserialize(cls, data):\n        return cls()\n    def serialize(self):\n        return {}\n\
         class YearlyPlugin(AirflowPlugin):\n    name = 'yearly_dag_for_airflow'\n    timetables = [Yearly]\n",
    );
    lab.file(
        "dags/uses.py",
        "from airflow.sdk import DAG\nfrom include.names import NAME\nfrom yearly import Yearly\ndag = DAG(NAME, schedule=Yearly())\n",
    );
    let files = parse(&lab, request(&lab), Arc::new(NoAnswers)).await;
    assert_eq!(files.keys().collect::<Vec<_>>(), ["dags/uses.py"]);
    let dag = files["dags/uses.py"].dags.first().unwrap_or_else(|| panic!("{files:?}"));
    assert_eq!(dag.dag_id, "from_include");
    assert_eq!(dag.data["dag"]["relative_fileloc"], "dags/uses.py");
    assert_eq!(dag.data["dag"]["timetable"]["__type"], "yearly.Yearly");
}

#[tokio::test]
async fn nothing_is_written_into_a_bundle() {
    let Some(lab) = Lab::new().await else { return };
    lab.file("helper.py", "VALUE = 1\n");
    lab.dag("good", "import helper", "@task\ndef work():\n    import helper\nwork()");
    parse(&lab, request(&lab), Arc::new(NoAnswers)).await;
    crate::support::serve(lab.task("good", "work").await).await;
    let mut names: Vec<_> =
        std::fs::read_dir(lab.dags.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["good.py", "helper.py"]);
}

#[tokio::test]
async fn airflows_own_examples_parse_without_an_error() {
    let Some(lab) = Lab::new().await else { return };
    let python = gust_python_host::testing::environment().await.unwrap().python;
    let output = tokio::process::Command::new(python)
        .args(["-c", "import importlib.util as u; print(u.find_spec('airflow.example_dags').origin)"])
        .output()
        .await
        .unwrap();
    let origin = String::from_utf8(output.stdout).unwrap();
    let mut request = request(&lab);
    request.bundle_path = std::path::Path::new(origin.trim()).parent().unwrap().to_owned();
    let files = parse(&lab, request, Arc::new(NoAnswers)).await;
    let errors: Vec<_> = files.values().filter(|file| !file.import_errors.is_empty()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    assert_eq!((files.len(), files.values().map(|file| file.dags.len()).sum::<usize>()), (54, 90));
}
