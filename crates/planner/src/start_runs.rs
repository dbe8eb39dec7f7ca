//! Which queued runs begin (`airflow/jobs/scheduler_job_runner.py: _start_queued_dagruns`).

use std::collections::BTreeMap;

use gust_model::{BackfillId, DagId, DagRunId, record::DagRun};

/// How many runs are running, of each DAG outside backfills and of each backfill.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunningCounts {
    counts: BTreeMap<(DagId, Option<BackfillId>), u32>,
}

impl RunningCounts {
    /// Sets what is known of a DAG's runs, or of a backfill's.
    pub fn set(&mut self, dag_id: DagId, backfill_id: Option<BackfillId>, running: u32) {
        self.counts.insert((dag_id, backfill_id), running);
    }
}

/// What is to be done about one queued run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartDecision {
    /// It becomes running, and its start is now.
    Start(DagRunId),
    /// It stays queued: as many run as may.
    AtLimit(DagRunId),
}

/// Decides run after run, counting those that it starts.
#[derive(Debug, Clone, Default)]
pub struct StartRuns {
    running: RunningCounts,
}

impl StartRuns {
    /// Begins with what is running.
    #[must_use]
    pub fn begin(running: RunningCounts) -> Self {
        Self { running }
    }

    /// Decides about the next queued run, in the caller's order (runs outside backfills first, then by `run_after`).
    /// `max_active_runs` is the backfill's for a run of one, and otherwise the DAG's; 0 is no limit, as in Airflow.
    pub fn decide(&mut self, run: &DagRun, max_active_runs: u32) -> StartDecision {
        let count = self.running.counts.entry((run.dag_id.clone(), run.backfill_id)).or_insert(0);
        let is_bound = run.backfill_id.is_some() || max_active_runs > 0;
        if is_bound && *count >= max_active_runs {
            return StartDecision::AtLimit(run.id);
        }
        *count += 1;
        StartDecision::Start(run.id)
    }
}
