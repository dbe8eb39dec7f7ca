//! Task instances (`airflow/api_fastapi/execution_api/routes/task_instances.py`).

use gust_model::{
    MapIndex, TaskId, TaskInstanceState,
    dag::{Dag, GroupChild, GroupIndex},
    record::{TaskInstance, Timestamp},
};
use gust_ports::{
    Tx,
    metastore::{Direction, Page, TaskInstanceFilter, TaskInstanceSort, TimeRange},
};
use gust_python_host::messages::{
    GetPreviousTI, GetTICount, GetTaskBreadcrumbs, GetTaskRescheduleStartDate, GetTaskStates,
    PreviousTIResponse, PreviousTIResult, Reply, TICount, TaskBreadcrumbsResult, TaskRescheduleStartDate,
    TaskStatesResult, ToTask,
};
use serde_json::{Map, Value, json};

use super::{Desk, refused, run_rows::date_ranges};
use crate::{dags::graph_of, error::WorkerError};

/// What counts and states are asked by.
struct Query<'a> {
    dag_id: &'a str,
    map_index: Option<i64>,
    task_ids: Vec<TaskId>,
    run_ids: Option<&'a [String]>,
    logical_dates: Option<&'a [Timestamp]>,
    states: Vec<TaskInstanceState>,
}

impl Query<'_> {
    fn filters(&self) -> Vec<TaskInstanceFilter> {
        let map_index =
            self.map_index.filter(|&index| index >= 0).and_then(|index| i32::try_from(index).ok());
        date_ranges(self.logical_dates)
            .into_iter()
            .map(|logical_date| TaskInstanceFilter {
                dag_ids: vec![self.dag_id.into()],
                run_ids: self.run_ids.into_iter().flatten().map(|id| id.as_str().into()).collect(),
                task_ids: self.task_ids.clone(),
                map_indexes: map_index.map(MapIndex).into_iter().collect(),
                states: self.states.clone(),
                logical_date,
                ..TaskInstanceFilter::default()
            })
            .collect()
    }

    async fn count(&self, tx: &mut dyn Tx) -> Result<u64, WorkerError> {
        let mut count = 0;
        for filter in self.filters() {
            count += tx.task_instances(&filter, &Page::first(1)).await?.total;
        }
        Ok(count)
    }

    async fn rows(&self, tx: &mut dyn Tx) -> Result<Vec<TaskInstance>, WorkerError> {
        let mut rows = Vec::new();
        for filter in self.filters() {
            rows.extend(tx.task_instances(&filter, &Page::first(u32::MAX)).await?.items);
        }
        Ok(rows)
    }
}

fn task_ids(names: Option<&[String]>) -> Vec<TaskId> {
    names.unwrap_or_default().iter().map(|id| id.as_str().into()).collect()
}

/// All tasks in a group and in the groups within it; `None` if the DAG has no such group.
fn tasks_in_group(dag: &Dag, group_id: &str) -> Option<Vec<TaskId>> {
    let top = dag.groups().iter().find(|group| group.group_id.as_deref() == Some(group_id))?;
    let mut found = Vec::new();
    let mut groups = vec![top];
    while let Some(group) = groups.pop() {
        for child in &group.children {
            match child {
                GroupChild::Task(task) => found.push(dag.task(*task).task_id.clone()),
                GroupChild::Group(inner) => groups.push(group_at(dag, *inner)),
            }
        }
    }
    Some(found)
}

fn group_at(dag: &Dag, index: GroupIndex) -> &gust_model::dag::TaskGroup {
    dag.group(index)
}

fn states(names: Option<&[String]>) -> Result<Vec<TaskInstanceState>, Reply> {
    names
        .unwrap_or_default()
        .iter()
        .map(|name| match name.as_str() {
            "null" => Ok(TaskInstanceState::None),
            name => name.parse().map_err(|error| refused(422, "invalid", format!("{error}"))),
        })
        .collect()
}

impl Desk {
    /// The tasks of a group of the DAG's newest version.
    async fn group_tasks(
        &self,
        tx: &mut dyn Tx,
        dag_id: &str,
        group_id: &str,
    ) -> Result<Result<Vec<TaskId>, Reply>, WorkerError> {
        let missing =
            || refused(404, "not_found", format!("Task group {group_id} not found in DAG {dag_id}"));
        let Some(record) = tx.dag(&dag_id.into()).await? else { return Ok(Err(missing())) };
        let dag = graph_of(&self.dags, tx, record.current_version_id).await?;
        Ok(tasks_in_group(&dag, group_id).ok_or_else(missing))
    }

    pub(super) async fn count_task_instances(&self, m: &GetTICount) -> Result<Reply, WorkerError> {
        let states = match states(m.states.as_deref()) {
            Ok(states) => states,
            Err(reply) => return Ok(reply),
        };
        let mut tx = self.read().await?;
        let mut query = Query {
            dag_id: &m.dag_id,
            map_index: m.map_index,
            task_ids: task_ids(m.task_ids.as_deref()),
            run_ids: m.run_ids.as_deref(),
            logical_dates: m.logical_dates.as_deref(),
            states,
        };
        if let Some(group_id) = &m.task_group_id {
            let grouped = match self.group_tasks(&mut *tx, &m.dag_id, group_id).await? {
                Ok(tasks) => tasks,
                Err(reply) => return Ok(reply),
            };
            let named = std::mem::take(&mut query.task_ids);
            query.task_ids =
                grouped.into_iter().filter(|task| named.is_empty() || named.contains(task)).collect();
            if query.task_ids.is_empty() {
                query.task_ids.push(group_id.as_str().into());
            }
        }
        let count = i64::try_from(query.count(&mut *tx).await?).unwrap_or(i64::MAX);
        Ok(ToTask::TICount(TICount { count }).into())
    }

    pub(super) async fn task_states(&self, m: &GetTaskStates) -> Result<Reply, WorkerError> {
        let mut tx = self.read().await?;
        let mut query = Query {
            dag_id: &m.dag_id,
            map_index: m.map_index,
            task_ids: task_ids(m.task_ids.as_deref()),
            run_ids: m.run_ids.as_deref(),
            logical_dates: m.logical_dates.as_deref(),
            states: Vec::new(),
        };
        let mut rows = Vec::new();
        if let Some(group_id) = &m.task_group_id {
            if !query.task_ids.is_empty() {
                rows = query.rows(&mut *tx).await?;
            }
            query.task_ids = match self.group_tasks(&mut *tx, &m.dag_id, group_id).await? {
                Ok(tasks) => tasks,
                Err(reply) => return Ok(reply),
            };
            // A group without tasks has no states; no ids at all would mean every task.
            if !query.task_ids.is_empty() {
                rows.extend(query.rows(&mut *tx).await?);
            }
        } else {
            rows = query.rows(&mut *tx).await?;
        }
        let mut task_states: Map<String, Value> = Map::new();
        for row in rows {
            let name = if row.map_index.is_mapped() {
                format!("{}_{}", row.task_id, row.map_index)
            } else {
                row.task_id.to_string()
            };
            let run = task_states.entry(row.run_id.to_string()).or_insert_with(|| json!({}));
            run[name] = row.state.as_airflow().into();
        }
        Ok(ToTask::TaskStatesResult(TaskStatesResult { task_states }).into())
    }

    pub(super) async fn previous_task_instance(&self, m: &GetPreviousTI) -> Result<Reply, WorkerError> {
        let wanted: Vec<String> = m.state.iter().cloned().collect();
        let states = match states(Some(&wanted)) {
            Ok(states) => states,
            Err(reply) => return Ok(reply),
        };
        let mut tx = self.read().await?;
        let filter = TaskInstanceFilter {
            dag_ids: vec![m.dag_id.as_str().into()],
            task_ids: vec![m.task_id.as_str().into()],
            map_indexes: vec![MapIndex(i32::try_from(m.map_index).unwrap_or(-1))],
            states,
            logical_date: TimeRange { lt: m.logical_date, ..TimeRange::default() },
            ..TaskInstanceFilter::default()
        };
        let page =
            Page { limit: 1, offset: 0, sort: vec![(TaskInstanceSort::LogicalDate, Direction::Descending)] };
        let task_instance = match tx.task_instances(&filter, &page).await?.items.pop() {
            Some(row) => {
                let run = tx.dag_run_by_id(row.dag_run_id).await?;
                Some(PreviousTIResponse {
                    task_id: row.task_id.to_string(),
                    dag_id: row.dag_id.to_string(),
                    run_id: row.run_id.to_string(),
                    logical_date: run.and_then(|run| run.logical_date),
                    start_date: row.start_date,
                    end_date: row.end_date,
                    state: row.state.as_airflow().map(str::to_owned),
                    try_number: i64::from(row.try_number),
                    map_index: Some(i64::from(row.map_index.0)),
                    duration: row.duration(),
                })
            }
            None => None,
        };
        Ok(ToTask::PreviousTIResult(PreviousTIResult { task_instance }).into())
    }

    pub(super) async fn breadcrumbs(&self, m: &GetTaskBreadcrumbs) -> Result<Reply, WorkerError> {
        let mut tx = self.read().await?;
        let rows = match self.run_id(&mut *tx, &m.dag_id, &m.run_id).await? {
            Some(run) => tx.task_instances_of(run, &[]).await?,
            None => Vec::new(),
        };
        let breadcrumbs = rows
            .into_iter()
            .filter(|row| row.state.is_finished())
            .filter_map(|row| {
                let crumb = json!({
                    "task_id": row.task_id,
                    "map_index": row.map_index.0,
                    "state": row.state,
                    "operator": row.operator,
                    "duration": row.duration(),
                });
                match crumb {
                    Value::Object(crumb) => Some(crumb),
                    _ => None,
                }
            })
            .collect();
        Ok(ToTask::TaskBreadcrumbsResult(TaskBreadcrumbsResult { breadcrumbs }).into())
    }

    pub(super) async fn reschedule_start(
        &self,
        m: &GetTaskRescheduleStartDate,
    ) -> Result<Reply, WorkerError> {
        let asker = match self.itself(m.ti_id) {
            Ok(asker) => asker,
            Err(reply) => return Ok(reply),
        };
        let mut tx = self.read().await?;
        let row = &asker.task_instance;
        let first = tx.reschedules(row.id, row.try_number).await?.into_iter().next();
        let start_date = first.map(|reschedule| reschedule.start_date);
        Ok(ToTask::TaskRescheduleStartDate(TaskRescheduleStartDate { start_date }).into())
    }
}
