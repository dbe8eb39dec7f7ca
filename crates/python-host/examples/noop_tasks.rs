//! What a task that does nothing costs: `cargo run -p gust-python-host --features test-support --example noop_tasks`.
//!
//! Prints wall time and CPU of the child per task at concurrency 1 and 2, with the DAG file preparsed and without.
#![expect(clippy::unwrap_used, reason = "a measurement ends at the first surprise")]

#[path = "../tests/it/support.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod support;

use std::time::Instant;

use support::{Lab, serve};

const TASKS: usize = 100;

#[tokio::main]
async fn main() {
    println!(
        "{:<12} {:>11} {:>9} {:>8} {:>8} {:>8}",
        "DAG file", "concurrency", "wall ms", "tasks/s", "user ms", "sys ms"
    );
    for preparse in [true, false] {
        let Some(lab) = Lab::with(|config| config.preparse = preparse).await else { return };
        lab.dag("noop", "", "@task\ndef work():\n    pass\nwork()");
        serve(lab.task("noop", "work").await).await;
        for concurrency in [1, 2] {
            measure(&lab, if preparse { "preparsed" } else { "imported" }, concurrency).await;
        }
    }
}

async fn measure(lab: &Lab, label: &str, concurrency: usize) {
    let started = Instant::now();
    let lanes = (0..concurrency).map(|_| async {
        let (mut user, mut system) = (0.0, 0.0);
        for _ in 0..TASKS / concurrency {
            let story = serve(lab.task("noop", "work").await).await;
            assert_eq!(story.requests.last().unwrap().kind(), "SucceedTask");
            user += story.exited.usage.user_s;
            system += story.exited.usage.system_s;
        }
        (user, system)
    });
    let spent = futures::future::join_all(lanes).await;
    let user: f64 = spent.iter().map(|(user, _)| user).sum();
    let system: f64 = spent.iter().map(|(_, system)| system).sum();
    let wall = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a hundred is exact")]
    let tasks = TASKS as f64;
    println!(
        "{label:<12} {concurrency:>11} {:>9.1} {:>8.1} {:>8.1} {:>8.1}",
        wall * 1e3 / tasks,
        tasks / wall,
        user * 1e3 / tasks,
        system * 1e3 / tasks
    );
}
