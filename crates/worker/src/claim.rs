//! Taking a try: one compare-and-set, and what its process has to be told.

use std::{path::PathBuf, sync::Arc};

use chrono::{DateTime, Utc};
use gust_model::{
    AttemptId, BundleVersion, DagRunType, Epoch, TaskInstanceId, TaskInstanceState,
    dag::Dag,
    record::{AssetEvent, DagRun, TaskInstance},
};
use gust_ports::{
    Tx,
    metastore::{DagGraphs, Guard, LeasePatch, TaskInstancePatch, TaskInstanceWrite, TxMode, XComFilter},
};
use gust_python_host::messages::{
    AssetAliasReferenceAssetEventDagRun, AssetEventDagRunReference, AssetReferenceAssetEventDagRun,
    BundleInfo, DagRun as WireDagRun, StartupDetails, TIRunContext, TaskInstance as WireTaskInstance,
};
use serde_json::{Map, Value};

use crate::{
    config::WorkerConfig,
    dags::{graph_of, task_of},
    error::WorkerError,
    services::Services,
};

/// A try that is ours until its lease ends.
#[derive(Debug, Clone)]
pub(crate) struct Claimed {
    pub(crate) task_instance: TaskInstance,
    pub(crate) run: DagRun,
    pub(crate) dag: Arc<Dag>,
    pub(crate) attempt_id: AttemptId,
    pub(crate) epoch: Epoch,
    pub(crate) relative_fileloc: String,
    pub(crate) bundle_name: gust_model::BundleName,
    pub(crate) bundle_version: Option<BundleVersion>,
    /// When the claim was asked for, on the monotonic clock: our own lease counts from there.
    pub(crate) asked_at: std::time::Duration,
    context: TIRunContext,
}

impl Claimed {
    /// The task, if its DAG version has it.
    pub(crate) fn task(&self) -> Option<&gust_model::dag::Task> {
        task_of(&self.dag, self.task_instance.task_id.as_str())
    }

    /// The task instance as the SDK names it.
    pub(crate) fn wire(&self) -> WireTaskInstance {
        wire_task_instance(&self.task_instance)
    }

    /// What the run looked like at the claim, for callbacks.
    pub(crate) fn context(&self) -> &TIRunContext {
        &self.context
    }

    /// What the process is told first.
    pub(crate) fn startup(&self, now: DateTime<Utc>) -> StartupDetails {
        StartupDetails {
            ti: self.wire(),
            dag_rel_path: self.relative_fileloc.clone(),
            bundle_info: BundleInfo {
                name: self.bundle_name.to_string(),
                version: self.bundle_version.as_ref().map(ToString::to_string),
            },
            start_date: self.task_instance.start_date.unwrap_or(now),
            ti_context: self.context.clone(),
            sentry_integration: String::new(),
        }
    }

    /// The folder of its code.
    pub(crate) async fn bundle_path(&self, services: &Services) -> Result<PathBuf, WorkerError> {
        let version = self.bundle_version.as_ref().ok_or_else(|| WorkerError::NoBundleVersion {
            dag: self.run.dag_id.to_string(),
            run: self.run.run_id.to_string(),
        })?;
        Ok(services.bundles.local_path(&self.bundle_name, version).await?)
    }
}

impl Claimed {
    /// What a claim would tell of a task instance that waits: for its callbacks, should it end without going on.
    pub(crate) async fn of_waiting(
        tx: &mut dyn Tx,
        services: &Services,
        dags: &DagGraphs,
        row: &TaskInstance,
        attempt_id: AttemptId,
    ) -> Result<Self, WorkerError> {
        let asked_at = services.clock.monotonic();
        gather(tx, dags, row.clone(), attempt_id, row.epoch, asked_at).await
    }
}

/// A task instance as the SDK names it.
pub(crate) fn wire_task_instance(row: &TaskInstance) -> WireTaskInstance {
    WireTaskInstance {
        id: row.id.0,
        task_id: row.task_id.to_string(),
        dag_id: row.dag_id.to_string(),
        run_id: row.run_id.to_string(),
        try_number: i64::from(row.try_number),
        dag_version_id: row.dag_version_id.0,
        map_index: i64::from(row.map_index.0),
        hostname: row.hostname.clone(),
        context_carrier: None,
        queue: row.queue.to_string(),
    }
}

/// Claims a try. `None` if it is not to be had: the hint was old, or another worker was faster.
pub(crate) async fn claim(
    services: &Services,
    config: &WorkerConfig,
    dags: &DagGraphs,
    id: TaskInstanceId,
    epoch: Epoch,
    attempt_id: AttemptId,
) -> Result<Option<Claimed>, WorkerError> {
    let asked_at = services.clock.monotonic();
    let mut tx = services.metastore.begin(TxMode::Write).await?;
    let claimed =
        tx.claim_task_instance(id, epoch, attempt_id, config.lease_ttl, &config.hostname, config.pid).await?;
    let task_instance = match claimed {
        Some(row) => row,
        // The answer to an earlier claim of ours may have been lost.
        None => match tx.task_instance(id).await? {
            Some(row) if is_ours(&row, epoch, attempt_id) => row,
            _ => return Ok(None),
        },
    };
    match gather(&mut *tx, dags, task_instance, attempt_id, epoch, asked_at).await {
        Ok(claimed) => {
            tx.commit().await?;
            Ok(Some(claimed))
        }
        // No worker will ever be able to run it: sent again and again it would stay queued for ever.
        Err(error @ (WorkerError::Missing { .. } | WorkerError::UnreadableDag { .. })) => {
            let now = tx.now().await?;
            let patch = TaskInstancePatch {
                state: Some(TaskInstanceState::Failed),
                is_dirty: Some(true),
                lease: LeasePatch::End,
                end_date: Some(Some(now)),
                ..TaskInstancePatch::default()
            };
            let write = TaskInstanceWrite { id, guard: Guard::Fence(epoch, attempt_id), patch };
            tx.update_task_instances(&[write]).await?;
            tx.commit().await?;
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// Reads what a try needs besides its row.
async fn gather(
    tx: &mut dyn Tx,
    dags: &DagGraphs,
    task_instance: TaskInstance,
    attempt_id: AttemptId,
    epoch: Epoch,
    asked_at: std::time::Duration,
) -> Result<Claimed, WorkerError> {
    let run = tx
        .dag_run_by_id(task_instance.dag_run_id)
        .await?
        .ok_or_else(|| WorkerError::Missing { what: format!("run of task instance {}", task_instance.id) })?;
    let dag = graph_of(dags, tx, task_instance.dag_version_id).await?;
    let record = tx
        .dag(&run.dag_id)
        .await?
        .ok_or_else(|| WorkerError::Missing { what: format!("DAG {}", run.dag_id) })?;
    let context = run_context(tx, &task_instance, &run, &dag).await?;
    Ok(Claimed {
        bundle_version: run.bundle_version.clone().or(record.bundle_version),
        bundle_name: record.bundle_name,
        relative_fileloc: record.relative_fileloc,
        task_instance,
        run,
        dag,
        attempt_id,
        epoch,
        asked_at,
        context,
    })
}

fn is_ours(row: &TaskInstance, epoch: Epoch, attempt_id: AttemptId) -> bool {
    row.state == TaskInstanceState::Running
        && row.epoch == epoch
        && row.lease.is_some_and(|lease| lease.attempt_id == attempt_id)
}

/// What the execution API would answer to the start of a try
/// (`airflow/api_fastapi/execution_api/routes/task_instances.py: ti_run`).
async fn run_context(
    tx: &mut dyn Tx,
    row: &TaskInstance,
    run: &DagRun,
    dag: &Dag,
) -> Result<TIRunContext, WorkerError> {
    let resumes = row.next_method.is_some();
    let is_sensor =
        task_of(dag, row.task_id.as_str()).is_none_or(|task| task.is_sensor || task.is_rescheduling);
    // Only a sensor can have been rescheduled, and only an earlier try or poke can have left an XCom behind. The
    // first try of anything else need not ask.
    let task_reschedule_count =
        if is_sensor { tx.reschedules(row.id, row.try_number).await?.len() } else { 0 };
    let xcom_keys_to_clear =
        if !resumes && (row.try_number > 1 || row.epoch.0 > 1 || task_reschedule_count > 0) {
            xcom_keys(tx, row).await?
        } else {
            Vec::new()
        };
    let events =
        if run.run_type == DagRunType::AssetTriggered { consumed_events(tx, run).await? } else { Vec::new() };
    Ok(TIRunContext {
        dag_run: wire_run(run, events),
        task_reschedule_count: i64::try_from(task_reschedule_count).unwrap_or(i64::MAX),
        max_tries: i64::from(row.max_tries),
        variables: Vec::new(),
        connections: Vec::new(),
        next_method: row.next_method.clone(),
        next_kwargs: if resumes { row.next_kwargs.clone() } else { Value::Null },
        xcom_keys_to_clear,
        should_retry: row.max_tries != 0 && row.try_number <= row.max_tries,
        start_date: if resumes { row.start_date } else { None },
    })
}

/// The keys of what an earlier try pushed. The SDK asks for their removal itself, since only it knows a custom XCom
/// backend that has to forget them as well.
async fn xcom_keys(tx: &mut dyn Tx, row: &TaskInstance) -> Result<Vec<String>, WorkerError> {
    let filter = XComFilter {
        dag_id: Some(row.dag_id.clone()),
        run_id: Some(row.run_id.clone()),
        task_id: Some(row.task_id.clone()),
        map_index: row.map_index.is_mapped().then_some(row.map_index),
        key: None,
    };
    let mut keys: Vec<String> =
        tx.xcoms(&filter, u32::MAX, 0).await?.items.into_iter().map(|xcom| xcom.key.key).collect();
    keys.dedup();
    Ok(keys)
}

/// The asset events that a run was made for.
pub(crate) async fn consumed_events(
    tx: &mut dyn Tx,
    run: &DagRun,
) -> Result<Vec<AssetEventDagRunReference>, WorkerError> {
    let events = tx.consumed_events(run.id).await?;
    let assets = crate::requests::assets_by_id(tx, events.iter().map(|event| event.asset_id)).await?;
    Ok(events
        .into_iter()
        .filter_map(|event| {
            let asset = assets.get(&event.asset_id)?;
            Some(wire_consumed(event, asset))
        })
        .collect())
}

fn wire_consumed(event: AssetEvent, asset: &gust_model::record::Asset) -> AssetEventDagRunReference {
    AssetEventDagRunReference {
        asset: AssetReferenceAssetEventDagRun {
            name: asset.name.clone(),
            uri: asset.uri.clone(),
            extra: object(&asset.extra),
        },
        extra: object(&event.extra),
        source_task_id: event.source_task_id.map(|id| id.to_string()),
        source_dag_id: event.source_dag_id.map(|id| id.to_string()),
        source_run_id: event.source_run_id.map(|id| id.to_string()),
        source_map_index: Some(i64::from(event.source_map_index.0)),
        source_aliases: event
            .source_aliases
            .into_iter()
            .map(|name| AssetAliasReferenceAssetEventDagRun { name })
            .collect(),
        timestamp: event.timestamp,
        partition_key: event.partition_key,
    }
}

pub(crate) fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// A run as the SDK reads it (`airflow/api_fastapi/execution_api/datamodels/taskinstance.py: DagRun`).
pub(crate) fn wire_run(run: &DagRun, consumed_asset_events: Vec<AssetEventDagRunReference>) -> WireDagRun {
    WireDagRun {
        dag_id: run.dag_id.to_string(),
        run_id: run.run_id.to_string(),
        logical_date: run.logical_date,
        data_interval_start: run.data_interval_start,
        data_interval_end: run.data_interval_end,
        run_after: run.run_after,
        start_date: run.start_date,
        end_date: run.end_date,
        clear_number: i64::from(run.clear_number),
        run_type: run.run_type.to_string(),
        state: run.state.to_string(),
        conf: Some(object(&run.conf)),
        triggering_user_name: run.triggering_user.clone(),
        consumed_asset_events,
        partition_key: run.partition_key.clone(),
        partition_date: None,
        note: run.note.clone(),
        team_name: None,
    }
}
