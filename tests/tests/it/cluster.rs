//! Several processes on one PostgreSQL, and the death of some.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use gust_metastore::testing::postgres_url;
use gust_tests::{House, Rest, Service, eventually, mint_token, python};
use serde_json::Value;

use crate::ledger;

const SECRET: &str = "a secret that only this test's servers know: 7d0c2f";
const RANDOM_DAGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/random_dags");
const RANDOM_STATES: &str = include_str!("../../fixtures/random_dag_states.json");
/// How many random DAGs run before anything is killed.
const RANDOM: usize = 24;

struct Cluster {
    schedulers: Vec<Service>,
    workers: Vec<Service>,
    rest: Rest,
    _others: Vec<Service>,
}

impl Cluster {
    async fn start(house: &House, python: &Path) -> Self {
        house.run_well(["db", "migrate"]);
        let python = python.to_str().unwrap();
        let dags = house.dags();
        let port = free_port().to_string();
        let mut web = house.start("web", ["web", "--port", &port]);
        let rest = Rest::with_token(&format!("http://127.0.0.1:{port}"), &mint_token(SECRET.as_bytes()));
        let processor = ["dag-processor", "--dags", dags.to_str().unwrap(), "--python", python];
        let others = vec![house.start("dag-processor", processor)];
        let schedulers = (0..2).map(|n| house.start(&format!("scheduler{n}"), ["scheduler"])).collect();
        let worker = ["worker", "--concurrency", "4", "--python", python];
        let workers = (0..2)
            .map(|n| {
                let name = format!("worker{n}");
                let mut command = house.command(worker);
                Service::start(
                    &name,
                    command.env("E2E_WORKER", n.to_string()),
                    house.file(&format!("{name}.out")),
                )
            })
            .collect();
        eventually("every component is healthy", Duration::from_mins(1), async || {
            web.check();
            let health = rest.call(reqwest::Method::GET, "/api/v2/monitor/health", None).await.ok()?;
            let parts = ["metadatabase", "scheduler", "dag_processor"];
            parts.iter().all(|part| health[part]["status"] == "healthy").then_some(())
        })
        .await;
        let mut others = others;
        others.push(web);
        Self { schedulers, workers, rest, _others: others }
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn house_on(url: &str) -> House {
    House::on(url)
        .set("AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION", "False")
        .set("AIRFLOW__API_AUTH__JWT_SECRET", SECRET)
        // A dead worker is noticed within this time, in seconds.
        .set("AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT", "10")
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_share_one_postgresql_and_survive_the_death_of_some() {
    let (Some(python), Some(url)) = (python().await, postgres_url().await) else { return };
    let mut house = house_on(&url);
    let ledger = house.file("ledger.jsonl");
    house = house.with_dag("ledger.py", &ledger::dags(&ledger));
    let states: Value = serde_json::from_str(RANDOM_STATES).unwrap();
    let random: Vec<&String> = states.as_object().unwrap().keys().take(RANDOM).collect();
    for id in &random {
        let file: PathBuf = Path::new(RANDOM_DAGS).join(format!("{id}.py"));
        house = house.with_dag(&format!("{id}.py"), &std::fs::read_to_string(file).unwrap());
    }
    let mut cluster = Cluster::start(&house, &python).await;
    let rest = cluster.rest.clone();
    let mut ids: Vec<&str> = random.iter().map(|id| id.as_str()).collect();
    ids.extend(ledger::DAG_IDS);
    rest.await_dags(&ids, Duration::from_mins(2)).await;

    for id in &random {
        rest.trigger(id, "all-well", None).await.unwrap_or_else(|refused| panic!("{id}: {refused:?}"));
    }
    let mut wrong = Vec::new();
    for id in &random {
        let run = rest.await_run(id, "all-well", Duration::from_mins(3)).await;
        let expected = &states[id.as_str()];
        let got = serde_json::to_value(rest.task_states(id, "all-well").await).unwrap();
        if expected["run"] != run.as_str() || expected["tis"] != got {
            wrong.push(format!("{id}: {run} {got}, expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "runs ended otherwise than in Airflow:\n{}", wrong.join("\n"));

    let mut runs = BTreeSet::new();
    for n in 0..8 {
        for dag in ledger::DAG_IDS {
            let run = format!("run{n}");
            rest.trigger(dag, &run, None).await.unwrap_or_else(|refused| panic!("{dag}: {refused:?}"));
            runs.insert((dag.to_owned(), run));
        }
    }
    // A third of the work is done, and a worker is just at a task that takes a while.
    let victim = eventually("a worker is in the middle of its work", Duration::from_mins(2), async || {
        let is_long = |start: &Value| start["task"] == "step3" || start["task"] == "step4";
        let open = ledger::open_tries(&ledger).into_iter().find(is_long)?;
        (ledger::lines(&ledger).len() > 3 * ledger::LINES_OF_THREE_RUNS).then_some(())?;
        open["worker"].as_str()?.parse::<usize>().ok()
    })
    .await;
    cluster.workers[victim].kill();
    cluster.schedulers[0].kill();
    println!("killed worker {victim} and scheduler 0");
    for (dag, run) in &runs {
        rest.await_run(dag, run, Duration::from_mins(3)).await;
    }
    let interrupted = ledger::open_tries(&ledger);
    println!("{} tries were interrupted", interrupted.len());
    assert!(!interrupted.is_empty(), "no try was interrupted, so nothing was tested");
    let killed = victim.to_string();
    assert!(interrupted.iter().all(|start| start["worker"] == killed.as_str()), "{interrupted:?}");
    for worker in ["0", "1"] {
        let did_some = ledger::lines(&ledger).iter().any(|line| line["worker"] == worker);
        assert!(did_some, "worker {worker} was given nothing");
    }
    let wrong = ledger::audit(&rest, &ledger, &runs).await;
    assert!(wrong.is_empty(), "{} things are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cluster.schedulers[1].stop(Duration::from_secs(30)).await.success());
    assert!(cluster.workers[1 - victim].stop(Duration::from_secs(30)).await.success());
}
