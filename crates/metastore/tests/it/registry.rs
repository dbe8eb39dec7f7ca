//! DAGs, versions, import errors and bundles.

use gust_model::{
    BundleVersion, DagId, DagRunState, DagRunType, DagVersionId, TaskInstanceState as State,
    record::{AssetReference, AssetReferenceKind, DagRecord, DagRun, DagVersion},
};
use gust_ports::metastore::{DagFilter, DagSort, Direction, MetastoreError, Page};
use serde_json::Value;

use crate::{
    backend::Backend,
    behaviours,
    fixtures::{
        at, dag, id, in_state, next_run, one_run, put_dag, put_runs, put_task_instances, run, version,
    },
};

behaviours! { everywhere:
    dag_is_stored_whole
    dag_with_nothing_optional_is_stored_whole
    put_dag_replaces_all_of_it
    lock_dag_returns_it_or_nothing
    pausing_tells_whether_there_is_such_a_dag
    next_run_is_set_and_cleared
    dags_by_every_filter
    dags_by_every_sort
    dags_in_pages_that_never_overlap
    a_text_filter_takes_wildcards_literally
    stale_dags_of_a_file_or_of_a_bundle
    due_dags_the_longest_due_first
    due_dags_that_have_to_wait_hide_nobody
    next_due_dag_is_the_earliest_that_may_run
    deleting_a_dag_takes_all_that_hangs_on_it
    versions_newest_first
    two_versions_of_one_number_clash
    a_serialized_dag_stays_as_first_stored
    import_errors_are_replaced_by_file
    import_errors_in_pages_newest_first
    import_errors_of_files_that_are_gone
    current_version_of_a_bundle
    bundle_versions_in_use_are_those_of_dags_and_unfinished_runs
}

fn ids(dags: &[DagRecord]) -> Vec<&str> {
    dags.iter().map(|dag| dag.dag_id.as_str()).collect()
}

async fn dag_is_stored_whole(backend: &Backend) {
    let mut record = dag("dag.with-every_thing");
    record.has_import_errors = true;
    record.is_stale = true;
    put_dag(backend, &record).await;
    assert_eq!(backend.read().await.dag(&record.dag_id).await.unwrap(), Some(record));
    assert_eq!(backend.read().await.dag(&"none".into()).await.unwrap(), None);
}

async fn dag_with_nothing_optional_is_stored_whole(backend: &Backend) {
    let record = DagRecord {
        dag_display_name: None,
        bundle_version: None,
        description: Some(String::new()),
        owners: String::new(),
        tags: Vec::new(),
        timetable_summary: None,
        timetable_description: None,
        is_scheduled: false,
        next_run: None,
        asset_expression: Value::Null,
        ..dag("пустой 空")
    };
    put_dag(backend, &record).await;
    let stored = backend.read().await.dag(&record.dag_id).await.unwrap();
    assert_eq!(stored, Some(record.clone()));
    let bare = DagRecord {
        description: None,
        next_run: Some(gust_model::record::NextRun {
            run_after: at(1),
            logical_date: None,
            data_interval_start: None,
            data_interval_end: None,
            partition_key: None,
        }),
        ..record
    };
    let mut tx = backend.write().await;
    tx.put_dag(&bare).await.unwrap();
    assert_eq!(tx.dag(&bare.dag_id).await.unwrap(), Some(bare));
}

async fn put_dag_replaces_all_of_it(backend: &Backend) {
    let first = dag("d");
    put_dag(backend, &first).await;
    let second = DagRecord {
        dag_display_name: None,
        bundle_name: "other".into(),
        bundle_version: None,
        relative_fileloc: "x/y.py".to_owned(),
        current_version_id: DagVersionId(id()),
        is_paused: true,
        is_stale: true,
        has_import_errors: true,
        description: None,
        owners: "zoe".to_owned(),
        tags: vec!["c".to_owned()],
        timetable_summary: None,
        timetable_description: None,
        is_scheduled: false,
        max_active_runs: 1,
        max_active_tasks: 2,
        max_consecutive_failed_dag_runs: 0,
        next_run: None,
        asset_expression: Value::Null,
        last_parsed_at: at(99),
        last_parse_duration: 7.5,
        ..first.clone()
    };
    let mut tx = backend.write().await;
    tx.insert_dag_version(&DagVersion { version_number: 2, ..version(&second) }).await.unwrap();
    tx.put_dag(&second).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(backend.read().await.dag(&first.dag_id).await.unwrap(), Some(second));
}

async fn lock_dag_returns_it_or_nothing(backend: &Backend) {
    let record = dag("d");
    put_dag(backend, &record).await;
    let mut tx = backend.write().await;
    assert_eq!(tx.lock_dag(&record.dag_id).await.unwrap(), Some(record));
    assert_eq!(tx.lock_dag(&"none".into()).await.unwrap(), None);
}

async fn pausing_tells_whether_there_is_such_a_dag(backend: &Backend) {
    let record = dag("d");
    put_dag(backend, &record).await;
    let mut tx = backend.write().await;
    assert!(!tx.set_dag_paused(&"none".into(), true).await.unwrap());
    for is_paused in [true, true, false] {
        assert!(tx.set_dag_paused(&record.dag_id, is_paused).await.unwrap());
        let expected = DagRecord { is_paused, ..record.clone() };
        assert_eq!(tx.dag(&record.dag_id).await.unwrap(), Some(expected));
    }
}

async fn next_run_is_set_and_cleared(backend: &Backend) {
    let record = dag("d");
    put_dag(backend, &record).await;
    let mut tx = backend.write().await;
    for next in [Some(next_run(77)), None, Some(next_run(78))] {
        tx.set_next_run(&record.dag_id, next.as_ref()).await.unwrap();
        assert_eq!(tx.dag(&record.dag_id).await.unwrap().unwrap().next_run, next);
    }
    tx.set_next_run(&"none".into(), None).await.unwrap();
}

/// Three DAGs that differ in everything that filters look at; `a` has a failed newest run, `b` a running one.
async fn three_dags(backend: &Backend) {
    let a = DagRecord {
        dag_display_name: Some("Zebra".to_owned()),
        tags: vec!["x".to_owned(), "y".to_owned()],
        owners: "ann,bob".to_owned(),
        is_paused: true,
        relative_fileloc: "one.py".to_owned(),
        next_run: Some(next_run(300)),
        ..dag("a_dag")
    };
    let b = DagRecord {
        dag_display_name: None,
        tags: vec!["y".to_owned()],
        owners: "ann bob".to_owned(),
        is_stale: true,
        bundle_name: "other".into(),
        relative_fileloc: "two.py".to_owned(),
        next_run: None,
        ..dag("b_dag")
    };
    let c = DagRecord {
        dag_display_name: Some("Apple".to_owned()),
        tags: Vec::new(),
        owners: "bob".to_owned(),
        has_import_errors: true,
        relative_fileloc: "two.py".to_owned(),
        next_run: Some(next_run(200)),
        ..dag("c_dag")
    };
    for record in [&a, &b, &c] {
        put_dag(backend, record).await;
    }
    let old = DagRun { state: DagRunState::Success, start_date: Some(at(1)), ..run(&a, 1) };
    let new = DagRun { state: DagRunState::Failed, start_date: Some(at(5)), ..run(&a, 2) };
    let of_b = DagRun { start_date: None, ..run(&b, 1) };
    put_runs(backend, &[&new, &old, &of_b]).await;
}

async fn dags_by_every_filter(backend: &Backend) {
    three_dags(backend).await;
    let all = DagFilter::default;
    let text = |text: &str| vec![text.to_owned()];
    let cases = [
        (all(), "abc"),
        (DagFilter { dag_ids: vec!["b_dag".into(), "c_dag".into(), "none".into()], ..all() }, "bc"),
        (DagFilter { name_contains: Some("A_DA".to_owned()), ..all() }, "a"),
        (DagFilter { name_contains: Some("zEB".to_owned()), ..all() }, "a"),
        (DagFilter { name_contains: Some("_dag".to_owned()), ..all() }, "abc"),
        (DagFilter { tags_any: vec!["x".to_owned(), "q".to_owned()], ..all() }, "a"),
        (DagFilter { tags_any: text("y"), ..all() }, "ab"),
        (DagFilter { tags_all: vec!["x".to_owned(), "y".to_owned()], ..all() }, "a"),
        (DagFilter { tags_all: vec!["x".to_owned(), "q".to_owned()], ..all() }, ""),
        (DagFilter { owners_any: text("ann"), ..all() }, "a"),
        (DagFilter { owners_any: text("bob"), ..all() }, "ac"),
        (DagFilter { owners_any: vec!["ann".to_owned(), "ann bob".to_owned()], ..all() }, "ab"),
        (DagFilter { is_paused: Some(true), ..all() }, "a"),
        (DagFilter { is_paused: Some(false), ..all() }, "bc"),
        (DagFilter { is_stale: Some(true), ..all() }, "b"),
        (DagFilter { is_stale: Some(false), ..all() }, "ac"),
        (DagFilter { has_import_errors: Some(true), ..all() }, "c"),
        (DagFilter { has_import_errors: Some(false), ..all() }, "ab"),
        (DagFilter { bundle_name: Some("other".into()), ..all() }, "b"),
        (DagFilter { relative_fileloc: Some("two.py".to_owned()), ..all() }, "bc"),
        (DagFilter { last_run_state: Some(DagRunState::Failed), ..all() }, "a"),
        (DagFilter { last_run_state: Some(DagRunState::Success), ..all() }, ""),
        (DagFilter { last_run_state: Some(DagRunState::Running), ..all() }, "b"),
        (
            DagFilter {
                is_paused: Some(false),
                relative_fileloc: Some("two.py".to_owned()),
                is_stale: Some(false),
                ..all()
            },
            "c",
        ),
    ];
    let mut tx = backend.read().await;
    for (filter, expected) in cases {
        let page = Page { limit: 10, offset: 0, sort: vec![(DagSort::DagId, Direction::Ascending)] };
        let listing = tx.dags(&filter, &page).await.unwrap();
        let found: String = listing.items.iter().map(|dag| &dag.dag_id.as_str()[..1]).collect();
        assert_eq!(found, expected, "{filter:?}");
        assert_eq!(listing.total, expected.len() as u64, "{filter:?}");
    }
}

async fn dags_by_every_sort(backend: &Backend) {
    use Direction::{Ascending, Descending};
    three_dags(backend).await;
    let cases = [
        (DagSort::DagId, Ascending, "abc"),
        (DagSort::DagId, Descending, "cba"),
        (DagSort::DisplayName, Ascending, "cab"),
        (DagSort::DisplayName, Descending, "bac"),
        (DagSort::IsPaused, Ascending, "bca"),
        (DagSort::IsPaused, Descending, "abc"),
        (DagSort::NextRunAfter, Ascending, "cab"),
        (DagSort::NextRunAfter, Descending, "acb"),
        (DagSort::LastRunState, Ascending, "abc"),
        (DagSort::LastRunState, Descending, "bac"),
        (DagSort::LastRunStartDate, Ascending, "abc"),
        (DagSort::LastRunStartDate, Descending, "abc"),
    ];
    let mut tx = backend.read().await;
    for (sort, direction, expected) in cases {
        let page = Page { limit: 10, offset: 0, sort: vec![(sort, direction)] };
        let listing = tx.dags(&DagFilter::default(), &page).await.unwrap();
        let found: String = listing.items.iter().map(|dag| &dag.dag_id.as_str()[..1]).collect();
        assert_eq!(found, expected, "{sort:?} {direction:?}");
    }
    let page = Page {
        limit: 10,
        offset: 0,
        sort: vec![(DagSort::IsPaused, Ascending), (DagSort::DagId, Descending)],
    };
    let listing = tx.dags(&DagFilter::default(), &page).await.unwrap();
    assert_eq!(ids(&listing.items), ["c_dag", "b_dag", "a_dag"]);
}

async fn dags_in_pages_that_never_overlap(backend: &Backend) {
    for name in ["B", "a", "É", "z", "Z"] {
        put_dag(backend, &dag(name)).await;
    }
    let mut seen = Vec::new();
    let mut tx = backend.read().await;
    for offset in [0, 2, 4, 6] {
        let page = Page { limit: 2, offset, sort: vec![(DagSort::IsPaused, Direction::Ascending)] };
        let listing = tx.dags(&DagFilter::default(), &page).await.unwrap();
        assert_eq!(listing.total, 5);
        seen.extend(listing.items.into_iter().map(|dag| dag.dag_id.as_str().to_owned()));
    }
    assert_eq!(seen, ["B", "Z", "a", "z", "É"], "ties by id, by bytes");
    assert_eq!(tx.dags(&DagFilter::default(), &Page::first(0)).await.unwrap().items, []);
}

async fn a_text_filter_takes_wildcards_literally(backend: &Backend) {
    for name in ["a%b", "a_b", "axb", "a\\b"] {
        put_dag(backend, &DagRecord { dag_display_name: None, ..dag(name) }).await;
    }
    let mut tx = backend.read().await;
    for name in ["a%b", "a_b", "a\\b"] {
        let filter = DagFilter { name_contains: Some(name.to_owned()), ..DagFilter::default() };
        assert_eq!(ids(&tx.dags(&filter, &Page::first(9)).await.unwrap().items), [name]);
    }
}

async fn stale_dags_of_a_file_or_of_a_bundle(backend: &Backend) {
    let of = |name: &str, bundle: &str, file: &str| DagRecord {
        bundle_name: bundle.into(),
        relative_fileloc: file.to_owned(),
        ..dag(name)
    };
    for record in [of("a", "x", "f"), of("b", "x", "f"), of("c", "x", "g"), of("d", "y", "f")] {
        put_dag(backend, &record).await;
    }
    let mut tx = backend.write().await;
    let marked = tx.mark_dags_stale(&"x".into(), Some("f"), &["a".into()]).await.unwrap();
    assert_eq!(marked, ["b"]);
    let mut marked = tx.mark_dags_stale(&"x".into(), None, &[]).await.unwrap();
    marked.sort();
    assert_eq!(marked, ["a", "c"], "those that were stale already are not changed");
    assert!(tx.dag(&"b".into()).await.unwrap().unwrap().is_stale);
    assert!(!tx.dag(&"d".into()).await.unwrap().unwrap().is_stale);
}

async fn due_dags_the_longest_due_first(backend: &Backend) {
    let due = |name: &str, seconds: i64| DagRecord { next_run: Some(next_run(seconds)), ..dag(name) };
    let records = [
        due("later", 20),
        due("sooner", 10),
        due("now", 30),
        due("not yet", 31),
        DagRecord { is_paused: true, ..due("paused", 1) },
        DagRecord { is_stale: true, ..due("stale", 1) },
        DagRecord { next_run: None, ..dag("never") },
    ];
    for record in &records {
        put_dag(backend, record).await;
    }
    let mut tx = backend.write().await;
    assert_eq!(ids(&tx.lock_due_dags(at(30), 10).await.unwrap()), ["sooner", "later", "now"]);
    assert_eq!(ids(&tx.lock_due_dags(at(30), 1).await.unwrap()), ["sooner"]);
    assert_eq!(tx.lock_due_dags(at(30), 1).await.unwrap()[0], records[1]);
}

async fn due_dags_that_have_to_wait_hide_nobody(backend: &Backend) {
    let due = |name: &str, seconds: i64| DagRecord { next_run: Some(next_run(seconds)), ..dag(name) };
    let full = DagRecord { max_active_runs: 1, ..due("full", 1) };
    let broken = DagRecord { has_import_errors: true, ..due("broken", 2) };
    let backfilled = DagRecord { max_active_runs: 1, ..due("backfilled", 3) };
    for record in [&full, &broken, &backfilled, &due("behind", 4)] {
        put_dag(backend, record).await;
    }
    let backfill = DagRun { run_type: DagRunType::Backfill, ..run(&backfilled, 1) };
    put_runs(backend, &[&run(&full, 1), &backfill]).await;
    let mut tx = backend.write().await;
    assert_eq!(ids(&tx.lock_due_dags(at(30), 2).await.unwrap()), ["backfilled", "behind"]);
}

async fn next_due_dag_is_the_earliest_that_may_run(backend: &Backend) {
    assert_eq!(backend.read().await.next_due_dag_at(at(0)).await.unwrap(), None);
    let due = |name: &str, seconds: i64| DagRecord { next_run: Some(next_run(seconds)), ..dag(name) };
    for record in [
        DagRecord { is_paused: true, ..due("paused", 1) },
        DagRecord { is_stale: true, ..due("stale", 2) },
        due("b", 40),
        due("a", 30),
    ] {
        put_dag(backend, &record).await;
    }
    assert_eq!(backend.read().await.next_due_dag_at(at(0)).await.unwrap(), Some(at(30)));
    let later = backend.read().await.next_due_dag_at(at(30)).await.unwrap();
    assert_eq!(later, Some(at(40)), "one that is due and has to wait hides none that is still to come");
}

async fn deleting_a_dag_takes_all_that_hangs_on_it(backend: &Backend) {
    let (gone, gone_run) = one_run(backend).await;
    let kept = dag("kept");
    put_dag(backend, &kept).await;
    let kept_run = run(&kept, 1);
    put_runs(backend, &[&kept_run]).await;
    let rows = [in_state(&gone_run, "t", State::Success), in_state(&kept_run, "t", State::Success)];
    put_task_instances(backend, &rows).await;
    let reference = |dag_id: &DagId| AssetReference {
        dag_id: dag_id.clone(),
        kind: AssetReferenceKind::Schedule,
        task_id: None,
        name: "n".to_owned(),
        uri: Some("u".to_owned()),
    };
    let mut tx = backend.write().await;
    for (dag, run) in [(&gone, &gone_run), (&kept, &kept_run)] {
        tx.replace_asset_references(&dag.dag_id, &[reference(&dag.dag_id)]).await.unwrap();
        tx.put_xcoms(&[crate::xcoms::xcom(run, "t", -1, "k", 1)]).await.unwrap();
    }
    assert!(!tx.delete_dag(&"none".into()).await.unwrap());
    assert!(tx.delete_dag(&gone.dag_id).await.unwrap());
    tx.commit().await.unwrap();

    let mut tx = backend.read().await;
    assert_eq!(tx.dag(&gone.dag_id).await.unwrap(), None);
    assert_eq!(tx.dag_versions(&gone.dag_id).await.unwrap(), []);
    assert_eq!(tx.dag_run_by_id(gone_run.id).await.unwrap(), None);
    assert_eq!(tx.task_instance(rows[0].id).await.unwrap(), None);
    assert_eq!(tx.asset_references("n", None).await.unwrap(), [reference(&kept.dag_id)]);
    let xcoms = tx.xcoms(&gust_ports::metastore::XComFilter::default(), 10, 0).await.unwrap();
    assert_eq!(xcoms.total, 1);
    assert_eq!(xcoms.items[0].dag_id, kept.dag_id);
    assert_eq!(tx.dag(&kept.dag_id).await.unwrap(), Some(kept.clone()));
    assert_eq!(tx.dag_versions(&kept.dag_id).await.unwrap(), [version(&kept)]);
    assert_eq!(tx.dag_run_by_id(kept_run.id).await.unwrap(), Some(kept_run));
    assert_eq!(tx.task_instance(rows[1].id).await.unwrap().as_ref(), Some(&rows[1]));
}

async fn versions_newest_first(backend: &Backend) {
    let record = dag("d");
    put_dag(backend, &record).await;
    let first = version(&record);
    let numbered = |number| DagVersion {
        id: DagVersionId(id()),
        version_number: number,
        bundle_version: None,
        ..first.clone()
    };
    let (second, tenth) = (numbered(2), numbered(10));
    let mut tx = backend.write().await;
    tx.insert_dag_version(&tenth).await.unwrap();
    tx.insert_dag_version(&second).await.unwrap();
    assert_eq!(tx.dag_versions(&record.dag_id).await.unwrap(), [tenth.clone(), second, first]);
    assert_eq!(tx.dag_version(tenth.id).await.unwrap(), Some(tenth));
    assert_eq!(tx.dag_version(DagVersionId(id())).await.unwrap(), None);
}

async fn two_versions_of_one_number_clash(backend: &Backend) {
    let record = dag("d");
    put_dag(backend, &record).await;
    let mut tx = backend.write().await;
    let again = DagVersion { id: DagVersionId(id()), ..version(&record) };
    assert!(matches!(tx.insert_dag_version(&again).await, Err(MetastoreError::Exists(_))));
}

async fn a_serialized_dag_stays_as_first_stored(backend: &Backend) {
    let mut tx = backend.write().await;
    let json = r#"{"b": 1,  "a": "ü ✓"}"#;
    tx.put_serialized_dag("hash", json).await.unwrap();
    tx.put_serialized_dag("hash", "{}").await.unwrap();
    assert_eq!(tx.serialized_dag("hash").await.unwrap().as_deref(), Some(json));
    assert_eq!(tx.serialized_dag("none").await.unwrap(), None);
}

async fn import_errors_are_replaced_by_file(backend: &Backend) {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let mut tx = backend.write().await;
    tx.replace_import_errors(&"b".into(), "f.py", &texts(&["one", "two ü"]), at(1)).await.unwrap();
    tx.replace_import_errors(&"b".into(), "g.py", &texts(&["other"]), at(2)).await.unwrap();
    tx.replace_import_errors(&"c".into(), "f.py", &texts(&["elsewhere"]), at(3)).await.unwrap();
    let all = tx.import_errors(10, 0).await.unwrap();
    assert_eq!(all.total, 4);
    let newest = &all.items[0];
    assert_eq!(
        (
            newest.bundle_name.as_str(),
            newest.filename.as_str(),
            newest.stack_trace.as_str(),
            newest.timestamp
        ),
        ("c", "f.py", "elsewhere", at(3))
    );
    tx.replace_import_errors(&"b".into(), "f.py", &texts(&["new"]), at(4)).await.unwrap();
    tx.replace_import_errors(&"b".into(), "g.py", &[], at(5)).await.unwrap();
    let left = tx.import_errors(10, 0).await.unwrap().items;
    assert_eq!(left.iter().map(|e| e.stack_trace.as_str()).collect::<Vec<_>>(), ["new", "elsewhere"]);
    assert!(left[0].id > all.items.iter().map(|e| e.id).max().unwrap(), "ids grow");
}

async fn import_errors_in_pages_newest_first(backend: &Backend) {
    let mut tx = backend.write().await;
    for n in [2, 1, 3] {
        let text = [n.to_string()];
        tx.replace_import_errors(&"b".into(), &format!("{n}.py"), &text, at(n)).await.unwrap();
    }
    let page = tx.import_errors(2, 1).await.unwrap();
    assert_eq!(page.total, 3);
    assert_eq!(page.items.iter().map(|e| e.stack_trace.as_str()).collect::<Vec<_>>(), ["2", "1"]);
}

async fn import_errors_of_files_that_are_gone(backend: &Backend) {
    let mut tx = backend.write().await;
    let text = ["x".to_owned()];
    for (bundle, file) in [("b", "f"), ("b", "g"), ("c", "g")] {
        tx.replace_import_errors(&bundle.into(), file, &text, at(1)).await.unwrap();
    }
    tx.keep_import_errors_of(&"b".into(), &["f".to_owned(), "h".to_owned()]).await.unwrap();
    let mut left: Vec<String> = tx
        .import_errors(9, 0)
        .await
        .unwrap()
        .items
        .iter()
        .map(|e| format!("{}/{}", e.bundle_name, e.filename))
        .collect();
    left.sort();
    assert_eq!(left, ["b/f", "c/g"]);
    tx.keep_import_errors_of(&"b".into(), &[]).await.unwrap();
    assert_eq!(tx.import_errors(9, 0).await.unwrap().total, 1);
}

async fn current_version_of_a_bundle(backend: &Backend) {
    let mut tx = backend.write().await;
    assert_eq!(tx.current_bundle_version(&"b".into()).await.unwrap(), None);
    for version in ["v1", "v2"] {
        tx.set_current_bundle_version(&"b".into(), &version.into(), at(1)).await.unwrap();
        assert_eq!(tx.current_bundle_version(&"b".into()).await.unwrap(), Some(version.into()));
    }
    assert_eq!(tx.current_bundle_version(&"c".into()).await.unwrap(), None);
}

async fn bundle_versions_in_use_are_those_of_dags_and_unfinished_runs(backend: &Backend) {
    let of = |name: &str, bundle: &str, version: Option<&str>| DagRecord {
        bundle_name: bundle.into(),
        bundle_version: version.map(BundleVersion::from),
        ..dag(name)
    };
    let current = of("current", "x", Some("v3"));
    let stale = DagRecord { is_stale: true, ..of("stale", "x", Some("v0")) };
    for record in [&current, &stale, &of("unversioned", "x", None), &of("other", "y", Some("w"))] {
        put_dag(backend, record).await;
    }
    let in_state = |day, state, version: Option<&str>| DagRun {
        state,
        bundle_version: version.map(BundleVersion::from),
        ..run(&current, day)
    };
    put_runs(
        backend,
        &[
            &in_state(1, DagRunState::Running, Some("v1")),
            &in_state(2, DagRunState::Queued, Some("v2")),
            &in_state(3, DagRunState::Success, Some("old")),
            &in_state(4, DagRunState::Failed, Some("older")),
            &in_state(5, DagRunState::Running, None),
            &in_state(6, DagRunState::Running, Some("v3")),
        ],
    )
    .await;
    let mut tx = backend.read().await;
    let mut in_use = tx.bundle_versions_in_use(&"x".into()).await.unwrap();
    in_use.sort();
    assert_eq!(in_use, ["v1", "v2", "v3"]);
    assert_eq!(tx.bundle_versions_in_use(&"y".into()).await.unwrap(), ["w"]);
    assert_eq!(tx.bundle_versions_in_use(&"z".into()).await.unwrap(), Vec::<BundleVersion>::new());
}
