//! What a clear resets (`airflow/models/taskinstance.py: clear_task_instances`,
//! `airflow/serialization/definitions/dag.py: SerializedDAG.partial_subset`).

use std::collections::BTreeSet;

use gust_model::{
    BundleVersion, DagRunState, DagVersionId, PoolName, QueueName, TaskInstanceState,
    dag::{Dag, TaskIndex},
    record::{DagRun, TaskInstance, Timestamp},
};

/// Which tasks are cleared together with those that were named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClearRelatives {
    /// Those after them.
    pub downstream: bool,
    /// Those before them.
    pub upstream: bool,
}

/// The tasks that a clear reaches: those named, their relatives as asked, and the setups that these need together with
/// the setups' teardowns.
#[must_use]
pub fn tasks_to_clear(
    dag: &Dag,
    named: &BTreeSet<TaskIndex>,
    relatives: ClearRelatives,
) -> BTreeSet<TaskIndex> {
    let mut reached = named.clone();
    for &task in named {
        if relatives.downstream {
            for relative in dag.flat_relatives(task, false) {
                reached.insert(relative);
                if !named.contains(&relative) {
                    add_setups_and_teardowns(dag, relative, &mut reached);
                }
            }
        }
        if relatives.upstream {
            for relative in dag.flat_relatives(task, true) {
                reached.insert(relative);
                reached.extend(dag.links(relative).teardowns.iter().filter(|&&teardown| teardown != task));
            }
        } else {
            add_setups_and_teardowns(dag, task, &mut reached);
        }
        if !relatives.downstream {
            reached.extend(&dag.links(task).teardowns);
        }
    }
    reached
}

fn add_setups_and_teardowns(dag: &Dag, task: TaskIndex, reached: &mut BTreeSet<TaskIndex>) {
    let definition = dag.task(task);
    if definition.is_setup || definition.is_teardown {
        return;
    }
    for &setup in &dag.links(task).relevant_setups {
        reached.insert(setup);
        reached.extend(dag.links(setup).teardowns.iter().filter(|&&teardown| teardown != task));
    }
}

/// What a clear makes of a task instance. The row becomes dirty, and its run too.
#[derive(Debug, Clone, PartialEq)]
pub enum ClearedInstance {
    /// It runs: its process is ended, and it then runs again. Only the state changes; the worker's renewal is refused.
    Restarting {
        /// The row to be kept as a try that is over.
        history: Box<TaskInstance>,
    },
    /// It begins anew.
    Reset {
        /// The row to be kept as a try that is over, if it had one.
        history: Option<Box<TaskInstance>>,
        /// The last try that it may have, less one.
        max_tries: i32,
        /// The pool, as the definition has it now.
        pool: PoolName,
        /// Its slots.
        pool_slots: i32,
        /// The queue.
        queue: QueueName,
        /// The weight.
        priority_weight: i64,
        /// Whether what an executor holds of it is taken back.
        takes_back: bool,
    },
}

impl ClearedInstance {
    /// The new state. A reset also takes away the trigger, the resumption, `due_at`, `scheduled_at` and `queued_at`;
    /// start and end stay until the next try begins.
    #[must_use]
    pub fn state(&self) -> TaskInstanceState {
        match self {
            Self::Restarting { .. } => TaskInstanceState::Restarting,
            Self::Reset { .. } => TaskInstanceState::None,
        }
    }
}

/// Clears a task instance. `dag` is the graph that its run will follow; a task that is not in it keeps its definition.
#[must_use]
pub fn clear_instance(instance: &TaskInstance, dag: Option<&Dag>) -> ClearedInstance {
    let history = (instance.try_number > 0 && instance.state != TaskInstanceState::UpForRetry)
        .then(|| Box::new(TaskInstance { lease: None, ..instance.clone() }));
    if instance.state == TaskInstanceState::Running {
        let history = Box::new(TaskInstance { lease: None, ..instance.clone() });
        return ClearedInstance::Restarting { history };
    }
    let takes_back = matches!(
        instance.state,
        TaskInstanceState::Queued
            | TaskInstanceState::Restarting
            | TaskInstanceState::Deferred
            | TaskInstanceState::AwaitingInput
    );
    let task = dag.and_then(|dag| dag.index_of(instance.task_id.as_str()).map(|index| (dag, index)));
    match task {
        Some((dag, index)) => {
            let definition = dag.task(index);
            ClearedInstance::Reset {
                history,
                max_tries: instance.try_number + definition.retries,
                pool: definition.pool.clone(),
                pool_slots: definition.pool_slots,
                queue: definition.queue.clone(),
                priority_weight: dag.links(index).weight,
                takes_back,
            }
        }
        None => ClearedInstance::Reset {
            history,
            max_tries: instance.max_tries.max(instance.try_number),
            pool: instance.pool.clone(),
            pool_slots: instance.pool_slots,
            queue: instance.queue.clone(),
            priority_weight: instance.priority_weight,
            takes_back,
        },
    }
}

/// What a clear of some of its task instances makes of a run. The run becomes dirty.
#[derive(Debug, Clone, PartialEq)]
pub struct ClearedRun {
    /// The state: a finished run takes the one asked for, others keep theirs.
    pub state: DagRunState,
    /// The start: none for a run that goes back into the queue.
    pub start_date: Option<Timestamp>,
    /// The end: none once it is not over.
    pub end_date: Option<Timestamp>,
    /// When it was made or last cleared.
    pub queued_at: Timestamp,
    /// How often it was cleared.
    pub clear_number: i32,
    /// The version whose graph it follows.
    pub dag_version_id: DagVersionId,
    /// The bundle version whose code it runs.
    pub bundle_version: Option<BundleVersion>,
    /// The last pass that looked at it: none for a run that goes back into the queue, so that it is looked at soon.
    pub last_scheduling_decision: Option<Timestamp>,
}

/// Clears a run. `newest` is the DAG's newest version with its bundle version, if the run is to follow it from now on.
#[must_use]
pub fn clear_run(
    run: &DagRun,
    finished_becomes: DagRunState,
    newest: Option<(DagVersionId, Option<BundleVersion>)>,
    now: Timestamp,
) -> ClearedRun {
    let (dag_version_id, bundle_version) = match newest {
        Some((version, bundle)) => (version, bundle.or_else(|| run.bundle_version.clone())),
        None => (run.dag_version_id, run.bundle_version.clone()),
    };
    let is_finished = run.state.is_finished();
    let state = if is_finished { finished_becomes } else { run.state };
    let is_requeued = is_finished && state == DagRunState::Queued;
    ClearedRun {
        state,
        start_date: match (is_finished, state) {
            (true, DagRunState::Queued) => None,
            (true, _) => Some(now),
            (false, _) => run.start_date,
        },
        end_date: if state.is_finished() { run.end_date } else { None },
        queued_at: now,
        clear_number: run.clear_number + 1,
        dag_version_id,
        bundle_version,
        last_scheduling_decision: if is_requeued { None } else { run.last_scheduling_decision },
    }
}
