//! A few plans, as people read them.

use std::fmt::Write;

use gust_planner::{Advance, Plan};
use serde_json::json;

use crate::{
    build::{dag, empty, plain, value_of},
    world::{Act, TryOutcome, World},
};

/// A plan in lines: what is added, changed and concluded.
fn summary(world: &World, plan: &Plan) -> String {
    let mut text = String::new();
    for row in &plan.inserts {
        writeln!(text, "add {}[{}] {} try {}", row.task_id, row.map_index, row.state, row.try_number)
            .unwrap();
    }
    for change in &plan.changes {
        let row = &world.rows[&change.id];
        writeln!(text, "set {}[{}] {} try {}", row.task_id, row.map_index, change.state, row.try_number)
            .unwrap();
    }
    for tally in &plan.tallies {
        let own: Vec<_> = tally.own.iter().map(|(state, count)| format!("{count} {state}")).collect();
        let upstream = tally.upstream;
        writeln!(
            text,
            "tally {} ({:?}): {}; upstream {} of {} done, {} success",
            tally.task_id,
            tally.expanded_length,
            own.join(", "),
            upstream.done(),
            upstream.total,
            upstream.success
        )
        .unwrap();
    }
    let run = &plan.run;
    writeln!(
        text,
        "run {}: {} unfinished, {} under way",
        run.state, run.unfinished_count, run.under_way_count
    )
    .unwrap();
    writeln!(text, "ended {:?}, scheduled {}", plan.ended, plan.scheduled_any).unwrap();
    text
}

#[test]
fn plans_of_a_mapped_run() {
    let serialized = dag("plans")
        .task("begin", &["get"], empty())
        .task("get", &["work"], plain())
        .mapped("work", &["sum"], value_of("get"), json!({ "retries": 1 }))
        .task("sum", &[], plain())
        .done();
    let mut world = World::new(&serialized);
    let plan = world.advance();
    insta::assert_snapshot!("begin", summary(&world, &plan));

    let get = world.find("get", -1).id;
    world.start(get);
    world.end(get, &Act::Push(2));
    let plan = world.advance();
    insta::assert_snapshot!("expansion", summary(&world, &plan));

    let first = world.find("work", 0).id;
    world.start(first);
    world.end(first, &Act::End(TryOutcome::Failed));
    let plan = world.advance();
    insta::assert_snapshot!("retry", summary(&world, &plan));
}

#[test]
fn a_pass_may_be_held_across_threads() {
    fn is_send<T: Send>() {}
    is_send::<Advance<'_>>();
}
