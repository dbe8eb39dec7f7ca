use std::sync::Arc;

use gust_model::{
    BackfillId, DagId, DagRunId, DagRunState, DagRunType, RunId, TriggeredBy,
    record::{DagRun, Timestamp},
};
use gust_planner::CreatedRun;
use gust_ports::{
    Tx, Wake,
    metastore::{DagRunFilter, Page, TimeRange, TxMode, transact},
};
use gust_timetable::{DataInterval, Timetable};
use serde_json::Value;

use crate::{OperationError, Ports, graph::latest_dag, params::check_conf};

/// How long an id may be (`airflow/models/base.py: ID_LEN`).
const MAX_ID_CHARS: usize = 250;

/// A run that somebody asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct TriggerRequest {
    /// The DAG.
    pub dag_id: DagId,
    /// The run's id; made from the moment if absent.
    pub run_id: Option<RunId>,
    /// [`DagRunType::Manual`], or what a task or a materialization asks for.
    pub run_type: DagRunType,
    /// The date it stands for, if any.
    pub logical_date: Option<Timestamp>,
    /// Its data interval; the timetable's if absent. Only with a logical date.
    pub data_interval: Option<(Timestamp, Timestamp)>,
    /// It does not start before this; at once if absent.
    pub run_after: Option<Timestamp>,
    /// Its parameters: null or an object.
    pub conf: Value,
    /// A note.
    pub note: Option<String>,
    /// The partition it stands for.
    pub partition_key: Option<String>,
    /// Through which door it comes.
    pub triggered_by: TriggeredBy,
    /// Who asks.
    pub triggering_user: Option<String>,
    /// The backfill it belongs to.
    pub backfill_id: Option<BackfillId>,
}

impl TriggerRequest {
    /// A plain run of a DAG: now, without a logical date.
    #[must_use]
    pub fn new(dag_id: DagId, triggered_by: TriggeredBy) -> Self {
        Self {
            dag_id,
            run_id: None,
            run_type: DagRunType::Manual,
            logical_date: None,
            data_interval: None,
            run_after: None,
            conf: Value::Null,
            note: None,
            partition_key: None,
            triggered_by,
            triggering_user: None,
            backfill_id: None,
        }
    }
}

/// Makes a run.
///
/// # Errors
/// [`OperationError::DagNotFound`] for a DAG that is not there or stale, [`OperationError::Refused`] for one with
/// import errors or a request that makes no sense, [`OperationError::Exists`] if the DAG has a run with the same id or
/// logical date.
pub async fn trigger_dag_run(ports: Ports<'_>, request: TriggerRequest) -> Result<DagRun, OperationError> {
    let request = Arc::new(request);
    let row = DagRunId(ports.ids.fresh());
    let random = ports.ids.random_letters();
    let run = transact(ports.metastore, TxMode::Write, move |tx| {
        let (request, random) = (Arc::clone(&request), random.clone());
        Box::pin(async move { trigger_dag_run_in(tx, &request, row, &random).await })
    })
    .await?;
    ports
        .wake_all(vec![Wake::Run { dag_id: run.dag_id.clone(), run_id: run.run_id.clone(), plan: true }])
        .await;
    Ok(run)
}

/// Makes a run within a transaction of the caller, who wakes the scheduler after the commit. `random`
/// ([`gust_ports::Ids::random_letters`]) ends the run's id if it has no other; `row` names the new row.
///
/// # Errors
/// As [`trigger_dag_run`].
pub async fn trigger_dag_run_in(
    tx: &mut dyn Tx,
    request: &TriggerRequest,
    row: DagRunId,
    random: &str,
) -> Result<DagRun, OperationError> {
    let dag_id = &request.dag_id;
    let (record, dag) = latest_dag(tx, dag_id)
        .await?
        .filter(|(record, _)| !record.is_stale)
        .ok_or_else(|| OperationError::DagNotFound(dag_id.clone()))?;
    let refuse = |text: String| Err(OperationError::Refused(text));
    if record.has_import_errors {
        return refuse(format!("Dag with dag_id: '{dag_id}' has import errors and cannot be triggered"));
    }
    if dag.allowed_run_types.as_ref().is_some_and(|allowed| !allowed.contains(request.run_type.as_str())) {
        return refuse(format!("Dag with dag_id: '{dag_id}' does not allow {} runs", request.run_type));
    }
    let timetable = Timetable::from_serialized(&dag.timetable)
        .map_err(|error| OperationError::Unreadable { dag_id: dag_id.clone(), reason: error.to_string() })?;
    check_partition_key(dag_id, &timetable, request.partition_key.as_deref())?;
    check_conf(&dag, &request.conf)?;

    let now = tx.now().await?;
    let run_after = request.run_after.unwrap_or(now);
    let interval = data_interval(request, &timetable, run_after)?;
    let run_id = if let Some(run_id) = &request.run_id {
        check_run_id(run_id, request.run_type)?;
        run_id.clone()
    } else {
        let key = request.partition_key.as_deref();
        RunId::from(timetable.generate_run_id(request.run_type, run_after, key, random))
    };
    let created = CreatedRun {
        run_id,
        run_type: request.run_type,
        triggered_by: request.triggered_by,
        state: DagRunState::Queued,
        logical_date: request.logical_date,
        data_interval_start: interval.map(|interval| interval.start),
        data_interval_end: interval.map(|interval| interval.end),
        run_after,
        partition_key: request.partition_key.clone(),
    };
    let run = DagRun {
        conf: request.conf.clone(),
        triggering_user: request.triggering_user.clone(),
        backfill_id: request.backfill_id,
        note: request.note.clone().filter(|note| !note.is_empty()),
        ..created.into_row(row, &dag, &record, now)
    };
    if !tx.insert_dag_run(&run).await? {
        return Err(OperationError::Exists(describe_twin(tx, &run).await?));
    }
    Ok(run)
}

fn data_interval(
    request: &TriggerRequest,
    timetable: &Timetable,
    run_after: Timestamp,
) -> Result<Option<DataInterval>, OperationError> {
    match (request.logical_date, request.data_interval) {
        (None, None) => Ok(None),
        (None, Some(_)) => {
            Err(OperationError::Refused("data_interval must be None when logical_date is None".into()))
        }
        (Some(_), Some((start, end))) => Ok(Some(DataInterval { start, end })),
        (Some(logical_date), None) => {
            // Airflow infers it from the logical date for the API, and from `run_after` for other doors.
            let from = match request.triggered_by {
                TriggeredBy::RestApi | TriggeredBy::Ui => logical_date,
                _ => run_after,
            };
            timetable
                .manual_run_interval(from)
                .map(Some)
                .map_err(|error| OperationError::Refused(format!("give a data interval: {error}")))
        }
    }
}

fn check_partition_key(
    dag_id: &DagId,
    timetable: &Timetable,
    key: Option<&str>,
) -> Result<(), OperationError> {
    let Some(key) = key else { return Ok(()) };
    if !timetable.is_partitioned() && *timetable != Timetable::PartitionedAtRuntime {
        return Err(OperationError::Refused(format!(
            "Dag '{dag_id}' is not a partitioned Dag; a partition key cannot be given"
        )));
    }
    if key.is_empty() || key.chars().count() > MAX_ID_CHARS {
        return Err(OperationError::Refused(format!("a partition key has 1 to {MAX_ID_CHARS} characters")));
    }
    Ok(())
}

fn check_run_id(run_id: &RunId, run_type: DagRunType) -> Result<(), OperationError> {
    let text = run_id.as_str();
    let refuse = |why: String| Err(OperationError::Refused(why));
    if text.contains("..") {
        return refuse(format!("The run_id '{text}' must not contain '..' to prevent path traversal"));
    }
    if text.chars().count() > MAX_ID_CHARS {
        return refuse(format!("The run_id '{text}' is longer than {MAX_ID_CHARS} characters"));
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.~:+-".contains(&b)) {
        return refuse(format!(
            "The run_id provided '{text}' does not match regex pattern '^[A-Za-z0-9_.~:+-]+$'"
        ));
    }
    let reserved = DagRunType::ALL.iter().find(|kind| {
        **kind != DagRunType::Manual
            && text.strip_prefix(kind.as_str()).is_some_and(|rest| rest.starts_with("__"))
    });
    match reserved {
        Some(kind) if run_type == DagRunType::Manual => refuse(format!(
            "A {run_type} DAG run cannot use ID '{text}' since it is reserved for {kind} runs"
        )),
        _ => Ok(()),
    }
}

async fn describe_twin(tx: &mut dyn Tx, run: &DagRun) -> Result<String, OperationError> {
    if tx.dag_run(&run.dag_id, &run.run_id).await?.is_some() {
        return Ok(format!(
            "a DagRun with dag_id: `{}` and run_id: `{}` already exists",
            run.dag_id, run.run_id
        ));
    }
    let twin = DagRunFilter {
        dag_ids: vec![run.dag_id.clone()],
        logical_date: TimeRange { gte: run.logical_date, lte: run.logical_date, ..TimeRange::default() },
        ..DagRunFilter::default()
    };
    let found = tx.dag_runs(&twin, &Page::first(1)).await?.items;
    Ok(match found.first() {
        Some(other) => format!(
            "the DagRun `{}` of dag_id: `{}` already stands for this logical date",
            other.run_id, run.dag_id
        ),
        None => format!("a DagRun like `{}` of dag_id: `{}` was just made", run.run_id, run.dag_id),
    })
}
