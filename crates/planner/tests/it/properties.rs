//! Invariants over random DAGs and random ends.

use std::collections::BTreeMap;

use gust_model::{TaskInstanceState as S, record::TaskInstance};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    build::dag,
    world::{Act, TryOutcome, World},
};

#[derive(Debug, Clone)]
struct RandomTask {
    upstream: Vec<prop::sample::Index>,
    rule: prop::sample::Index,
    is_empty: bool,
    mapped: Option<u32>,
    outcome: u8,
}

fn random_task() -> impl Strategy<Value = RandomTask> {
    (
        prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        any::<prop::sample::Index>(),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.2, 0_u32..4),
        0_u8..6,
    )
        .prop_map(|(upstream, rule, is_empty, mapped, outcome)| RandomTask {
            upstream,
            rule,
            is_empty,
            mapped,
            outcome,
        })
}

/// Rules under which what a task comes to does not depend on who before it is seen to end first.
const ORDERLESS: [&str; 7] =
    ["all_done", "none_failed", "all_failed", "none_skipped", "one_failed", "one_done", "always"];

fn serialized(tasks: &[RandomTask], rules: &[&str]) -> Value {
    let mut downstream: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (at, task) in tasks.iter().enumerate().skip(1) {
        for index in &task.upstream {
            let names = downstream.entry(index.index(at)).or_default();
            if !names.contains(&format!("t{at}")) {
                names.push(format!("t{at}"));
            }
        }
    }
    let mut build = dag("random");
    for (at, task) in tasks.iter().enumerate() {
        let after: Vec<&str> = downstream.get(&at).into_iter().flatten().map(String::as_str).collect();
        let rule = json!({ "trigger_rule": rules[task.rule.index(rules.len())], "retries": 1, "retry_delay": 0.001 });
        let name = format!("t{at}");
        build = if let Some(length) = task.mapped {
            build.mapped(&name, &after, json!(vec![0; length as usize]), rule)
        } else {
            let mut values = rule;
            values["_is_empty"] = json!(task.is_empty);
            build.task(&name, &after, values)
        };
    }
    build.done()
}

fn act(tasks: &[RandomTask]) -> impl Fn(&TaskInstance) -> Act + '_ {
    |row| {
        let at: usize = row.task_id.as_str()[1..].parse().unwrap();
        let shifted = i32::from(tasks[at].outcome) + row.map_index.0.max(0);
        Act::End(match shifted % 6 {
            0 => TryOutcome::FailedForGood,
            1 => TryOutcome::Skipped,
            2 if row.try_number == 1 => TryOutcome::Failed,
            _ => TryOutcome::Success,
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn planning_twice_changes_nothing(tasks in prop::collection::vec(random_task(), 1..12), seed in any::<u64>()) {
        let all: Vec<&str> = gust_model::dag::TriggerRule::ALL.iter().map(|rule| rule.as_str()).collect();
        let mut world = World::new(&serialized(&tasks, &all));
        let act = act(&tasks);
        let mut seed = seed;
        for _ in 0..200 {
            world.advance();
            let rows = world.rows.clone();
            let again = world.advance();
            prop_assert!(again.changes.is_empty() && again.inserts.is_empty() && again.ended.is_none(), "{again:?}");
            prop_assert_eq!(&rows, &world.rows);
            // All anew from the rows comes to the same.
            let mut dirty = world.clone();
            dirty.run.is_dirty = true;
            dirty.advance();
            if !world.run.state.is_finished() {
                let states = |world: &World| world.states();
                prop_assert_eq!(states(&dirty), states(&world));
            }
            prop_assert_eq!(&dirty.tallies, &world.tallies);
            if world.run.state.is_finished() {
                return Ok(());
            }
            let scheduled = world.in_state(S::Scheduled);
            if scheduled.is_empty() {
                let due = world.rows.values().filter_map(|row| row.due_at).min();
                prop_assert!(due.is_some(), "something is left to wait for");
                world.now = world.now.max(due.unwrap());
                continue;
            }
            let id = scheduled[usize::try_from(seed % 97).unwrap() % scheduled.len()];
            seed = seed.rotate_left(7).wrapping_mul(31);
            world.start(id);
            let what = act(&world.rows[&id]);
            world.end(id, &what);
        }
        prop_assert!(false, "the run ends");
    }

    #[test]
    fn the_order_of_ends_does_not_matter_where_rules_do_not_look_at_it(
        tasks in prop::collection::vec(random_task(), 1..10),
        picks in prop::collection::vec(0_usize..50, 1..40),
    ) {
        let serialized = serialized(&tasks, &ORDERLESS);
        let mut first = World::new(&serialized);
        first.play(|_| 0, act(&tasks), true, 400);
        let mut at = 0;
        let mut other = World::new(&serialized);
        other.play(|_| { at += 1; picks[at % picks.len()] }, act(&tasks), false, 400);
        prop_assert_eq!(first.states(), other.states());
        prop_assert_eq!(first.run.state, other.run.state);
    }
}
