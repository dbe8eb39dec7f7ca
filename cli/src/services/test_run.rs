use std::sync::Arc;

use anyhow::Context as _;
use futures::StreamExt as _;
use gust_config::Config;
use gust_model::{
    DagId, QueueName, RunId, TriggeredBy,
    record::{DagRun, TaskInstance},
};
use gust_operations::{Ports, TriggerRequest, trigger_dag_run};
use gust_ports::{Wake, metastore::TxMode};
use gust_scheduler::Target;
use gust_worker::Worker;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::parts::{
    DEFAULT_QUEUE, make_host, make_scheduler, make_triggerer, own_queue, process_dags, run_triggerer,
    run_worker, services, worker_config,
};
use crate::house::House;

/// A run that was tried out.
pub struct TestRun {
    /// The scratch house that it ran in; its logs can be read from there.
    pub house: House,
    /// The run at its end.
    pub run: DagRun,
    /// Its task instances, by task and index.
    pub task_instances: Vec<TaskInstance>,
}

/// Runs one DAG to its end in this process, in a scratch home, so that nothing of it stays. Variables, Connections and
/// pools are those of `house`. `each` is told of the run's task instances whenever they changed.
///
/// # Errors
/// When the DAG is not in the DAG folder, cannot be read, or the run cannot be made: why.
pub async fn test_run(
    house: &House,
    scratch: Config,
    dag_id: &DagId,
    request: TriggerRequest,
    mut each: impl FnMut(&[TaskInstance]),
) -> anyhow::Result<TestRun> {
    // The scratch house opens what the real one sealed.
    let scratch = House { cipher: Arc::clone(&house.cipher), ..House::open(scratch).await? };
    scratch.migrate().await?;
    copy_settings(house, &scratch).await?;
    let host = make_host(&scratch).await?;
    let mut looks = JoinSet::new();
    let mut wakes = scratch.wakeups.listen();
    process_dags(&scratch, &host, &mut looks);
    wait_for_dag(&scratch, dag_id).await?;

    let ports = Ports { metastore: &*scratch.store, wakeups: &*scratch.wakeups, ids: &*scratch.ids };
    let request = TriggerRequest { triggered_by: TriggeredBy::Test, ..request };
    let run = trigger_dag_run(ports, request).await?;

    let queue = own_queue();
    let queues = vec![QueueName::from(DEFAULT_QUEUE)];
    let scheduler = make_scheduler(&scratch, queue.clone(), Target::One(QueueName::from(DEFAULT_QUEUE)));
    let worker = Worker::new(services(&scratch, queue, &host), worker_config(&scratch, queues, None));
    let triggerer = make_triggerer(&scratch, &host);
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    let token = stop.clone();
    running.spawn(async move { scheduler.run(token.cancelled_owned()).await });
    let token = stop.clone();
    running.spawn(run_triggerer(triggerer, token));
    let token = stop.clone();
    running.spawn(run_worker(worker, token));

    let (run, task_instances) = loop {
        let (run, task_instances) = look(&scratch, dag_id, &run.run_id).await?;
        each(&task_instances);
        if run.state.is_finished() {
            break (run, task_instances);
        }
        // A wake-up that is lost is made up for by the next regular look.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), wakes.next()).await;
    };
    stop.cancel();
    looks.shutdown().await;
    while running.join_next().await.is_some() {}
    Ok(TestRun { house: scratch, run, task_instances })
}

async fn look(house: &House, dag_id: &DagId, run_id: &RunId) -> anyhow::Result<(DagRun, Vec<TaskInstance>)> {
    let mut tx = house.store.begin(TxMode::Read).await?;
    let run = tx.dag_run(dag_id, run_id).await?.context("the run was removed while it ran")?;
    let task_instances = tx.task_instances_of(run.id, &[]).await?;
    tx.rollback().await?;
    Ok((run, task_instances))
}

/// Waits until the DAG was read, or until the folder was and does not hold it.
async fn wait_for_dag(house: &House, dag_id: &DagId) -> anyhow::Result<()> {
    let mut changes = house.wakeups.listen();
    loop {
        let mut tx = house.store.begin(TxMode::Read).await?;
        let dag = tx.dag(dag_id).await?;
        let errors = tx.import_errors(5, 0).await?;
        let mut is_read = true;
        for (name, ..) in house.config.bundles() {
            is_read &= tx.current_bundle_version(&name.into()).await?.is_some();
        }
        tx.rollback().await?;
        if dag.is_some() {
            return Ok(());
        }
        if is_read {
            let found: Vec<_> = errors
                .items
                .iter()
                .map(|error| format!("\n{}:\n{}", error.filename, error.stack_trace))
                .collect();
            anyhow::bail!("no DAG {dag_id} in {}{}", house.config.core.dags_folder.display(), found.concat());
        }
        let next = async {
            while let Some(wake) = changes.next().await {
                if matches!(wake, Wake::Dag { .. }) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(std::time::Duration::from_millis(200), next).await;
    }
}

/// Copies what tasks look up: Variables, Connections and pools.
async fn copy_settings(from: &House, to: &House) -> anyhow::Result<()> {
    if from.store.check().await.is_err() {
        // A house that was never set up has none of them.
        return Ok(());
    }
    let mut source = from.store.begin(TxMode::Read).await?;
    let variables = source.variables("", u32::MAX, 0).await?.items;
    let connections = source.connections("", u32::MAX, 0).await?.items;
    let pools = source.pools().await?;
    source.rollback().await?;
    let mut target = to.store.begin(TxMode::Write).await?;
    for variable in &variables {
        target.put_variable(variable).await?;
    }
    for connection in &connections {
        target.put_connection(connection).await?;
    }
    for pool in &pools {
        target.put_pool(pool).await?;
    }
    target.commit().await?;
    Ok(())
}
