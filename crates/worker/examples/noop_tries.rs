//! What a try that does nothing costs the worker: `cargo run -p gust-worker --example noop_tries`.
//!
//! Prints wall time a try and this process's own CPU a try, children left out, at concurrency 1 and 2.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement ends at the first surprise")]

#[path = "../tests/it/house.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod house;

use std::time::Instant;

use house::House;
use nix::sys::resource::{UsageWho, getrusage};

const TRIES: usize = 100;

fn own_cpu_ms() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| {
            #[expect(clippy::cast_precision_loss, reason = "minutes of CPU at most")]
            let ms = time.tv_sec() as f64 * 1e3 + time.tv_usec() as f64 / 1e3;
            ms
        })
        .sum()
}

#[tokio::main]
async fn main() {
    let Some(house) = House::open().await else { return };
    let hand = house.dag("noop", "", "@task\ndef work():\n    pass\nwork()").await;
    house.run(&hand, "work").await;
    println!("{:>11} {:>8} {:>8} {:>10}", "concurrency", "wall ms", "tries/s", "own CPU ms");
    for concurrency in [1, 2] {
        let started = Instant::now();
        let before = own_cpu_ms();
        let lanes = (0..concurrency).map(|lane| {
            let (house, hand) = (&house, &hand);
            async move {
                for _ in 0..TRIES / concurrency {
                    let index = i32::try_from(lane).unwrap();
                    let row = house.run_at(hand, "work", index).await;
                    assert_eq!(row.state, gust_model::TaskInstanceState::Success);
                }
            }
        });
        futures::future::join_all(lanes).await;
        #[expect(clippy::cast_precision_loss, reason = "a hundred is exact")]
        let tries = TRIES as f64;
        let wall = started.elapsed().as_secs_f64();
        let cpu = own_cpu_ms() - before;
        println!("{concurrency:>11} {:>8.1} {:>8.1} {:>10.2}", wall * 1e3 / tries, tries / wall, cpu / tries);
    }
}
