use gust_model::{
    DagRunState,
    record::{DagRun, Timestamp},
};
use gust_planner::{RunningCounts, StartDecision, StartRuns};
use gust_ports::{
    Wake,
    metastore::{DagRunPatch, LockWait, TxMode, transact},
};

use crate::{Scheduler, SchedulerError};

/// How many queued runs one pass looks at.
const BATCH: u32 = 256;

/// Starts queued runs as far as `max_active_runs` lets them. Returns how many.
pub(crate) async fn start_queued_runs(scheduler: &Scheduler) -> Result<usize, SchedulerError> {
    let mut tx = scheduler.store.begin(TxMode::Read).await?;
    let now = tx.now().await?;
    let queued = tx.dag_runs_to_start(now, BATCH).await?;
    tx.rollback().await?;
    let mut started = 0;
    for run in queued {
        match start(scheduler, &run).await {
            Ok(true) => {
                started += 1;
                let wake = Wake::Run { dag_id: run.dag_id, run_id: run.run_id, plan: false };
                scheduler.wakeups.wake(wake).await;
            }
            Ok(false) => {}
            Err(error) if error.concerns_all() => return Err(error),
            Err(error) => tracing::error!(dag_run = %run.id, %error, "the run was not started"),
        }
    }
    Ok(started)
}

/// Starts one run if there is room. The DAG's row is locked meanwhile, so that two schedulers do not both see the last
/// free place.
async fn start(scheduler: &Scheduler, queued: &DagRun) -> Result<bool, SchedulerError> {
    let outcome = transact(&*scheduler.store, TxMode::Write, |tx| {
        let queued = queued.clone();
        Box::pin(async move {
            let Some(record) = tx.lock_dag(&queued.dag_id).await? else { return Ok(false) };
            let Some(run) = tx.lock_dag_run(queued.id, LockWait::SkipLocked).await? else { return Ok(false) };
            if run.state != DagRunState::Queued || record.is_paused {
                return Ok(false);
            }
            let running =
                tx.count_dag_runs(&run.dag_id, &[DagRunState::Running], run.backfill_id.is_some()).await?;
            let mut counts = RunningCounts::default();
            counts.set(run.dag_id.clone(), run.backfill_id, u32::try_from(running).unwrap_or(u32::MAX));
            let limit = u32::try_from(record.max_active_runs).unwrap_or(0);
            match StartRuns::begin(counts).decide(&run, limit) {
                StartDecision::AtLimit(_) => Ok(false),
                StartDecision::Start(id) => {
                    let now: Timestamp = tx.now().await?;
                    let patch = DagRunPatch {
                        state: Some(DagRunState::Running),
                        // A cleared run keeps the start that it had.
                        start_date: Some(Some(
                            run.start_date.filter(|_| run.clear_number == 0).unwrap_or(now),
                        )),
                        is_dirty: Some(true),
                        ..DagRunPatch::default()
                    };
                    tx.update_dag_run(id, &patch).await?;
                    Ok::<_, SchedulerError>(true)
                }
            }
        })
    });
    outcome.await
}
