//! Finds what the command line names, and says what was probably meant where it is not there.

use anyhow::anyhow;
use gust_config::Config;
use gust_model::{
    DagId, DagRunState, MapIndex, RunId, TaskId,
    record::{DagRecord, DagRun, TaskInstance},
};
use gust_ports::{
    Tx,
    metastore::{DagFilter, DagRunFilter, DagRunSort, Direction, Page, TimeRange},
};

use super::{all_pages, moment};

/// The names most like `written`, the most like first: those within a third of typing errors, or that hold it.
pub fn nearest<'n>(written: &str, names: impl Iterator<Item = &'n str>) -> Vec<String> {
    let lower = written.to_lowercase();
    let mut near: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let candidate = name.to_lowercase();
            let distance = strsim::damerau_levenshtein(&lower, &candidate);
            let is_part = lower.len() >= 3 && candidate.contains(&lower);
            (distance * 3 <= name.chars().count().max(3) || is_part).then_some((distance, name))
        })
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

/// `no DAG x; did you mean y or z?`
pub fn missing<'n>(what: &str, written: &str, names: impl Iterator<Item = &'n str>) -> anyhow::Error {
    let mut is_any = false;
    let near = nearest(written, names.inspect(|_| is_any = true));
    match near.as_slice() {
        [] if !is_any => anyhow!("no {what} {written}; there is none at all yet"),
        [] => anyhow!("no {what} {written}"),
        near => anyhow!("no {what} {written}; did you mean {}?", near.join(" or ")),
    }
}

/// A DAG.
///
/// # Errors
/// When there is none of this id, with near names.
pub async fn dag(tx: &mut dyn Tx, dag_id: &str) -> anyhow::Result<DagRecord> {
    if let Some(record) = tx.dag(&DagId::from(dag_id)).await? {
        return Ok(record);
    }
    let all = all_pages!(u32::MAX, |limit, offset| {
        tx.dags(&DagFilter::default(), &Page { limit, offset, sort: Vec::new() }).await?
    });
    Err(missing("DAG", dag_id, all.iter().map(|dag| dag.dag_id.as_str())))
}

/// A run by its id or its logical date; `None` if there is none.
///
/// # Errors
/// The metastore's.
pub async fn run_if_any(
    tx: &mut dyn Tx,
    config: &Config,
    dag_id: &DagId,
    written: &str,
) -> anyhow::Result<Option<DagRun>> {
    if let Some(run) = tx.dag_run(dag_id, &RunId::from(written)).await? {
        return Ok(Some(run));
    }
    let Some(at) = moment::read(written, config) else { return Ok(None) };
    let filter = DagRunFilter {
        dag_ids: vec![dag_id.clone()],
        logical_date: TimeRange { gte: Some(at), lte: Some(at), ..TimeRange::default() },
        ..DagRunFilter::default()
    };
    Ok(tx.dag_runs(&filter, &Page::first(1)).await?.items.into_iter().next())
}

/// A run by its id or its logical date.
///
/// # Errors
/// When there is no such DAG or run, with near names.
pub async fn run(tx: &mut dyn Tx, config: &Config, dag_id: &str, written: &str) -> anyhow::Result<DagRun> {
    let dag_id = dag(tx, dag_id).await?.dag_id;
    match run_if_any(tx, config, &dag_id, written).await? {
        Some(run) => Ok(run),
        None => Err(no_run(tx, &dag_id, written).await?),
    }
}

async fn no_run(tx: &mut dyn Tx, dag_id: &DagId, written: &str) -> anyhow::Result<anyhow::Error> {
    let newest = Page { limit: 200, offset: 0, sort: vec![(DagRunSort::RunAfter, Direction::Descending)] };
    let filter = DagRunFilter { dag_ids: vec![dag_id.clone()], ..DagRunFilter::default() };
    let runs = tx.dag_runs(&filter, &newest).await?.items;
    let near = nearest(written, runs.iter().map(|run| run.run_id.as_str()));
    let hint = match (near.as_slice(), runs.first()) {
        ([], None) => "; it has no runs yet".to_owned(),
        ([], Some(newest)) => format!("; its newest is {}", newest.run_id),
        (near, _) => format!("; did you mean {}?", near.join(" or ")),
    };
    Ok(anyhow!("no run {written} of the DAG {dag_id}{hint}"))
}

/// A run and one of its tasks, named in either order: Airflow's commands name the task first, its pages the run.
///
/// # Errors
/// When there is no such DAG, run or task, with near names.
pub async fn run_and_task(
    tx: &mut dyn Tx,
    config: &Config,
    dag_id: &str,
    one: &str,
    other: &str,
) -> anyhow::Result<(DagRun, TaskId)> {
    let dag_id = dag(tx, dag_id).await?.dag_id;
    if let Some(run) = run_if_any(tx, config, &dag_id, one).await? {
        return Ok((run, TaskId::from(other)));
    }
    if let Some(run) = run_if_any(tx, config, &dag_id, other).await? {
        return Ok((run, TaskId::from(one)));
    }
    // Run ids of Airflow's making hold two underscores; task ids seldom do.
    let written = if other.contains("__") && !one.contains("__") { other } else { one };
    Err(no_run(tx, &dag_id, written).await?)
}

/// A run that no scheduler has looked at yet. Whoever follows waits for it.
#[derive(Debug, thiserror::Error)]
#[error("the run {run_id} of {dag_id} has no task instances yet: it is {state}")]
pub struct NotPlannedYet {
    run_id: RunId,
    dag_id: DagId,
    state: DagRunState,
}

/// A task instance of a run. Without an index a mapped task is not guessed at.
///
/// # Errors
/// When there is none, with near names, and when the index is left open and several are there.
pub async fn task_instance(
    tx: &mut dyn Tx,
    run: &DagRun,
    task_id: &TaskId,
    map_index: Option<i32>,
) -> anyhow::Result<TaskInstance> {
    let of_task = tx.task_instances_of(run.id, std::slice::from_ref(task_id)).await?;
    if of_task.is_empty() {
        let all = tx.task_instances_of(run.id, &[]).await?;
        if all.is_empty() {
            return Err(NotPlannedYet {
                run_id: run.run_id.clone(),
                dag_id: run.dag_id.clone(),
                state: run.state,
            }
            .into());
        }
        let what = format!("task in the run {} of {}:", run.run_id, run.dag_id);
        let error = missing(&what, task_id.as_str(), all.iter().map(|row| row.task_id.as_str()));
        return Err(error);
    }
    let indexes = || of_task.iter().map(|row| row.map_index.to_string()).collect::<Vec<_>>().join(", ");
    match map_index {
        Some(index) => {
            of_task.iter().find(|row| row.map_index == MapIndex(index)).cloned().ok_or_else(|| {
                anyhow!("the task {task_id} has no map index {index} in this run; it has {}", indexes())
            })
        }
        None if of_task.len() > 1 => Err(anyhow!(
            "the task {task_id} is mapped; name one of its instances by --map-index: {}",
            indexes()
        )),
        None => Ok(of_task[0].clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_offered_and_far_ones_are_not() {
        let names = ["example_bash", "example_python", "tutorial"];
        let near = missing("DAG", "example_bsah", names.into_iter()).to_string();
        assert_eq!(near, "no DAG example_bsah; did you mean example_bash?");
        assert_eq!(missing("DAG", "zzz", names.into_iter()).to_string(), "no DAG zzz");
        assert_eq!(missing("DAG", "x", [].into_iter()).to_string(), "no DAG x; there is none at all yet");
    }
}
