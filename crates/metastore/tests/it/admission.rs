//! Pools, limits and candidates.

use gust_model::{
    DagRunState, MapIndex, TaskInstanceId, TaskInstanceState as State,
    record::{DEFAULT_POOL, DagRecord, DagRun, Pool, PoolUsage, TaskInstance},
};
use gust_ports::metastore::{ActiveTask, Candidate, CandidateQuery};

use crate::{
    backend::Backend,
    behaviours,
    fixtures::{dag, in_state, one_run, pool, put_dag, put_runs, put_task_instances, run},
};

behaviours! { everywhere:
    pools_are_written_overwritten_and_removed
    pool_usage_counts_slots_by_state
    pool_usage_counts_deferred_where_the_pool_does
    active_tasks_by_dag_run_and_task
    candidates_the_heaviest_first_then_the_earliest_run_then_by_id
    candidates_are_scheduled_in_running_runs_of_unpaused_dags
    starved_ones_hide_nobody
    a_candidate_tells_of_its_run_and_its_dag
}

/// The pools without those that a migration made.
fn own(pools: Vec<Pool>) -> Vec<Pool> {
    pools.into_iter().filter(|pool| pool.name != DEFAULT_POOL).collect()
}

async fn pools_are_written_overwritten_and_removed(backend: &Backend) {
    let full =
        Pool { description: Some("für später".to_owned()), include_deferred: true, ..pool("b pool", 5) };
    let mut tx = backend.write().await;
    tx.put_pool(&full).await.unwrap();
    tx.put_pool(&pool("a", -1)).await.unwrap();
    tx.put_pool(&pool("Z", 0)).await.unwrap();
    assert_eq!(own(tx.pools().await.unwrap()), [pool("Z", 0), pool("a", -1), full.clone()]);
    assert_eq!(own(tx.lock_pools().await.unwrap()), [pool("Z", 0), pool("a", -1), full]);
    tx.put_pool(&pool("b pool", 6)).await.unwrap();
    assert!(tx.delete_pool(&"Z".into()).await.unwrap());
    assert!(!tx.delete_pool(&"Z".into()).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(own(backend.read().await.pools().await.unwrap()), [pool("a", -1), pool("b pool", 6)]);
}

async fn pool_usage_counts_slots_by_state(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let mut tx = backend.write().await;
    for name in ["a", "b", "unused"] {
        tx.put_pool(&pool(name, 9)).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut index = 0;
    let mut row = |pool: &str, slots, state| {
        index += 1;
        TaskInstance {
            map_index: MapIndex(index),
            pool: pool.into(),
            pool_slots: slots,
            ..in_state(&run, "t", state)
        }
    };
    let rows = [
        row("a", 1, State::Running),
        row("a", 2, State::Running),
        row("a", 4, State::Queued),
        row("a", 8, State::Scheduled),
        row("b", 16, State::Scheduled),
        row("a", 32, State::Success),
        row("a", 64, State::UpForRetry),
    ];
    put_task_instances(backend, &rows).await;
    let mut usage = backend.read().await.pool_usage().await.unwrap();
    usage.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("a".into(), PoolUsage { running: 3, queued: 4, scheduled: 8, deferred: 0 }),
        ("b".into(), PoolUsage { scheduled: 16, ..PoolUsage::default() }),
    ];
    assert_eq!(usage, expected);
}

async fn pool_usage_counts_deferred_where_the_pool_does(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let mut tx = backend.write().await;
    tx.put_pool(&Pool { include_deferred: true, ..pool("with", 9) }).await.unwrap();
    tx.put_pool(&pool("without", 9)).await.unwrap();
    tx.commit().await.unwrap();
    let row = |task: &str, pool: &str, state| TaskInstance {
        pool: pool.into(),
        pool_slots: 3,
        ..in_state(&run, task, state)
    };
    let rows = [
        row("a", "with", State::Deferred),
        row("b", "without", State::Deferred),
        row("c", "without", State::Queued),
    ];
    put_task_instances(backend, &rows).await;
    let mut usage = backend.read().await.pool_usage().await.unwrap();
    usage.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("with".into(), PoolUsage { deferred: 3, ..PoolUsage::default() }),
        ("without".into(), PoolUsage { queued: 3, ..PoolUsage::default() }),
    ];
    assert_eq!(usage, expected);
}

async fn active_tasks_by_dag_run_and_task(backend: &Backend) {
    let (record, run_1) = one_run(backend).await;
    let other = dag("a_dag");
    put_dag(backend, &other).await;
    let (run_2, run_3) = (run(&record, 2), run(&other, 1));
    put_runs(backend, &[&run_2, &run_3]).await;
    let row = |run: &DagRun, task: &str, index, state| TaskInstance {
        map_index: MapIndex(index),
        ..in_state(run, task, state)
    };
    let rows = [
        row(&run_1, "t", 0, State::Queued),
        row(&run_1, "t", 1, State::Running),
        row(&run_1, "t", 2, State::Deferred),
        row(&run_1, "t", 3, State::AwaitingInput),
        row(&run_1, "t", 4, State::Scheduled),
        row(&run_1, "t", 5, State::UpForRetry),
        row(&run_1, "T", -1, State::Running),
        row(&run_1, "done", -1, State::Success),
        row(&run_2, "t", -1, State::Deferred),
        row(&run_3, "z", -1, State::Queued),
    ];
    put_task_instances(backend, &rows).await;
    let active = |run: &DagRun, task: &str, executing, waiting| ActiveTask {
        dag_id: run.dag_id.clone(),
        dag_run_id: run.id,
        task_id: task.into(),
        executing,
        waiting,
    };
    let expected = [
        active(&run_3, "z", 1, 0),
        active(&run_1, "T", 1, 0),
        active(&run_1, "t", 2, 2),
        active(&run_2, "t", 0, 1),
    ];
    assert_eq!(backend.read().await.active_tasks().await.unwrap(), expected);
}

fn all() -> CandidateQuery {
    CandidateQuery { limit: 100, ..CandidateQuery::default() }
}

fn rows_of(candidates: &[Candidate]) -> Vec<TaskInstanceId> {
    candidates.iter().map(|candidate| candidate.task_instance.id).collect()
}

async fn candidates_the_heaviest_first_then_the_earliest_run_then_by_id(backend: &Backend) {
    let (record, run_1) = one_run(backend).await;
    let run_2 = run(&record, 2);
    put_runs(backend, &[&run_2]).await;
    let row = |run: &DagRun, task: &str, weight| TaskInstance {
        priority_weight: weight,
        ..in_state(run, task, State::Scheduled)
    };
    let rows = [
        row(&run_2, "a", 5),
        row(&run_1, "b", 5),
        row(&run_1, "a", 5),
        row(&run_2, "c", 9),
        row(&run_1, "c", -1),
    ];
    put_task_instances(backend, &rows).await;
    let mut tx = backend.write().await;
    let found = rows_of(&tx.candidates(&all()).await.unwrap());
    let expected: Vec<_> = [3, 1, 2, 0, 4].iter().map(|n: &usize| rows[*n].id).collect();
    assert_eq!(found, expected);
    let first = tx.candidates(&CandidateQuery { limit: 2, ..all() }).await.unwrap();
    assert_eq!(rows_of(&first), expected[..2]);
}

async fn candidates_are_scheduled_in_running_runs_of_unpaused_dags(backend: &Backend) {
    let (record, running) = one_run(backend).await;
    let paused = DagRecord { is_paused: true, ..dag("paused") };
    put_dag(backend, &paused).await;
    let queued = DagRun { state: DagRunState::Queued, ..run(&record, 2) };
    let ended = DagRun { state: DagRunState::Failed, ..run(&record, 3) };
    let of_paused = run(&paused, 1);
    put_runs(backend, &[&queued, &ended, &of_paused]).await;
    let mut rows: Vec<TaskInstance> =
        State::ALL.iter().map(|state| in_state(&running, state.as_str(), *state)).collect();
    rows.extend([&queued, &ended, &of_paused].map(|run| in_state(run, "t", State::Scheduled)));
    put_task_instances(backend, &rows).await;
    let mut tx = backend.write().await;
    let scheduled = rows.iter().find(|row| row.state == State::Scheduled).unwrap();
    assert_eq!(rows_of(&tx.candidates(&all()).await.unwrap()), [scheduled.id]);
}

async fn starved_ones_hide_nobody(backend: &Backend) {
    let (record, run_1) = one_run(backend).await;
    let other = dag("other");
    put_dag(backend, &other).await;
    let (run_2, run_3) = (run(&record, 2), run(&other, 3));
    put_runs(backend, &[&run_2, &run_3]).await;
    let row = |run: &DagRun, task: &str, pool: &str| TaskInstance {
        pool: pool.into(),
        ..in_state(run, task, State::Scheduled)
    };
    let rows = [
        row(&run_1, "a", "p"),
        row(&run_1, "b", "q"),
        row(&run_2, "a", "p"),
        row(&run_2, "b", "q"),
        row(&run_3, "a", "p"),
    ];
    put_task_instances(backend, &rows).await;
    let cases: Vec<(CandidateQuery, &[usize])> = vec![
        (all(), &[0, 1, 2, 3, 4]),
        (CandidateQuery { starved_pools: vec!["p".into()], ..all() }, &[1, 3]),
        (CandidateQuery { starved_pools: vec!["p".into(), "q".into()], ..all() }, &[]),
        (CandidateQuery { starved_runs: vec![run_1.id, run_3.id], ..all() }, &[2, 3]),
        (CandidateQuery { starved_tasks: vec![("d".into(), "a".into())], ..all() }, &[1, 3, 4]),
        (
            CandidateQuery {
                starved_tasks: vec![("d".into(), "a".into()), ("d".into(), "b".into())],
                ..all()
            },
            &[4],
        ),
        (
            CandidateQuery {
                starved_tasks_of_runs: vec![(run_1.id, "a".into()), (run_2.id, "b".into())],
                ..all()
            },
            &[1, 2, 4],
        ),
        (CandidateQuery { except: vec![rows[0].id, rows[3].id], ..all() }, &[1, 2, 4]),
        (
            CandidateQuery {
                limit: 1,
                starved_pools: vec!["p".into()],
                starved_runs: vec![run_1.id],
                ..all()
            },
            &[3],
        ),
    ];
    let mut tx = backend.write().await;
    for (query, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|n| rows[*n].id).collect();
        assert_eq!(rows_of(&tx.candidates(&query).await.unwrap()), expected, "{query:?}");
    }
}

async fn a_candidate_tells_of_its_run_and_its_dag(backend: &Backend) {
    let (record, run) = one_run(backend).await;
    let dateless = DagRun { logical_date: None, run_id: "manual".into(), ..crate::fixtures::run(&record, 5) };
    put_runs(backend, &[&dateless]).await;
    let rows = [in_state(&run, "t", State::Scheduled), in_state(&dateless, "t", State::Scheduled)];
    put_task_instances(backend, &rows).await;
    let expected = |run: &DagRun, row: &TaskInstance| Candidate {
        task_instance: row.clone(),
        logical_date: run.logical_date,
        run_after: run.run_after,
        max_active_tasks: record.max_active_tasks,
    };
    let found = backend.write().await.candidates(&all()).await.unwrap();
    assert_eq!(found, [expected(&run, &rows[0]), expected(&dateless, &rows[1])]);
}
