//! The message enums against the installed SDK's own models.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gust_python_host::messages::{FromTask, ToTask};
use gust_python_host::{CallbackRequest, frame, testing};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

#[derive(Deserialize)]
struct Made {
    schema_kinds: BTreeSet<String>,
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    group: String,
    kind: String,
    full: bool,
    frame: String,
    body: Value,
}

async fn script(python: &Path, verb: &str, input: &str) -> String {
    let home = tempfile::TempDir::new().unwrap();
    let mut child = tokio::process::Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/protocol.py"))
        .arg(verb)
        .env("AIRFLOW_HOME", home.path())
        .env("_AIRFLOW_PROCESS_CONTEXT", "client")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

async fn made() -> Option<(Made, std::path::PathBuf)> {
    let python = testing::environment().await?.python;
    Some((serde_json::from_str(&script(&python, "make", "").await).unwrap(), python))
}

#[tokio::test]
async fn every_kind_of_the_installed_schema_is_known() {
    let Some((made, _)) = made().await else { return };
    let names = |kinds: &[&str]| kinds.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    let of = |group: &str| {
        made.messages
            .iter()
            .filter(|message| message.group == group)
            .map(|message| message.kind.clone())
            .collect()
    };
    assert_eq!(names(FromTask::KINDS), of("from_task"));
    assert_eq!(names(ToTask::KINDS), of("to_task"));
    // What the schema has beyond tasks' messages: the DAG processor's own.
    let others = [
        "DagCallbackRequest",
        "DagFileParseRequest",
        "DagFileParsingResult",
        "EmailRequest",
        "TaskCallbackRequest",
    ];
    let known: BTreeSet<_> =
        [names(FromTask::KINDS), names(ToTask::KINDS), names(&others)].into_iter().flatten().collect();
    assert_eq!(made.schema_kinds.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[tokio::test]
async fn what_the_sdk_sends_is_read_without_loss() {
    let Some((made, _)) = made().await else { return };
    for message in made.messages.iter().filter(|message| message.group == "from_task") {
        let bytes = STANDARD.decode(&message.frame).unwrap();
        let payload = frame::read_payload(&mut &bytes[..], 1 << 20).await.unwrap().unwrap();
        let request = frame::decode_request(&payload).unwrap();
        assert_eq!(request.id, 3);
        let read = FromTask::from_json(request.body);
        assert!(!matches!(read, FromTask::Unknown { .. }), "{read:?}");
        assert_eq!(read.kind(), message.kind);
        let written = serde_json::to_value(&read).unwrap();
        for (key, value) in message.body.as_object().unwrap() {
            // A terminal state is the message's kind already.
            if key == "state" && !written.as_object().unwrap().contains_key(key) {
                continue;
            }
            assert!(same(&written[key], value), "{} {key}: {} for {value}", message.kind, written[key]);
        }
    }
}

#[tokio::test]
async fn what_is_sent_is_what_the_sdk_reads() {
    let Some((made, python)) = made().await else { return };
    let mut frames = Vec::new();
    for message in made.messages.iter().filter(|message| message.group != "from_task") {
        let bytes = if message.group == "to_task" {
            let body = ToTask::from_json(message.body.clone());
            assert!(!matches!(body, ToTask::Unknown { .. }), "{body:?}");
            frame::encode(&(0, body)).unwrap()
        } else {
            frame::encode(&(0, serde_json::from_value::<CallbackRequest>(message.body.clone()).unwrap()))
                .unwrap()
        };
        frames.push(json!({
            "group": message.group, "kind": message.kind, "full": message.full, "frame": STANDARD.encode(bytes)
        }));
    }
    let wrong: Vec<String> =
        serde_json::from_str(&script(&python, "judge", &Value::from(frames).to_string()).await).unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Equal, or the same moment or duration in another spelling.
fn same(ours: &Value, theirs: &Value) -> bool {
    if ours == theirs {
        return true;
    }
    match (ours, theirs) {
        (Value::String(ours), Value::String(theirs)) => {
            let moment = |text: &str| chrono::DateTime::parse_from_rfc3339(text).ok();
            let duration = gust_python_host::messages::IsoDuration::parse;
            (moment(ours).is_some() && moment(ours) == moment(theirs))
                || (duration(ours).is_some() && duration(ours) == duration(theirs))
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| same(ours, theirs))
        }
        (Value::Object(ours), Value::Object(theirs)) => {
            theirs.iter().all(|(key, value)| ours.get(key).is_some_and(|ours| same(ours, value)))
        }
        _ => false,
    }
}

#[test]
fn an_unknown_kind_and_a_malformed_one_are_kept_as_they_came() {
    let raw = json!({"type": "GetMoon", "phase": 1});
    let FromTask::Unknown { kind, raw: kept, problem } = FromTask::from_json(raw.clone()) else { panic!() };
    assert_eq!((kind.as_str(), kept, problem), ("GetMoon", raw, None));
    let raw = json!({"type": "GetVariable"});
    let FromTask::Unknown { kind, problem, .. } = FromTask::from_json(raw) else { panic!() };
    assert_eq!(kind, "GetVariable");
    assert!(problem.unwrap().contains("key"));
    assert_eq!(FromTask::from_json(json!("text")).kind(), "");
}
