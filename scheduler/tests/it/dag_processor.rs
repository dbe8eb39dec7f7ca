use gust_ports::ParsedFile;
use serde_json::json;

use crate::house::{House, by_hand, dag, hourly};

#[tokio::test]
async fn parsing_the_same_file_twice_makes_no_new_version_and_a_change_makes_one() {
    let house = House::new().await;
    let first = dag("d", &by_hand(), &[("a", &[], json!({}))]);
    house.put_file("x.py", vec![first.clone()], &[]).await;
    house.put_file("x.py", vec![first], &[]).await;
    assert_eq!(house.read().await.dag_versions(&"d".into()).await.unwrap().len(), 1);
    house
        .put_file("x.py", vec![dag("d", &by_hand(), &[("a", &["b"], json!({})), ("b", &[], json!({}))])], &[])
        .await;
    let versions = house.read().await.dag_versions(&"d".into()).await.unwrap();
    assert_eq!(versions.iter().map(|version| version.version_number).collect::<Vec<_>>(), [2, 1]);
    let record = house.read().await.dag(&"d".into()).await.unwrap().unwrap();
    assert_eq!(record.current_version_id, versions[0].id);
}

#[tokio::test]
async fn a_broken_file_keeps_its_last_good_version_serving_and_shows_its_error() {
    let house = House::new().await;
    house.put_file("x.py", vec![dag("d", &hourly(), &[("a", &[], json!({}))])], &[]).await;
    let good = house.read().await.dag(&"d".into()).await.unwrap().unwrap();
    house.put_file("x.py", vec![], &["SyntaxError: it does not parse"]).await;
    let kept = house.read().await.dag(&"d".into()).await.unwrap().unwrap();
    assert!(!kept.is_stale && kept.has_import_errors);
    assert_eq!(kept.bundle_version, good.bundle_version, "runs stay on the code that parsed");
    let errors = house.read().await.import_errors(10, 0).await.unwrap();
    assert_eq!(errors.items[0].stack_trace, "SyntaxError: it does not parse");

    house.put_file("x.py", vec![dag("d", &hourly(), &[("a", &[], json!({}))])], &[]).await;
    let mended = house.read().await.dag(&"d".into()).await.unwrap().unwrap();
    assert!(!mended.has_import_errors);
    assert_eq!(house.read().await.import_errors(10, 0).await.unwrap().total, 0);
}

#[tokio::test]
async fn a_dag_that_cannot_be_read_is_an_import_error_that_says_why() {
    let house = House::new().await;
    let mut broken = dag("d", &by_hand(), &[("a", &["nowhere"], json!({}))]);
    house.put_file("x.py", vec![broken.clone()], &[]).await;
    broken["dag"]["timetable"]["__type"] = json!("airflow.timetables.simple.NoSuchTimetable");
    broken["dag"]["tasks"][0]["__var"]["downstream_task_ids"] = json!([]);
    house.put_file("y.py", vec![broken], &[]).await;
    let errors = house.read().await.import_errors(10, 0).await.unwrap().items;
    let of = |file: &str| errors.iter().find(|error| error.filename == file).unwrap().stack_trace.clone();
    assert!(of("x.py").contains("nowhere"), "{}", of("x.py"));
    assert!(of("y.py").contains("NoSuchTimetable"), "{}", of("y.py"));
    assert!(house.read().await.dag(&"d".into()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_removed_file_makes_its_dags_stale_and_forgets_its_errors() {
    let house = House::new().await;
    house
        .put_file("x.py", vec![dag("d", &by_hand(), &[("a", &[], json!({}))])], &["one of two is broken"])
        .await;
    house.remove_file("x.py").await;
    assert!(house.read().await.dag(&"d".into()).await.unwrap().unwrap().is_stale);
    assert_eq!(house.read().await.import_errors(10, 0).await.unwrap().total, 0);
    house.put_file("x.py", vec![dag("d", &by_hand(), &[("a", &[], json!({}))])], &[]).await;
    assert!(!house.read().await.dag(&"d".into()).await.unwrap().unwrap().is_stale);
}

#[tokio::test]
async fn the_second_file_with_the_same_dag_id_is_told_and_a_moved_dag_is_not() {
    let house = House::new().await;
    let one = || dag("d", &by_hand(), &[("a", &[], json!({}))]);
    house.put_file("m.py", vec![one()], &[]).await;
    house.put_file("n.py", vec![one()], &[]).await;
    let errors = house.read().await.import_errors(10, 0).await.unwrap().items;
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].filename, "n.py");
    assert!(
        errors[0].stack_trace.contains("is defined in n.py as well as in m.py"),
        "{}",
        errors[0].stack_trace
    );

    house.folder.files.lock().await.clear();
    house.put_file("a.py", vec![one()], &[]).await;
    assert_eq!(house.read().await.import_errors(10, 0).await.unwrap().total, 0);
    assert_eq!(house.read().await.dag(&"d".into()).await.unwrap().unwrap().relative_fileloc, "a.py");
}

#[tokio::test]
async fn what_a_person_paused_stays_paused_through_new_versions() {
    let house = House::new().await;
    house.put_file("x.py", vec![dag("d", &by_hand(), &[("a", &[], json!({}))])], &[]).await;
    let mut tx = house.write().await;
    tx.set_dag_paused(&"d".into(), true).await.unwrap();
    tx.commit().await.unwrap();
    house.put_file("x.py", vec![dag("d", &by_hand(), &[("b", &[], json!({}))])], &[]).await;
    assert!(house.read().await.dag(&"d".into()).await.unwrap().unwrap().is_paused);
}

#[tokio::test]
async fn a_timetable_of_the_users_own_is_asked_and_its_failure_is_an_import_error() {
    let house = House::new().await;
    let custom = |data| json!({ "__type": "plugins.every.Every", "__var": data });
    let tasks = [("a", &[][..], json!({}))];
    house.put_file("x.py", vec![dag("d", &custom(json!({ "every_s": 3_600 })), &tasks)], &[]).await;
    house.settle().await;
    house.look().await;
    house.settle().await;
    let runs = house.runs("d").await;
    assert_eq!(runs.len(), 2, "each look asks for the run after the last: {runs:?}");
    assert!(runs[1].0.as_str().starts_with("scheduled__2024-01-01T01:00:00"), "{runs:?}");
    assert!(runs[0].0.as_str().starts_with("scheduled__2024-01-01T02:00:00"), "{runs:?}");

    house.put_file("x.py", vec![dag("d", &custom(json!({})), &tasks)], &[]).await;
    let errors = house.read().await.import_errors(10, 0).await.unwrap().items;
    assert!(errors[0].stack_trace.contains("KeyError: every_s"), "{}", errors[0].stack_trace);
    assert!(house.read().await.dag(&"d".into()).await.unwrap().unwrap().next_run.is_none());
}

#[tokio::test]
async fn a_file_that_cannot_be_recorded_ends_the_look_rather_than_leave_the_parser_waiting() {
    let house = House::new().await;
    let mut files = house.folder.files.lock().await;
    for n in 0..40 {
        let file = ParsedFile {
            relative_path: format!("{n}.py"),
            dags: vec![dag(&format!("d{n}"), &by_hand(), &[("a", &[], json!({}))])],
            errors: Vec::new(),
            warnings: Vec::new(),
            duration: std::time::Duration::ZERO,
        };
        files.insert(file.relative_path.clone(), file);
    }
    drop(files);
    house.refuse("put_dag");
    let looked = tokio::time::timeout(std::time::Duration::from_secs(20), house.try_look()).await;
    assert!(looked.expect("the look ends").is_err());
    house.refuse("");
    assert_eq!(house.try_look().await.unwrap().dag_ids.len(), 40);
}
