//! How tries end that say how.

use gust_model::TaskInstanceState as S;
use gust_ports::Wake;
use serde_json::{Value, json};

use crate::house::House;

#[tokio::test]
async fn success_leaves_a_result_a_log_and_wake_ups() {
    let Some(house) = House::open().await else { return };
    let hand = house
        .dag(
            "d",
            "",
            "@task\ndef add(**context):\n    print('hello from inside')\n    return {'n': 1, 'conf': context['dag_run'].conf}\nadd()",
        )
        .await;
    let row = house.run(&hand, "add").await;
    assert_eq!(row.state, S::Success, "{}", house.log(&row).await);
    assert!(row.is_dirty && row.lease.is_none());
    assert!(row.start_date.unwrap() <= row.end_date.unwrap());
    assert_eq!((row.hostname.as_deref(), row.pid), (Some("test-host"), Some(7)));
    assert_eq!(house.returned(&hand, "add", -1).await, json!({"n": 1, "conf": {"answer": 42}}));
    let lines = house.lines(&row).await;
    let hello = lines.iter().find(|line| line["event"] == "hello from inside").expect("stdout is in the log");
    assert_eq!((hello["logger"].as_str(), hello["level"].as_str()), (Some("task.stdout"), Some("info")));
    let wakes = house.said.wakes.lock().unwrap().clone();
    let run = Wake::Run { dag_id: "d".into(), run_id: "manual__1".into(), plan: true };
    assert!(wakes.contains(&run) && wakes.contains(&Wake::Admission), "{wakes:?}");
    let fields =
        house.write().await.rendered_fields(row.id).await.unwrap().expect("rendered fields are kept");
    assert!(fields.get("op_args").is_some(), "{fields}");
}

#[tokio::test]
async fn a_hint_that_is_old_or_claimed_already_runs_nothing() {
    let Some(house) = House::open().await else { return };
    let hand = house.dag("d", "", "@task\ndef t():\n    pass\nt()").await;
    let message = house.queue(&hand, "t", -1).await;
    let limits = gust_worker::Limits::default();
    assert!(house.worker.run(message, &limits).await.unwrap());
    assert!(!house.worker.run(message, &limits).await.unwrap());
    let fresh = house.queue(&hand, "t", -1).await;
    assert!(!house.worker.run(message, &limits).await.unwrap());
    assert!(house.worker.run(fresh, &limits).await.unwrap());
}

#[tokio::test]
async fn failure_is_tried_again_while_tries_are_left_and_keeps_each_try() {
    let Some(house) = House::open().await else { return };
    let body = "@task(retries=1, retry_delay=datetime.timedelta(seconds=30))\n\
                def bad(**context):\n    raise ValueError(f\"no luck in try {context['ti'].try_number}\")\n\
                @task(retries=3)\ndef for_good():\n    raise AirflowFailException('enough')\n\
                bad(); for_good()";
    let hand = house.dag("d", "", body).await;
    let row = house.run(&hand, "bad").await;
    assert_eq!(row.state, S::UpForRetry, "{}", house.log(&row).await);
    let wait = row.due_at.unwrap() - row.end_date.unwrap();
    assert_eq!(wait.num_seconds(), 30);
    let lines = house.lines(&row).await;
    let failed =
        lines.iter().find(|line| line.get("error_detail").is_some()).expect("a traceback is in the log");
    assert!(failed.to_string().contains("no luck in try 1"), "{failed}");
    let last = house.run(&hand, "bad").await;
    assert_eq!((last.state, last.try_number), (S::Failed, 2));
    let tries = house.write().await.tries(last.id).await.unwrap();
    assert_eq!(tries.iter().map(|t| (t.try_number, t.state)).collect::<Vec<_>>(), [(1, S::Failed)]);
    assert!(house.log(&last).await.contains("no luck in try 2"));
    assert_eq!(house.run(&hand, "for_good").await.state, S::Failed);
}

#[tokio::test]
async fn skips_branches_and_short_circuits_skip_what_they_name() {
    let Some(house) = House::open().await else { return };
    let body = "@task\ndef skip():\n    raise AirflowSkipException('not today')\n\
                @task.branch\ndef branch():\n    return 'left'\n\
                @task\ndef left():\n    pass\n@task\ndef right():\n    pass\n\
                @task.short_circuit\ndef stop():\n    return False\n\
                @task\ndef after():\n    pass\n\
                skip(); branch() >> [left(), right()]; stop() >> after()";
    let hand = house.dag("d", "", body).await;
    for task in ["left", "right", "after"] {
        house.row(&hand, task, -1).await;
    }
    assert_eq!(house.run(&hand, "skip").await.state, S::Skipped);
    assert_eq!(house.run(&hand, "branch").await.state, S::Success);
    assert_eq!(house.row(&hand, "left", -1).await.state, S::None);
    let right = house.row(&hand, "right", -1).await;
    assert_eq!(right.state, S::Skipped);
    assert!(right.is_dirty);
    let key = house.xcom(&hand, "branch", -1, "skipmixin_key").await.expect("the mixin's key is pushed");
    assert_eq!(key.value, json!({"followed": ["left"]}));
    assert_eq!(house.run(&hand, "stop").await.state, S::Success);
    assert_eq!(house.row(&hand, "after", -1).await.state, S::Skipped);
}

#[tokio::test]
async fn values_travel_between_tasks_mapped_and_not() {
    let Some(house) = House::open().await else { return };
    let body = "@task\ndef make():\n    return [1, 2, 3]\n\
                @task\ndef double(x):\n    return 2 * x\n\
                @task\ndef total(xs):\n    return [sum(xs), len(xs), xs[-1], list(xs[1:])]\n\
                @task\ndef pull(**context):\n    ti = context['ti']\n    ti.xcom_push('mine', 'own')\n    return {\n\
                \x20       'one': ti.xcom_pull(task_ids='make'),\n\
                \x20       'own': ti.xcom_pull(task_ids='pull', key='mine'),\n\
                \x20       'none': ti.xcom_pull(task_ids='make', key='nothing'),\n\
                \x20       'mapped': list(ti.xcom_pull(task_ids='double')),\n\
                \x20       'at': ti.xcom_pull(task_ids='double', map_indexes=1),\n\
                \x20       'prior': ti.xcom_pull(task_ids='make', include_prior_dates=True),\n\
                \x20   }\n\
                made = make(); doubled = double.expand(x=made); total(doubled); pull()";
    let hand = house.dag("d", "", body).await;
    let made = house.run(&hand, "make").await;
    assert_eq!(made.state, S::Success, "{}", house.log(&made).await);
    let pushed = house.xcom(&hand, "make", -1, "return_value").await.unwrap();
    assert_eq!(pushed.mapped_length, Some(3));
    for index in 0..3 {
        let row = house.run_at(&hand, "double", index).await;
        assert_eq!(row.state, S::Success, "{}", house.log(&row).await);
        assert_eq!(house.returned(&hand, "double", index).await, json!(2 * (index + 1)));
    }
    let row = house.run(&hand, "total").await;
    assert_eq!(row.state, S::Success, "{}", house.log(&row).await);
    assert_eq!(house.returned(&hand, "total", -1).await, json!([12, 3, 6, [4, 6]]));
    let row = house.run(&hand, "pull").await;
    assert_eq!(row.state, S::Success, "{}", house.log(&row).await);
    let pulled = house.returned(&hand, "pull", -1).await;
    assert_eq!(pulled["one"], json!([1, 2, 3]));
    assert_eq!(pulled["own"], "own");
    assert_eq!(pulled["none"], Value::Null);
    assert_eq!(pulled["mapped"], json!([2, 4, 6]));
    assert_eq!(pulled["at"], 4);
    assert_eq!(pulled["prior"], json!([1, 2, 3]));
}

#[tokio::test]
async fn a_new_try_begins_without_the_xcoms_of_the_one_before() {
    let Some(house) = House::open().await else { return };
    let body = "@task(retries=2)\ndef t(**context):\n    ti = context['ti']\n\
                \x20   if ti.try_number == 1:\n        ti.xcom_push('left', 'over')\n        raise ValueError('again')\n\
                \x20   return ti.xcom_pull(task_ids='t', key='left')\nt()";
    let hand = house.dag("d", "", body).await;
    assert_eq!(house.run(&hand, "t").await.state, S::UpForRetry);
    assert!(
        house.xcom(&hand, "t", -1, "left").await.is_some(),
        "a failed try's values are kept until the next"
    );
    assert_eq!(house.run(&hand, "t").await.state, S::Success);
    assert!(house.xcom(&hand, "t", -1, "left").await.is_none());
}

#[tokio::test]
async fn variables_and_connections_are_opened_for_the_task_and_hidden_in_its_log() {
    let Some(house) = House::open().await else { return };
    house.variable("plain", "nothing special").await;
    house.variable("api_key", "k3y-material").await;
    house.connection("db", "pa55word!", r#"{"token": "t0ken-in-extra", "region": "here"}"#).await;
    let body = "@task\ndef t():\n    c = Connection.get('db')\n    print('seen', Variable.get('plain'), Variable.get('api_key'), c.password, c.extra_dejson['token'])\n\
                \x20   sys.stdout.write('cut pa55'); sys.stdout.flush(); time.sleep(0.05); sys.stdout.write('word! end\\n')\n\
                \x20   import logging; logging.getLogger('my').warning('logged %s', c.password)\n\
                \x20   Variable.set('written', 'by a task'); Variable.delete('plain')\n\
                \x20   return [Variable.get('written'), Variable.get('plain', default='gone'), c.host, c.login]\nt()";
    let hand = house.dag("d", "", body).await;
    let row = house.run(&hand, "t").await;
    let log = house.log(&row).await;
    assert_eq!(row.state, S::Success, "{log}");
    assert_eq!(house.returned(&hand, "t", -1).await, json!(["by a task", "gone", "example.com", "me"]));
    for secret in ["pa55word!", "k3y-material", "t0ken-in-extra"] {
        assert!(!log.contains(secret), "{secret} is in {log}");
    }
    assert!(log.contains("seen nothing special *** *** ***"), "{log}");
    assert!(log.contains("cut *** end") && log.contains("logged ***"), "{log}");
}

#[tokio::test]
async fn a_task_triggers_a_run_and_is_told_when_it_is_there_already() {
    let Some(house) = House::open().await else { return };
    house.dag("other", "", "@task\ndef t():\n    pass\nt()").await;
    let body = "from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator\n\
                TriggerDagRunOperator(task_id='go', trigger_dag_id='other', trigger_run_id='mine', conf={'x': 1})\n\
                TriggerDagRunOperator(task_id='again', trigger_dag_id='other', trigger_run_id='mine', skip_when_already_exists=True)";
    let hand = house.dag("d", "", body).await;
    let row = house.run(&hand, "go").await;
    assert_eq!(row.state, S::Success, "{}", house.log(&row).await);
    let run =
        house.write().await.dag_run(&"other".into(), &"mine".into()).await.unwrap().expect("a run is there");
    assert_eq!((run.conf, run.state), (json!({"x": 1}), gust_model::DagRunState::Queued));
    let row = house.run(&hand, "again").await;
    assert_eq!(row.state, S::Skipped, "{}", house.log(&row).await);
}

#[tokio::test]
async fn a_big_log_is_shipped_whole_and_in_order() {
    let Some(house) = House::with(
        |config| config.log_chunk_bytes = 64 * 1024,
        std::sync::Arc::new(gust_ports::memory::NoFaults),
    )
    .await
    else {
        return;
    };
    let hand = house
        .dag(
            "d",
            "",
            "@task\ndef t():\n    for i in range(20000):\n        print(f'line {i} ' + 'x' * 50)\nt()",
        )
        .await;
    let row = house.run(&hand, "t").await;
    assert_eq!(row.state, S::Success);
    let numbers: Vec<usize> = house
        .lines(&row)
        .await
        .iter()
        .filter(|line| line["logger"] == "task.stdout")
        .filter_map(|line| line["event"].as_str()?.split(' ').nth(1)?.parse().ok())
        .collect();
    assert_eq!(numbers.len(), 20_000);
    assert!(numbers.is_sorted());
}
