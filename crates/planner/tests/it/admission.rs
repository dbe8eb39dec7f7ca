//! Pools, limits and priorities.

use std::collections::{BTreeMap, BTreeSet};

use gust_model::{
    DagRunId, MapIndex, TaskInstanceId,
    record::{Pool, PoolUsage, TaskInstance},
};
use gust_planner::{
    ActiveCount, Admission, AdmissionPlan, AdmissionSettings, Candidate, CandidateRequest, RefusalReason,
};
use proptest::prelude::*;
use uuid::Uuid;

use crate::{
    build::{dag, plain},
    world::{World, midnight},
};

fn pool(name: &str, slots: i32) -> (Pool, PoolUsage) {
    let pool = Pool { name: name.into(), slots, description: None, include_deferred: false };
    (pool, PoolUsage::default())
}

fn template() -> TaskInstance {
    let mut world = World::new(&dag("d").task("t", &[], plain()).done());
    world.advance();
    world.rows.pop_first().unwrap().1
}

/// A candidate: number, task, pool, slots wanted, weight.
fn candidate(id: u128, task: &str, pool: &str, slots: i32, weight: i64) -> Candidate {
    let mut task_instance = template();
    task_instance.id = TaskInstanceId(Uuid::from_u128(id));
    task_instance.task_id = task.into();
    task_instance.map_index = MapIndex::UNMAPPED;
    task_instance.pool = pool.into();
    task_instance.pool_slots = slots;
    task_instance.priority_weight = weight;
    Candidate {
        task_instance,
        logical_date: None,
        run_after: midnight(),
        max_active_tasks: 100,
        max_active_tis_per_dag: None,
        max_active_tis_per_dagrun: None,
    }
}

/// Answers a request as a metastore does.
fn page(all: &[Candidate], request: &CandidateRequest) -> Vec<Candidate> {
    let mut page: Vec<_> = all
        .iter()
        .filter(|candidate| {
            let row = &candidate.task_instance;
            !request.except.contains(&row.id)
                && !request.starved_pools.contains(&row.pool)
                && !request.starved_runs.contains(&row.dag_run_id)
                && !request.starved_tasks.contains(&(row.dag_id.clone(), row.task_id.clone()))
                && !request.starved_tasks_of_runs.contains(&(row.dag_run_id, row.task_id.clone()))
        })
        .cloned()
        .collect();
    page.sort_by_key(|candidate| {
        let row = &candidate.task_instance;
        (std::cmp::Reverse(row.priority_weight), candidate.logical_date, row.map_index, row.id)
    });
    page.truncate(usize::try_from(request.limit).unwrap());
    page
}

fn admit(all: &[Candidate], mut admission: Admission) -> AdmissionPlan {
    while let Some(request) = admission.request().cloned() {
        admission.offer(page(all, &request));
    }
    admission.finish()
}

fn ids(plan: &AdmissionPlan) -> Vec<u128> {
    plan.admitted.iter().map(|row| row.id.0.as_u128()).collect()
}

fn settings(page: u32) -> AdmissionSettings {
    AdmissionSettings { page, ..AdmissionSettings::default() }
}

#[test]
fn the_heaviest_go_first() {
    let all = [candidate(1, "a", "p", 1, 1), candidate(2, "b", "p", 1, 9), candidate(3, "c", "p", 1, 5)];
    let plan = admit(&all, Admission::begin([pool("p", 2)], [], settings(256)));
    assert_eq!(ids(&plan), [2, 3]);
}

#[test]
fn a_full_pool_at_the_head_hides_nobody() {
    let mut all: Vec<_> = (0..50).map(|id| candidate(id, &format!("full{id}"), "full", 1, 100)).collect();
    all.push(candidate(99, "free", "free", 1, 1));
    let plan = admit(&all, Admission::begin([pool("full", 1), pool("free", 1)], [], settings(4)));
    assert_eq!(ids(&plan), [0, 99]);
}

#[test]
fn a_task_that_wants_too_many_slots_stays_with_the_reason_and_lets_lighter_ones_by() {
    let all =
        [candidate(1, "big", "p", 5, 9), candidate(2, "wide", "p", 2, 8), candidate(3, "small", "p", 1, 1)];
    let admission = Admission::begin([pool("p", 3)], [], settings(256));
    let plan = admit(&all, admission);
    assert_eq!(ids(&plan), [2, 3]);
    assert_eq!(plan.refused[0].reason, RefusalReason::TooManySlots { wanted: 5, total: 3 });
}

#[test]
fn an_unknown_pool_admits_nobody_and_is_named() {
    let plan = admit(&[candidate(1, "a", "gone", 1, 1)], Admission::begin([pool("p", 1)], [], settings(256)));
    assert_eq!(plan.refused[0].reason, RefusalReason::UnknownPool);
}

#[test]
fn a_pool_without_limit_has_room_for_all() {
    let all: Vec<_> = (0..20).map(|id| candidate(id, "a", "p", 7, 1)).collect();
    let plan = admit(&all, Admission::begin([pool("p", -1)], [], settings(256)));
    assert_eq!(plan.admitted.len(), 20);
}

#[test]
fn deferred_tasks_hold_slots_only_of_pools_that_say_so() {
    for (include_deferred, expected) in [(false, 1), (true, 0)] {
        let (mut narrow, mut usage) = pool("p", 1);
        narrow.include_deferred = include_deferred;
        usage.deferred = 1;
        let plan =
            admit(&[candidate(1, "a", "p", 1, 1)], Admission::begin([(narrow, usage)], [], settings(256)));
        assert_eq!(plan.admitted.len(), expected);
    }
}

#[test]
fn parallelism_binds_over_everything() {
    let all: Vec<_> = (0..9).map(|id| candidate(id, "a", "p", 1, 1)).collect();
    let row = template();
    let active = ActiveCount {
        dag_id: "other".into(),
        dag_run_id: row.dag_run_id,
        task_id: "x".into(),
        executing: 3,
        waiting: 5,
    };
    let settings = AdmissionSettings { parallelism: 5, ..AdmissionSettings::default() };
    let plan = admit(&all, Admission::begin([pool("p", 100)], [active], settings));
    assert_eq!(plan.admitted.len(), 2, "what is deferred runs nowhere");
    assert!(!plan.may_have_more);
}

#[test]
fn a_batch_that_is_full_says_that_there_may_be_more() {
    let all: Vec<_> = (0..9).map(|id| candidate(id, "a", "p", 1, 1)).collect();
    let settings = AdmissionSettings { batch: 4, ..AdmissionSettings::default() };
    let plan = admit(&all, Admission::begin([pool("p", 100)], [], settings));
    assert_eq!((plan.admitted.len(), plan.may_have_more), (4, true));
}

#[test]
fn limits_of_a_task_count_what_is_deferred() {
    let mut all: Vec<_> = (0..4).map(|id| candidate(id, "a", "p", 1, 1)).collect();
    for one in &mut all {
        one.max_active_tis_per_dag = Some(3);
    }
    let row = template();
    let active = ActiveCount {
        dag_id: row.dag_id.clone(),
        dag_run_id: row.dag_run_id,
        task_id: "a".into(),
        executing: 1,
        waiting: 1,
    };
    let plan = admit(&all, Admission::begin([pool("p", 100)], [active], settings(256)));
    assert_eq!(plan.admitted.len(), 1);
    assert_eq!(plan.refused[0].reason, RefusalReason::TaskFull);
}

#[derive(Debug, Clone)]
struct Wish {
    task: u8,
    run: u8,
    pool: u8,
    slots: i32,
    weight: i64,
}

fn wish() -> impl Strategy<Value = Wish> {
    (0_u8..4, 0_u8..3, 0_u8..3, 1_i32..4, 0_i64..5).prop_map(|(task, run, pool, slots, weight)| Wish {
        task,
        run,
        pool,
        slots,
        weight,
    })
}

proptest! {
    #[test]
    fn no_limit_is_ever_exceeded_and_nobody_who_fits_is_left(
        wishes in prop::collection::vec(wish(), 0..60),
        slots in prop::collection::vec(0_i32..8, 3),
        parallelism in 0_u32..40,
        per_run in 1_u32..12,
        per_task in prop::option::of(1_u32..6),
        per_task_in_run in prop::option::of(1_u32..4),
        page_size in 1_u32..20,
    ) {
        let all: Vec<Candidate> = wishes.iter().enumerate().map(|(id, wish)| {
            let id = u128::try_from(id).unwrap();
            let mut one = candidate(id, &format!("t{}", wish.task), &format!("p{}", wish.pool), wish.slots, wish.weight);
            one.task_instance.dag_run_id = DagRunId(Uuid::from_u128(u128::from(wish.run)));
            one.max_active_tasks = per_run;
            one.max_active_tis_per_dag = per_task;
            one.max_active_tis_per_dagrun = per_task_in_run;
            one
        }).collect();
        let pools: Vec<_> = slots.iter().enumerate().map(|(at, slots)| pool(&format!("p{at}"), *slots)).collect();
        let settings = AdmissionSettings { parallelism, batch: 1000, page: page_size };
        let plan = admit(&all, Admission::begin(pools, [], settings));

        let mut held: BTreeMap<String, i32> = BTreeMap::new();
        let mut by_run: BTreeMap<DagRunId, u32> = BTreeMap::new();
        let mut by_task: BTreeMap<String, u32> = BTreeMap::new();
        let mut by_both: BTreeMap<(DagRunId, String), u32> = BTreeMap::new();
        for row in &plan.admitted {
            *held.entry(row.pool.to_string()).or_default() += row.pool_slots;
            *by_run.entry(row.dag_run_id).or_default() += 1;
            *by_task.entry(row.task_id.to_string()).or_default() += 1;
            *by_both.entry((row.dag_run_id, row.task_id.to_string())).or_default() += 1;
        }
        let free = |pool: &str| {
            let at: usize = pool[1..].parse().unwrap();
            slots[at] - held.get(pool).copied().unwrap_or(0)
        };
        prop_assert!(u32::try_from(plan.admitted.len()).unwrap() <= parallelism);
        for at in 0..3 {
            let left = free(&format!("p{at}"));
            prop_assert!(left >= 0, "{} slots left", left);
        }
        prop_assert!(by_run.values().all(|count| *count <= per_run));
        prop_assert!(by_task.values().all(|count| per_task.is_none_or(|limit| *count <= limit)));
        prop_assert!(by_both.values().all(|count| per_task_in_run.is_none_or(|limit| *count <= limit)));

        // A task of which one instance wants too much is passed over as a whole, as in Airflow; anybody else who fits
        // has been admitted.
        let admitted: BTreeSet<_> = plan.admitted.iter().map(|row| row.id).collect();
        let wants_too_much: BTreeSet<String> = plan.refused.iter().filter(|refusal| matches!(
            refusal.reason, RefusalReason::TooManySlots { .. } | RefusalReason::TooFewSlots { .. }
        )).map(|refusal| all.iter().find(|one| one.task_instance.id == refusal.id).unwrap().task_instance.task_id.to_string()).collect();
        if u32::try_from(admitted.len()).unwrap() < parallelism {
            for one in &all {
                let row = &one.task_instance;
                let fits = row.pool_slots <= free(row.pool.as_str())
                    && by_run.get(&row.dag_run_id).is_none_or(|count| *count < per_run)
                    && per_task.is_none_or(|limit| by_task.get(row.task_id.as_str()).is_none_or(|count| *count < limit))
                    && per_task_in_run.is_none_or(|limit| by_both.get(&(row.dag_run_id, row.task_id.to_string())).is_none_or(|count| *count < limit));
                prop_assert!(admitted.contains(&row.id) || !fits || wants_too_much.contains(row.task_id.as_str()), "{} fits", row.id);
            }
        }
    }
}
