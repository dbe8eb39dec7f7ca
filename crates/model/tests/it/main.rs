//! The DAG graph as Airflow itself sees it, and what cannot be read.

#![expect(clippy::unwrap_used, reason = "A test that cannot go on fails.")]

use std::collections::BTreeMap;

use gust_model::dag::{Dag, DagError, ExpandInput, canonical_json, stable_hash};
use rstest::rstest;
use serde_json::{Value, json};

const DAGS: &str = include_str!("../fixtures/dags.json");

fn cases() -> BTreeMap<String, Value> {
    serde_json::from_str(DAGS).unwrap()
}

fn case(dag_id: &str) -> Value {
    cases().remove(dag_id).unwrap()["serialized"].take()
}

/// What `make_dags.py` asked Airflow about a graph, asked of ours.
fn facts(dag: &Dag) -> Value {
    let names = |tasks: &[gust_model::dag::TaskIndex]| {
        let mut names: Vec<&str> = tasks.iter().map(|task| dag.task(*task).task_id.as_str()).collect();
        names.sort_unstable();
        json!(names)
    };
    let group_id = |group: gust_model::dag::GroupIndex| json!(dag.group(group).group_id);
    let mut tasks = serde_json::Map::new();
    for index in dag.task_indexes() {
        let (task, links) = (dag.task(index), dag.links(index));
        let never = &mut |_| Ok::<_, ()>(None);
        let mut count = task.expand.as_ref().map_or(Some(1), |expand| expand.length(never).unwrap());
        for group in &links.mapped_groups {
            let length = dag.group(*group).expand.as_ref().unwrap().length(never).unwrap();
            count = count.zip(length).map(|(a, b)| a * b);
        }
        let count = match count {
            _ if !task.needs_expansion => json!("not mapped"),
            Some(count) => json!(count),
            None => json!("not known"),
        };
        #[expect(clippy::cast_precision_loss, reason = "Delays are small.")]
        let retry_delay_s = task.retry_delay.num_milliseconds() as f64 / 1000.0;
        tasks.insert(
            task.task_id.to_string(),
            json!({
                "upstream": names(&links.upstream),
                "weight": links.weight,
                "setups": names(&links.relevant_setups),
                "count": count,
                "trigger_rule": task.trigger_rule.as_str(),
                "retries": task.retries,
                "retry_delay_s": retry_delay_s,
                "pool": task.pool,
                "queue": task.queue,
                "owner": task.owner,
                "needs_expansion": task.needs_expansion,
                "mapped_groups": links.mapped_groups.iter().map(|group| group_id(*group)).collect::<Vec<_>>(),
                "group": group_id(task.group),
                "is_empty": task.is_empty,
                "can_skip_downstream": task.can_skip_downstream,
            }),
        );
    }
    json!({
        "tasks": tasks,
        "leaves": names(dag.state_leaves()),
        "max_active_runs": dag.max_active_runs,
        "catchup": dag.catchup,
    })
}

#[test]
fn every_dag_has_the_graph_that_airflow_sees() {
    let cases = cases();
    assert!(cases.len() >= 90);
    for (dag_id, case) in &cases {
        let dag = Dag::from_serialized(&case["serialized"]).unwrap_or_else(|error| panic!("{error}"));
        let (ours, theirs) = (facts(&dag), &case["facts"]);
        for (task, expected) in theirs["tasks"].as_object().unwrap() {
            assert_eq!(&ours["tasks"][task], expected, "{dag_id}.{task}");
        }
        assert_eq!(&ours, theirs, "{dag_id}");
    }
}

#[test]
fn a_mapping_has_a_length_once_its_values_are_known() {
    let dag = Dag::from_serialized(&case("graph_mapping")).unwrap();
    let length = |task: &str, first: Option<u64>, second: Option<u64>| {
        let expand: &ExpandInput = dag.task(dag.index_of(task).unwrap()).expand.as_ref().unwrap();
        let known = |index| Ok::<_, ()>(if dag.task(index).task_id == "first" { first } else { second });
        expand.length(&mut { known }).unwrap()
    };
    assert_eq!(length("literal_product", None, None), Some(6));
    assert_eq!(length("kwargs", None, None), Some(2));
    assert_eq!(length("product", Some(3), None), Some(6));
    assert_eq!(length("product", None, None), None);
    assert_eq!(length("zipped", Some(3), Some(5)), Some(5), "a filled zip is as long as its longest part");
    assert_eq!(length("joined", Some(3), Some(5)), Some(8));
    assert_eq!(length("joined", Some(3), None), None);
}

#[test]
fn a_teardown_waits_for_all_between_its_setups_and_it() {
    let dag = Dag::from_serialized(&case("graph_setups")).unwrap();
    let at = |task: &str| dag.index_of(task).unwrap();
    assert!(dag.fail_fast);
    assert_eq!(dag.links(at("clean")).teardown_scope, vec![at("work")], "more is directly before it");
    assert_eq!(dag.links(at("more")).indirect_setups, vec![at("make"), at("make_alone")]);
    assert_eq!(dag.links(at("work")).indirect_setups, vec![], "its setups are directly before it");
    assert!(dag.links(at("work")).evaluate_on_change.contains(&at("clean")));
    assert!(dag.links(at("make_alone")).evaluate_on_change.contains(&at("more")));
}

#[test]
fn indexes_look_at_indexes_within_a_mapped_group() {
    let dag = Dag::from_serialized(&case("graph_groups")).unwrap();
    let at = |task: &str| dag.index_of(task).unwrap();
    let inside = dag.links(at("dynamic.inner.inside"));
    assert_eq!(inside.index_upstream.len(), 1);
    assert_eq!(inside.mapped_dependencies, vec![at("numbers")]);
    assert!(dag.links(at("numbers")).evaluate_on_change.contains(&at("dynamic.inner.inside")));
    assert!(dag.links(at("dynamic.inner.inside")).tallied_downstream.iter().any(|task| *task == at("total")));
}

#[test]
fn a_hash_does_not_depend_on_order_in_sets_or_on_the_files_place() {
    let one = case("graph_defaults");
    let mut other = one.clone();
    other["dag"]["tags"] = json!(["b", "a"]);
    other["dag"]["fileloc"] = json!("/elsewhere/graph_forms.py");
    other["dag"]["_processor_dags_folder"] = json!("/elsewhere");
    assert_eq!(canonical_json(&one), canonical_json(&other));
    let mut reordered = one.clone();
    reordered["dag"]["tasks"].as_array_mut().unwrap().reverse();
    assert_ne!(stable_hash(&one), stable_hash(&reordered), "the order of tasks is the author's");
    assert_eq!(stable_hash(&one).len(), 64);
}

fn broken(change: impl FnOnce(&mut Value)) -> DagError {
    let mut serialized = case("graph_defaults");
    change(&mut serialized);
    Dag::from_serialized(&serialized).unwrap_err()
}

#[rstest]
#[case::version("/__version", json!(1), "format version 1")]
#[case::no_id("/dag/dag_id", Value::Null, "expected a text, found nothing")]
#[case::rule("/dag/tasks/0/__var/trigger_rule", json!("sometimes"), "task \"plain\": field \"trigger_rule\"")]
#[case::number("/dag/tasks/0/__var/retries", json!("three"), "expected an integer of 32 bits, found \"three\"")]
#[case::edge("/dag/tasks/0/__var/downstream_task_ids", json!(["gone"]), "names task \"gone\"")]
#[case::cycle("/dag/tasks/1/__var/downstream_task_ids", json!(["plain"]), "cycle: ")]
#[case::duplicate("/dag/tasks/1/__var/task_id", json!("plain"), "two tasks have the id \"plain\"")]
#[case::group("/dag/task_group/children", json!({"x": ["operator", "gone"]}), "names task \"gone\"")]
#[case::group_kind("/dag/task_group/children", json!({"x": 5}), "field \"children.x\"")]
#[case::asset("/dag/tasks/0/__var/outlets", json!([{"__type": "banana"}]), "field \"outlets\"")]
#[case::tasks("/dag/tasks", json!([5]), "field \"tasks[0]\"")]
fn what_cannot_be_read_is_said_with_its_place(#[case] at: &str, #[case] value: Value, #[case] says: &str) {
    let error = broken(|serialized| {
        let (parent, key) = at.rsplit_once('/').unwrap();
        let slot = serialized.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        slot.insert(key.to_owned(), value);
    });
    let text = error.to_string();
    assert!(text.contains(says), "{text}");
}
