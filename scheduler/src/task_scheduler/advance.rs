use std::sync::Arc;

use gust_model::{DagRunId, DagRunState, record::Timestamp};
use gust_planner::{Advance, Plan, Poll};
use gust_ports::{
    Ids, MetastoreError, Tx, Wake,
    metastore::{DagGraphs, DagRunPatch, TxMode, transact},
};

use super::{apply, facts};
use crate::{Scheduler, SchedulerError, graphs::graph_of};

/// How many changed task instances one transaction takes on. A run with more is dirty still and is taken up again at
/// once, so that no transaction grows with the run.
const BATCH: u32 = 2_000;

/// What advancing a run came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Advanced {
    /// Whether it was looked at; another scheduler may hold it.
    pub was_taken: bool,
    /// Whether admission has new candidates or free slots.
    pub admits: bool,
    /// Whether the run ended.
    pub ended: bool,
    /// Whether more of it changed than one pass takes on.
    pub is_unfinished: bool,
    /// When it has to be looked at though nothing changes.
    pub next_due_at: Option<Timestamp>,
}

/// Advances one run by what changed in it.
pub(crate) async fn advance_run(scheduler: &Scheduler, id: DagRunId) -> Result<Advanced, SchedulerError> {
    let step = Step {
        graphs: Arc::clone(&scheduler.graphs),
        ids: Arc::clone(&scheduler.ids),
        settings: scheduler.settings.advance,
        id,
    };
    let outcome = transact(&*scheduler.store, TxMode::Write, |tx| {
        let step = step.clone();
        Box::pin(async move { step.run(tx).await })
    });
    let Some((run, plan, is_unfinished)) = outcome.await? else { return Ok(Advanced::default()) };
    scheduler.wakeups.wake(Wake::Run { dag_id: run.dag_id, run_id: run.run_id, plan: false }).await;
    Ok(Advanced {
        was_taken: true,
        admits: plan.scheduled_any || plan.freed_slots,
        ended: plan.ended.is_some(),
        is_unfinished,
        next_due_at: plan.next_due_at,
    })
}

#[derive(Clone)]
struct Step {
    graphs: Arc<DagGraphs>,
    ids: Arc<dyn Ids>,
    settings: gust_planner::AdvanceSettings,
    id: DagRunId,
}

impl Step {
    async fn run(
        &self,
        tx: &mut dyn Tx,
    ) -> Result<Option<(gust_model::record::DagRun, Plan, bool)>, SchedulerError> {
        let Some(run) = apply::lock(tx, self.id).await? else { return Ok(None) };
        if run.state != DagRunState::Running {
            return Ok(None);
        }
        let now = tx.now().await?;
        let dag = graph_of(&self.graphs, tx, &run.dag_id, run.dag_version_id).await?;
        let changed = tx.lock_changed_task_instances(run.id, now, BATCH).await?;
        let is_unfinished = u32::try_from(changed.len()).is_ok_and(|count| count == BATCH);
        let ids = &*self.ids;
        let mut pass = Advance::begin(&dag, run.clone(), changed, now, self.settings, || ids.fresh());
        let plan = loop {
            match pass.poll() {
                Poll::Need(request) => {
                    let reply = facts::load(tx, &run, &request).await?;
                    pass.supply(reply);
                }
                Poll::Done(plan) => break plan,
            }
        };
        apply::apply(tx, ids, &dag, &run, &plan, now).await?;
        Ok(Some((run, *plan, is_unfinished)))
    }
}

/// Sends a run that cannot be advanced behind all others, so that however many of them there are, they hold up nobody.
pub(crate) async fn put_last(scheduler: &Scheduler, id: DagRunId) -> Result<(), MetastoreError> {
    transact(&*scheduler.store, TxMode::Write, |tx| {
        Box::pin(async move {
            let now = tx.now().await?;
            let patch = DagRunPatch { last_scheduling_decision: Some(now), ..DagRunPatch::default() };
            tx.update_dag_run(id, &patch).await.map(drop)
        })
    })
    .await
}

/// Which runs have something to advance.
pub(crate) async fn runs_to_advance(
    scheduler: &Scheduler,
    limit: u32,
) -> Result<Vec<DagRunId>, MetastoreError> {
    let mut tx = scheduler.store.begin(TxMode::Read).await?;
    let now = tx.now().await?;
    let runs = tx.dag_runs_to_advance(now, limit).await?;
    tx.rollback().await?;
    Ok(runs)
}
