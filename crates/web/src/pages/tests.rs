//! Every page over a seeded site: it is there, it is small, and what authors write stays text.

#[path = "../../tests/seed/mod.rs"]
mod seed;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
};
use gust_ports::{
    Cipher, CipherError, Clock, RandomIds, SystemClock,
    memory::{MemoryMetastore, MemoryObjectStore, MemoryWakeups},
    metastore::{Page, TaskInstanceFilter, TxMode},
};
use seed::{HOSTILE, Seeder};
use serde_json::Value;
use tower::ServiceExt as _;

use super::urls;
use crate::{AppState, Auth, AuthMode, Settings};

struct NoCipher;

impl Cipher for NoCipher {
    fn seal(&self, _place: &str, plain: &str) -> Result<String, CipherError> {
        Ok(plain.to_owned())
    }

    fn open(&self, _place: &str, sealed: &str) -> Result<String, CipherError> {
        Ok(sealed.to_owned())
    }
}

struct Site {
    router: Router,
    seeder: Seeder,
}

async fn site(dags: &[Value]) -> Site {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let seeder = Seeder {
        metastore: Arc::new(MemoryMetastore::new(Arc::clone(&clock))),
        objects: Arc::new(MemoryObjectStore::new()),
        ids: Arc::new(RandomIds),
        now: seed::now(),
    };
    seeder.site(dags).await;
    let state = AppState::new(
        Arc::clone(&seeder.metastore),
        Arc::clone(&seeder.objects),
        Arc::new(MemoryWakeups::new(16)),
        Arc::new(RandomIds),
        clock,
        Arc::new(NoCipher),
        Auth::new(AuthMode::AllAdmins, &[7; 32]).unwrap(),
        Settings::default(),
    );
    Site { router: crate::router(state), seeder }
}

struct Answer {
    status: StatusCode,
    policy: String,
    text: String,
}

fn token() -> String {
    let auth = Auth::new(AuthMode::AllAdmins, &[7; 32]).unwrap();
    auth.token("tester", crate::Role::Admin, seed::now()).unwrap()
}

impl Site {
    async fn get(&self, path: &str, accept: &str) -> Answer {
        let request = Request::get(path)
            .header(header::HOST, "localhost")
            .header(header::ACCEPT, accept)
            .header(header::AUTHORIZATION, format!("Bearer {}", token()))
            .body(Body::empty())
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let policy = response
            .headers()
            .get(header::CONTENT_SECURITY_POLICY)
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        Answer { status, policy, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    async fn html(&self, path: &str) -> Answer {
        self.get(path, "text/html").await
    }

    /// Every page that a site has: one of each kind, for each DAG, run and task instance up to a few.
    async fn all_pages(&self, dag_id: &str) -> Vec<String> {
        let mut paths: Vec<String> =
            ["/", "/import-errors", "/pools", "/variables", "/connections", "/assets", "/health"]
                .map(str::to_owned)
                .to_vec();
        let dag = urls::dag(dag_id);
        for tab in ["", "?tab=graph", "?tab=runs", "?tab=details", "/trigger-dialog"] {
            paths.push(format!("{dag}{tab}"));
        }
        let mut tx = self.seeder.metastore.begin(TxMode::Read).await.unwrap();
        let runs = tx.newest_dag_runs(&[dag_id.into()], 3).await.unwrap();
        for run in runs {
            let here = urls::run(dag_id, run.run_id.as_str());
            for tab in [
                "",
                "?tab=graph",
                "?tab=details",
                "/note-dialog",
                "/clear-dialog",
                "/mark-dialog?state=failed",
            ] {
                paths.push(format!("{here}{tab}"));
            }
            let filter = TaskInstanceFilter { dag_run_ids: vec![run.id], ..TaskInstanceFilter::default() };
            for row in tx.task_instances(&filter, &Page::first(12)).await.unwrap().items {
                let task = urls::task(dag_id, run.run_id.as_str(), row.task_id.as_str());
                paths.push(task.clone());
                for tab in ["", "xcom", "rendered", "details"] {
                    let index =
                        if row.map_index.is_mapped() { row.map_index.to_string() } else { String::new() };
                    paths.push(format!("{task}{}", urls::query(&[("map_index", &index), ("tab", tab)])));
                }
                paths.push(format!("{task}/clear-dialog"));
                paths.push(format!("{task}/mark-dialog?state=success"));
            }
        }
        paths
    }
}

#[tokio::test]
async fn every_page_is_there_small_and_without_inline_code() {
    let dags = seed::dags();
    let site = site(&dags).await;
    for dag in ["example_complex", "example_task_group_mapping", "example_nested_branch_dag", "tutorial"] {
        for path in site.all_pages(dag).await {
            let answer = site.html(&path).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
            assert!(answer.text.len() < 300_000, "{path} has {} bytes", answer.text.len());
            for inline in [" style=", " onclick=", "<style", "<script>"] {
                assert!(!answer.text.contains(inline), "{path} holds {inline}");
            }
            if !path.contains("-dialog") {
                assert!(answer.policy.starts_with("default-src 'none'; script-src 'self'"), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn texts_of_authors_never_become_markup() {
    let site = site(&[seed::hostile_dag()]).await;
    let pages = site.all_pages(HOSTILE).await;
    assert!(pages.len() > 40, "{}", pages.len());
    let mut seen = 0;
    for path in pages {
        let answer = site.html(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        for markup in ["<script>alert", "<img", "\"'&<", "onerror=alert(2)>"] {
            assert!(!answer.text.contains(markup), "{path} holds {markup}");
        }
        seen += answer.text.matches("&lt;script&gt;alert(1)&lt;/script&gt;&quot;").count();
    }
    assert!(seen > 100, "the texts are shown {seen} times");
}

#[tokio::test]
async fn a_script_gets_the_content_alone_and_a_browser_the_whole_page() {
    let site = site(&seed::dags()[..1]).await;
    let whole = site.html("/").await.text;
    let part = site.get("/", "text/fragment").await.text;
    assert!(whole.starts_with("<!DOCTYPE html>") && whole.contains("<main"));
    assert!(!part.contains("<html") && !part.contains("<main"));
    assert!(whole.contains("example_complex") && part.contains("example_complex"));
}

#[tokio::test]
async fn ten_thousand_mapped_instances_are_counted_and_paged() {
    let mut dags = seed::dags();
    dags.retain(|dag| {
        dag.pointer("/dag/dag_id").and_then(Value::as_str) == Some("example_dynamic_task_mapping")
    });
    let site = site(&dags).await;
    site.seeder.many_mapped(10_000).await;
    for path in [
        "/dags/example_dynamic_task_mapping",
        "/dags/example_dynamic_task_mapping/runs/manual__many",
        "/dags/example_dynamic_task_mapping/runs/manual__many/tasks/add_one",
    ] {
        let answer = site.html(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert!(answer.text.contains("200 failed"), "{path}");
        assert!(answer.text.len() < 100_000, "{path} has {} bytes", answer.text.len());
    }
}

#[tokio::test]
async fn the_log_of_a_try_that_is_over_comes_whole_and_ends() {
    let site = site(&seed::dags()[..1]).await;
    let mut tx = site.seeder.metastore.begin(TxMode::Read).await.unwrap();
    let filter = TaskInstanceFilter {
        states: vec![gust_model::TaskInstanceState::Failed],
        ..TaskInstanceFilter::default()
    };
    let row = tx.task_instances(&filter, &Page::first(1)).await.unwrap().items.remove(0);
    drop(tx);
    let task = urls::task(row.dag_id.as_str(), row.run_id.as_str(), row.task_id.as_str());
    let stream = site.get(&format!("{task}/log-events?try=1"), "text/event-stream").await;
    let events: Vec<&str> = stream.text.split("\n\n").filter(|event| !event.is_empty()).collect();
    assert!(events[0].contains("event: lines") && events[0].contains("the upstream table is empty"));
    assert!(events.last().unwrap().contains("event: end"), "{}", stream.text);
    // A browser does not tell its page of an event without data.
    assert!(
        events.iter().all(|event| event.lines().any(|line| line.starts_with("data: "))),
        "{}",
        stream.text
    );
    let position = events[0].lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
    let rest = site.get(&format!("{task}/log-events?try=1&after={position}"), "text/event-stream").await;
    assert!(!rest.text.contains("event: lines") && rest.text.contains("event: end"));
}

#[tokio::test]
async fn a_run_shows_the_tasks_in_one_state() {
    let site = site(&seed::dags()[..1]).await;
    let mut tx = site.seeder.metastore.begin(TxMode::Read).await.unwrap();
    let filter = TaskInstanceFilter {
        states: vec![gust_model::TaskInstanceState::Failed],
        ..TaskInstanceFilter::default()
    };
    let row = tx.task_instances(&filter, &Page::first(1)).await.unwrap().items.remove(0);
    drop(tx);
    let run = urls::run(row.dag_id.as_str(), row.run_id.as_str());
    let rows = |text: &str| text.matches("<tr data-key=").count();
    let all = site.html(&run).await.text;
    let failed = site.html(&format!("{run}?state=failed")).await.text;
    assert!(failed.contains(&format!("<tr data-key=\"{}\"", row.task_id)), "{failed}");
    assert!(rows(&failed) > 0 && rows(&failed) < rows(&all), "{} of {}", rows(&failed), rows(&all));
    let none = site.html(&format!("{run}?state=awaiting_input")).await.text;
    assert!(rows(&none) == 0 && none.contains("No task is in this state now."), "{none}");
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let site = site(&seed::dags()[..1]).await;
    for path in ["/dags/nope", "/dags/example_complex/runs/nope", "/static/nope.js"] {
        assert_eq!(site.html(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}
