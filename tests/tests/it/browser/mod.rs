//! The pages in a real browser, against a real `gust standalone`.

mod driver;

use std::{env, fs, path::Path, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use driver::Browser;
use gust_tests::{Gust, House, Options, eventually, python};
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

/// `talk` waits at two gates; `other` finds the one place taken meanwhile; `say` follows both.
const WATCHED: &str = r#"
import os
import time

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Param, dag, task


def wait_for(gate):
    while not os.path.exists(gate):
        time.sleep(0.05)


@dag(schedule=None, params={"name": Param("world", type="string"), "reason": Param(type="string")})
def watched():
    @task(priority_weight=100)
    def talk(params=None):
        print("before the gate <b>&amp;")
        wait_for("@GATE@1")
        print("behind the gate")
        wait_for("@GATE@2")
        return {"greeting": f"hello {params['name']} <script>"}

    @task
    def other():
        pass

    [talk(), other()] >> BashOperator(task_id="say", bash_command="echo 'it is {{ params.name }}'")


watched()
"#;

/// Puts a mark on the page that a reload would wipe away.
const MARK: &str = "window.isTheSamePage = true";

async fn assert_not_reloaded(browser: &Browser) {
    assert_eq!(
        browser.run("return window.isTheSamePage === true").await,
        json!(true),
        "the page was reloaded"
    );
}

async fn assert_no_complaints(browser: &Browser, when: &str) {
    let complaints = browser.complaints().await;
    assert!(complaints.is_empty(), "the browser complained {when}: {complaints:#?}");
}

fn cell(run: &str, task: &str, state: &str) -> String {
    format!("table.grid td a.s-{state}[href$='/runs/{run}/tasks/{task}']")
}

#[tokio::test]
async fn a_person_triggers_watches_reads_and_clears() {
    let Some(browser) = Browser::start(1280, 900).await else { return };
    let Some(python) = python().await else { return };
    let mut house = House::new();
    let gate = house.file("gate");
    house = house.with_dag("watched.py", &WATCHED.replace("@GATE@", gate.to_str().unwrap()));
    let gust = Gust::start(&house, &python, &Options { concurrency: Some(1) }).await;
    gust.rest.await_dags(&["watched"], SOON).await;
    let base = &gust.rest.base;

    unpause_and_trigger(&browser, &gust).await;
    assert_no_complaints(&browser, "on the list and in the dialog").await;

    let grid = format!("{base}/dags/watched");
    browser.open(&grid).await;
    browser.run(MARK).await;
    browser.wait_element(&cell("seen", "talk", "running")).await;
    browser.wait_element(&cell("seen", "other", "queued")).await;

    browser.click(&cell("seen", "talk", "running")).await;
    read_a_log_while_it_is_written(&browser, &gate).await;
    assert_no_complaints(&browser, "on the page of a running task").await;

    browser.open(&grid).await;
    browser.run(MARK).await;
    browser.wait_element(&cell("seen", "talk", "running")).await;
    fs::write(gate.with_file_name("gate2"), "").unwrap();
    for task in ["talk", "other", "say"] {
        browser.wait_element(&cell("seen", task, "success")).await;
    }
    browser.wait_element("table.grid thead .run svg.s-success").await;
    assert_not_reloaded(&browser).await;

    let talk = format!("{grid}/runs/seen/tasks/talk");
    browser.open(&format!("{talk}?tab=xcom")).await;
    assert!(browser.text("main").await.contains(r#""greeting": "hello gust <script>""#));
    browser.open(&format!("{grid}/runs/seen/tasks/say?tab=rendered")).await;
    assert!(browser.text("main").await.contains("echo 'it is gust'"));
    assert_no_complaints(&browser, "on the tabs of a task").await;

    browser.open(&talk).await;
    clear_and_see_it_run_again(&browser).await;
    assert_eq!(gust.rest.await_run("watched", "seen", SOON).await, "success");
    assert_no_complaints(&browser, "while a task was cleared").await;

    browser.open(&grid).await;
    watch_a_run_from_its_first_moment(&browser, &gust, &gate).await;
    assert_no_complaints(&browser, "while a run was watched").await;
}

async fn unpause_and_trigger(browser: &Browser, gust: &Gust) {
    browser.open(&gust.rest.base).await;
    browser.click("tr[data-key='watched'] button.switch").await;
    eventually("the DAG is unpaused", SOON, async || {
        (gust.rest.get("/api/v2/dags/watched").await["is_paused"] == false).then_some(())
    })
    .await;
    browser.wait_element("tr[data-key='watched'] button.switch[aria-checked='true']").await;
    browser.click("button[aria-label='Trigger watched']").await;
    let conf = "dialog[open] textarea[name=conf]";
    browser.wait_element(conf).await;
    let offered = browser.run(&format!("return document.querySelector({}).value", json!(conf))).await;
    let offered: serde_json::Value = serde_json::from_str(offered.as_str().unwrap()).unwrap();
    assert_eq!(offered, json!({"name": "world"}), "what has no default is not made up");
    assert!(browser.text("dialog[open]").await.contains("reason (string)"), "but it is asked for");
    browser.click("dialog[open] button[type=submit]").await;
    browser.wait("document.querySelector('dialog[open] output.error:not([hidden])')?.textContent.includes('reason')").await;
    // The refusal is an error to the browser as well, as every answer with such a status is.
    let refused = browser.complaints().await;
    assert!(refused.iter().all(|complaint| complaint.contains("/dagRuns")), "{refused:#?}");
    browser.fill(conf, r#"{"name": "gust", "reason": "to see"}"#).await;
    browser.fill("dialog[open] input[name=dag_run_id]", "seen").await;
    browser.click("dialog[open] button[type=submit]").await;
    browser.wait("location.pathname === '/dags/watched/runs/seen'").await;
}

async fn read_a_log_while_it_is_written(browser: &Browser, gate: &Path) {
    let shows = |text: &str| format!("document.querySelector('.log')?.textContent.includes({})", json!(text));
    browser.wait(&shows("before the gate <b>&amp;")).await;
    assert_eq!(browser.run("return document.querySelectorAll('.log b').length").await, json!(0), "no markup");
    assert_eq!(browser.run(&format!("return {}", shows("behind the gate"))).await, json!(false));
    browser.run(MARK).await;
    fs::write(gate.with_file_name("gate1"), "").unwrap();
    browser.wait(&shows("behind the gate")).await;
    assert_not_reloaded(browser).await;
    browser.wait_element(".head .badge.s-running").await;
    browser.fill("[data-log-search]", "behind THE").await;
    browser.wait("document.querySelector('[data-log-count]').textContent === '1 line'").await;
    let visible =
        "return [...document.querySelectorAll('.log .l')].filter((line) => line.checkVisibility()).length";
    assert_eq!(browser.run(visible).await, json!(1), "other lines are hidden");
}

/// The page is open before the run is there: each state has to come by itself.
async fn watch_a_run_from_its_first_moment(browser: &Browser, gust: &Gust, gate: &Path) {
    browser.run(MARK).await;
    for name in ["gate1", "gate2"] {
        fs::remove_file(gate.with_file_name(name)).unwrap();
    }
    gust.rest.trigger("watched", "again", Some(&json!({"reason": "to see more"}))).await.unwrap();
    browser.wait_element(&cell("again", "talk", "running")).await;
    browser.wait_element(&cell("again", "other", "queued")).await;
    browser.wait_element(&cell("again", "say", "none")).await;
    for name in ["gate1", "gate2"] {
        fs::write(gate.with_file_name(name), "").unwrap();
    }
    for task in ["talk", "other", "say"] {
        browser.wait_element(&cell("again", task, "success")).await;
    }
    assert_not_reloaded(browser).await;
}

async fn clear_and_see_it_run_again(browser: &Browser) {
    browser.wait("document.querySelector('.log')?.textContent.includes('End of log.')").await;
    browser.run(MARK).await;
    browser.click(".actions button[data-dialog-url*='clear-dialog']").await;
    browser.wait("document.querySelector('dialog[open] .preview')?.textContent.includes('say')").await;
    browser.click("dialog[open] button[type=submit]").await;
    browser.wait_element("[data-key='log-2']").await;
    browser.wait("document.querySelector('[data-key=log-2]')?.textContent.includes('behind the gate')").await;
    browser.wait("document.querySelector('[data-key=log-2]')?.textContent.includes('End of log.')").await;
    browser.wait_element(".head .badge.s-success").await;
    assert!(browser.text("nav[aria-label=Tries]").await.contains("Try 2"));
    assert_not_reloaded(browser).await;
}

#[tokio::test]
async fn nothing_inline_runs_and_the_browser_would_say_so() {
    let Some(browser) = Browser::start(800, 600).await else { return };
    let Some(python) = python().await else { return };
    let house = House::new();
    let gust = Gust::start(&house, &python, &Options::default()).await;
    for page in ["/", "/import-errors", "/assets", "/pools", "/variables", "/connections", "/health"] {
        browser.open(&format!("{}{page}", gust.rest.base)).await;
        browser.wait_element("main").await;
        // The script that makes pages live shows that it runs by the clock.
        browser.wait("document.querySelector('.clock').textContent.includes('UTC')").await;
        assert_no_complaints(&browser, page).await;
    }
    browser
        .run("document.querySelector('main').insertAdjacentHTML('beforeend', '<p style=\"color: red\"><img src=\"data:,\" onerror=\"window.isBroken = true\">')")
        .await;
    let complaints = eventually("the breach is told", SOON, async || {
        Some(browser.complaints().await).filter(|complaints| !complaints.is_empty())
    })
    .await;
    assert!(
        complaints.iter().any(|complaint| complaint.contains("Content Security Policy")),
        "{complaints:#?}"
    );
    assert_eq!(browser.run("return window.isBroken === true").await, json!(false));
}

/// Not a test of its own: with `GUST_WRITE_SCREENSHOT` set it makes the picture in README.md.
#[tokio::test]
async fn the_picture_of_the_readme() {
    if env::var_os("GUST_WRITE_SCREENSHOT").is_none() {
        eprintln!("skipped: GUST_WRITE_SCREENSHOT is not set");
        return;
    }
    let Some(browser) = Browser::start(1280, 800).await else { return };
    let Some(python) = python().await else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let house = House::new().with_dags_of(&root.join("cli/src/samples"));
    let gust = Gust::start(&house, &python, &Options::default()).await;
    gust.rest.await_dags(&["hello", "fan_out", "nightly"], SOON).await;
    for dag in ["hello", "fan_out", "nightly"] {
        gust.rest.unpause(dag).await;
    }
    let trigger = async |day: u32| {
        let body = json!({"logical_date": format!("2026-11-{day:02}T03:00:00Z"), "dag_run_id": format!("night_{day:02}")});
        gust.rest.post("/api/v2/dags/nightly/dagRuns", &body).await;
    };
    for day in 2..22 {
        trigger(day).await;
        if day % 3 == 0 {
            gust.rest.await_run("nightly", &format!("night_{day:02}"), Duration::from_mins(2)).await;
        }
    }
    for day in 2..22 {
        gust.rest.await_run("nightly", &format!("night_{day:02}"), Duration::from_mins(2)).await;
    }
    browser.open(&format!("{}/dags/nightly", gust.rest.base)).await;
    trigger(22).await;
    browser.wait_element("table.grid td a.s-running[href*='night_22']").await;
    browser.wait_element("table.grid td a.s-success[href$='night_22/tasks/make_room']").await;
    let picture = BASE64_STANDARD.decode(browser.picture().await).unwrap();
    let folder = root.join("docs/images");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("dag.png"), picture).unwrap();
}
