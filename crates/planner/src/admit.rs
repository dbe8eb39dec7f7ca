//! Which scheduled task instances are queued (`airflow/jobs/scheduler_job_runner.py:
//! _executable_task_instances_to_queued`): the heaviest first, under pools, per-run, per-task and overall limits.
//!
//! The caller holds the pools' locks, begins an [`Admission`] with what is held, and feeds it pages of candidates until
//! it asks for no more. What is starved is left out of the next page, so that a full pool, run or task at the head of
//! the order hides nobody behind it.

use std::collections::{BTreeMap, BTreeSet};

use gust_model::{
    DagId, DagRunId, PoolName, TaskId, TaskInstanceId,
    record::{Pool, PoolUsage, TaskInstance, Timestamp},
};

/// How many instances of one task of one run are active, by what the limits count
/// (`airflow/jobs/scheduler_job_runner.py: ConcurrencyMap`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveCount {
    /// The DAG.
    pub dag_id: DagId,
    /// The run.
    pub dag_run_id: DagRunId,
    /// The task.
    pub task_id: TaskId,
    /// How many are queued or running.
    pub executing: u32,
    /// How many are deferred or wait for a person: they count towards the task's own limits only.
    pub waiting: u32,
}

/// A scheduled task instance with the limits that bind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The row.
    pub task_instance: TaskInstance,
    /// The run's logical date.
    pub logical_date: Option<Timestamp>,
    /// The run's earliest start.
    pub run_after: Timestamp,
    /// How many task instances of one run of its DAG may be executing.
    pub max_active_tasks: u32,
    /// How many instances of its task may be active, over all runs.
    pub max_active_tis_per_dag: Option<u32>,
    /// How many instances of its task may be active in its run.
    pub max_active_tis_per_dagrun: Option<u32>,
}

/// The limits that are not in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionSettings {
    /// How many task instances may be executing, over everything.
    pub parallelism: u32,
    /// How many are queued in one admission at most.
    pub batch: u32,
    /// How many candidates a page has at most.
    pub page: u32,
}

impl Default for AdmissionSettings {
    fn default() -> Self {
        Self { parallelism: 32, batch: 64, page: 256 }
    }
}

/// Which candidates are wanted next: scheduled, of running runs of DAGs that are not paused, in the order of weight
/// (more first), logical date (earlier first, none first), map index, then id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateRequest {
    /// At most so many.
    pub limit: u32,
    /// Not of these pools.
    pub starved_pools: BTreeSet<PoolName>,
    /// Not of these runs.
    pub starved_runs: BTreeSet<DagRunId>,
    /// Not of these tasks, in any run.
    pub starved_tasks: BTreeSet<(DagId, TaskId)>,
    /// Not of these tasks in these runs.
    pub starved_tasks_of_runs: BTreeSet<(DagRunId, TaskId)>,
    /// Not these rows: they have been decided.
    pub except: BTreeSet<TaskInstanceId>,
}

/// Why a candidate stays scheduled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusalReason {
    /// Its pool does not exist.
    UnknownPool,
    /// It wants more slots than its pool has at all.
    TooManySlots {
        /// How many it wants.
        wanted: i32,
        /// How many there are.
        total: i32,
    },
    /// Its pool is full.
    PoolFull,
    /// Its pool has fewer free slots than it wants.
    TooFewSlots {
        /// How many it wants.
        wanted: i32,
        /// How many are free.
        free: i64,
    },
    /// Its run has as many executing as it may.
    RunFull,
    /// Its task has as many active as it may, over all runs.
    TaskFull,
    /// Its task has as many active in its run as it may.
    TaskFullInRun,
}

/// A candidate that stays scheduled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The row.
    pub id: TaskInstanceId,
    /// Why.
    pub reason: RefusalReason,
}

/// What an admission decided.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AdmissionPlan {
    /// To be queued, in order.
    pub admitted: Vec<TaskInstance>,
    /// To stay, with the reason. A person has to mend [`RefusalReason::UnknownPool`] and
    /// [`RefusalReason::TooManySlots`]; all others mend themselves.
    pub refused: Vec<Refusal>,
    /// Whether candidates may be left over that would fit now: the batch was full.
    pub may_have_more: bool,
}

#[derive(Debug)]
struct PoolRoom {
    total: i32,
    /// Free slots; the largest number for a pool without limit. An overfull pool has none.
    free: i64,
}

/// One admission under way.
#[derive(Debug)]
pub struct Admission {
    settings: AdmissionSettings,
    pools: BTreeMap<PoolName, PoolRoom>,
    /// How many more may be admitted now.
    room: u32,
    /// Whether `room` is bound by the batch alone.
    is_batch_bound: bool,
    executing_by_run: BTreeMap<DagRunId, u32>,
    active_by_task: BTreeMap<(DagId, TaskId), u32>,
    active_by_task_of_run: BTreeMap<(DagRunId, TaskId), u32>,
    starved: CandidateRequest,
    is_exhausted: bool,
    plan: AdmissionPlan,
}

impl Admission {
    /// Begins with all pools and what is held of them, and all that is active.
    #[must_use]
    pub fn begin(
        pools: impl IntoIterator<Item = (Pool, PoolUsage)>,
        active: impl IntoIterator<Item = ActiveCount>,
        settings: AdmissionSettings,
    ) -> Self {
        let pools: BTreeMap<PoolName, PoolRoom> = pools
            .into_iter()
            .map(|(pool, usage)| {
                let deferred = if pool.include_deferred { usage.deferred } else { 0 };
                let held = usage.running + usage.queued + deferred;
                let free = if pool.slots < 0 { i64::MAX } else { (i64::from(pool.slots) - held).max(0) };
                (pool.name, PoolRoom { total: pool.slots, free })
            })
            .collect();
        let mut executing_by_run = BTreeMap::new();
        let mut active_by_task = BTreeMap::new();
        let mut active_by_task_of_run = BTreeMap::new();
        let mut executing = 0_u32;
        for count in active {
            executing = executing.saturating_add(count.executing);
            let active = count.executing.saturating_add(count.waiting);
            *executing_by_run.entry(count.dag_run_id).or_insert(0) += count.executing;
            *active_by_task.entry((count.dag_id, count.task_id.clone())).or_insert(0) += active;
            *active_by_task_of_run.entry((count.dag_run_id, count.task_id)).or_insert(0) += active;
        }
        let free = settings.parallelism.saturating_sub(executing);
        let starved_pools =
            pools.iter().filter(|(_, room)| room.free == 0).map(|(name, _)| name.clone()).collect();
        Self {
            settings,
            pools,
            room: free.min(settings.batch),
            is_batch_bound: settings.batch < free,
            executing_by_run,
            active_by_task,
            active_by_task_of_run,
            starved: CandidateRequest {
                limit: settings.page,
                starved_pools,
                starved_runs: BTreeSet::new(),
                starved_tasks: BTreeSet::new(),
                starved_tasks_of_runs: BTreeSet::new(),
                except: BTreeSet::new(),
            },
            is_exhausted: false,
            plan: AdmissionPlan::default(),
        }
    }

    /// Which candidates it wants next; none once it is done.
    #[must_use]
    pub fn request(&self) -> Option<&CandidateRequest> {
        let all_full = self.pools.values().all(|pool| pool.free == 0);
        (self.room > 0 && !self.is_exhausted && !all_full).then_some(&self.starved)
    }

    /// Decides over a page of candidates, in their order. A page shorter than asked is the last.
    pub fn offer(&mut self, page: Vec<Candidate>) {
        self.is_exhausted = u32::try_from(page.len()).is_ok_and(|length| length < self.starved.limit);
        for candidate in page {
            if self.room == 0 {
                return;
            }
            let id = candidate.task_instance.id;
            if !self.starved.except.insert(id) {
                continue;
            }
            match self.refuse(&candidate) {
                Some(reason) => self.plan.refused.push(Refusal { id, reason }),
                None => self.admit(candidate),
            }
        }
    }

    /// What was decided.
    #[must_use]
    pub fn finish(mut self) -> AdmissionPlan {
        self.plan.may_have_more = self.room == 0 && self.is_batch_bound;
        self.plan
    }

    /// Why a candidate cannot be admitted now, if it cannot; notes what starves it.
    fn refuse(&mut self, candidate: &Candidate) -> Option<RefusalReason> {
        let instance = &candidate.task_instance;
        let task = || (instance.dag_id.clone(), instance.task_id.clone());
        let Some(pool) = self.pools.get(&instance.pool) else {
            self.starved.starved_pools.insert(instance.pool.clone());
            return Some(RefusalReason::UnknownPool);
        };
        if pool.free <= 0 {
            self.starved.starved_pools.insert(instance.pool.clone());
            return Some(RefusalReason::PoolFull);
        }
        if pool.total >= 0 && instance.pool_slots > pool.total {
            self.starved.starved_tasks.insert(task());
            return Some(RefusalReason::TooManySlots { wanted: instance.pool_slots, total: pool.total });
        }
        if i64::from(instance.pool_slots) > pool.free {
            self.starved.starved_tasks.insert(task());
            return Some(RefusalReason::TooFewSlots { wanted: instance.pool_slots, free: pool.free });
        }
        if self.executing_by_run.get(&instance.dag_run_id).copied().unwrap_or(0) >= candidate.max_active_tasks
        {
            self.starved.starved_runs.insert(instance.dag_run_id);
            return Some(RefusalReason::RunFull);
        }
        let active = self.active_by_task.get(&task()).copied().unwrap_or(0);
        if candidate.max_active_tis_per_dag.is_some_and(|limit| active >= limit) {
            self.starved.starved_tasks.insert(task());
            return Some(RefusalReason::TaskFull);
        }
        let in_run = (instance.dag_run_id, instance.task_id.clone());
        let active = self.active_by_task_of_run.get(&in_run).copied().unwrap_or(0);
        if candidate.max_active_tis_per_dagrun.is_some_and(|limit| active >= limit) {
            self.starved.starved_tasks_of_runs.insert(in_run);
            return Some(RefusalReason::TaskFullInRun);
        }
        None
    }

    fn admit(&mut self, candidate: Candidate) {
        let instance = candidate.task_instance;
        if let Some(pool) = self.pools.get_mut(&instance.pool)
            && pool.total >= 0
        {
            pool.free -= i64::from(instance.pool_slots);
        }
        *self.executing_by_run.entry(instance.dag_run_id).or_insert(0) += 1;
        *self.active_by_task.entry((instance.dag_id.clone(), instance.task_id.clone())).or_insert(0) += 1;
        *self.active_by_task_of_run.entry((instance.dag_run_id, instance.task_id.clone())).or_insert(0) += 1;
        self.room -= 1;
        self.plan.admitted.push(instance);
    }

    /// The limits that this admission works under.
    #[must_use]
    pub fn settings(&self) -> AdmissionSettings {
        self.settings
    }
}
