//! `kill -9` on everything at once, at twenty random moments of a busy minute.

use std::{collections::BTreeSet, env, path::Path, time::Duration};

use gust_tests::{Gust, House, Marked, Options, Rest, Service, eventually, keep_looking, python};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;

use crate::ledger;

const KILLS: usize = 20;
/// How long a child may outlive its supervisor.
const ORPHAN: Duration = Duration::from_secs(2);
/// The earliest and latest moment of a kill after the first task of that life has begun, or after the start of the
/// process, in milliseconds.
const MOMENTS_MS: std::ops::Range<u64> = 0..3_000;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_done_twice_and_no_child_is_orphaned() {
    let Some(python) = python().await else { return };
    let seed = env::var("GUST_TEST_SEED").ok().map_or_else(
        || rand::rng().random(),
        |seed| seed.parse::<u64>().expect("GUST_TEST_SEED is a number"),
    );
    println!("GUST_TEST_SEED={seed}");
    let mut chance = StdRng::seed_from_u64(seed);

    let mark = Marked::new("kill-minus-nine");
    let (variable, value) = mark.variable();
    let house = House::new().set(variable, value).set("AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION", "False");
    let ledger = house.file("ledger.jsonl");
    let house = house.with_dag("ledger.py", &ledger::dags(&ledger));

    let mut acknowledged = BTreeSet::new();
    for life in 1..=KILLS {
        let (mut service, skip) = Gust::launch(&house, &python, &Options::default());
        let moment = Duration::from_millis(chance.random_range(MOMENTS_MS));
        // Every fifth kill falls into the start, which takes over what the last life left behind.
        let doomed = if life % 5 == 0 {
            lives_for(&mut service, moment).await;
            0
        } else {
            live(&mut service, skip, &ledger, life, moment, &mut acknowledged).await
        };
        let below = kill_and_see_all_gone(&mut service, &mark).await;
        println!("life {life}: killed with {below} processes below it, {doomed} lines written in it");
    }

    let mut gust = Gust::start(&house, &python, &Options::default()).await;
    eventually("every run ends", Duration::from_mins(5), async || {
        gust.service.check();
        for dag in ledger::DAG_IDS {
            let path = format!("/api/v2/dags/{dag}/dagRuns?state=queued&state=running&limit=1");
            if gust.rest.get(&path).await["total_entries"] != 0 {
                return None;
            }
        }
        Some(())
    })
    .await;
    let wrong = ledger::audit(&gust.rest, &ledger, &acknowledged).await;
    println!(
        "{} runs acknowledged, {} lines in the ledger",
        acknowledged.len(),
        ledger::lines(&ledger).len()
    );
    assert!(wrong.is_empty(), "{} things are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(gust.service.stop(Duration::from_mins(1)).await.success());
}

#[tokio::test]
async fn a_kill_while_python_is_being_imported_orphans_nobody() {
    let Some(python) = python().await else { return };
    let mark = Marked::new("kill-at-import");
    let (variable, value) = mark.variable();
    let house = House::new().set(variable, value);
    for _ in 0..5 {
        let (mut service, _) = Gust::launch(&house, &python, &Options::default());
        eventually("the zygote is there", Duration::from_mins(1), async || {
            service.check();
            let family = mark.family(service.pid());
            family.iter().any(|(_, _, command)| command.contains("start.py")).then_some(())
        })
        .await;
        kill_and_see_all_gone(&mut service, &mark).await;
    }
}

/// Kills a process, sees that nothing of what it started outlives it for long, and returns how many that were.
async fn kill_and_see_all_gone(service: &mut Service, mark: &Marked) -> usize {
    let pid = service.pid();
    let family = mark.family(pid);
    service.kill();
    let gone = keep_looking(ORPHAN, async || mark.survivors(pid, &family).is_empty().then_some(())).await;
    let survivors = mark.survivors(pid, &family);
    assert!(gone.is_some() || survivors.is_empty(), "two seconds later there are {survivors:?}");
    family.len().saturating_sub(1)
}

/// One life: waits for readiness, triggers, sees tasks work, and ends at its moment. Returns the lines written in it.
async fn live(
    service: &mut Service,
    skip: usize,
    ledger: &Path,
    life: usize,
    moment: Duration,
    acknowledged: &mut BTreeSet<(String, String)>,
) -> usize {
    let base = Gust::is_ready(service, skip, Duration::from_mins(1)).await.expect("it becomes ready");
    let rest = Rest::open(&base).await;
    if life == 1 {
        rest.await_dags(&ledger::DAG_IDS, Duration::from_mins(1)).await;
    }
    let before = ledger::lines(ledger).len();
    for dag in ledger::DAG_IDS {
        for n in 0..2 {
            let run = format!("life{life}-{n}");
            rest.trigger(dag, &run, None).await.expect("a run is triggered");
            acknowledged.insert((dag.to_owned(), run));
        }
    }
    eventually("tasks begin", Duration::from_mins(1), async || {
        (ledger::lines(ledger).len() > before).then_some(())
    })
    .await;
    // More runs come in while tasks run, and one of them is under way when the end comes: whether it was taken, nobody
    // can say then.
    let trigger_on = async {
        for n in 0.. {
            let body = serde_json::json!({"logical_date": null, "dag_run_id": format!("late{life}-{n}")});
            let dag = ledger::DAG_IDS[n % ledger::DAG_IDS.len()];
            if rest.call(Method::POST, &format!("/api/v2/dags/{dag}/dagRuns"), Some(&body)).await.is_ok() {
                acknowledged.insert((dag.to_owned(), format!("late{life}-{n}")));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    // The moment is the test's input; nothing is awaited by it.
    let _ = tokio::time::timeout(moment, trigger_on).await;
    service.check();
    ledger::lines(ledger).len() - before
}

/// A life that ends at its moment, whatever it does.
async fn lives_for(service: &mut Service, moment: Duration) {
    let _ = tokio::time::timeout(moment, std::future::pending::<()>()).await;
    service.check();
}
