use std::fmt::Write as _;

use gust_model::{
    dag::{Dag, GroupChild, GroupIndex, Task, TaskIndex, TriggerRule},
    record::DagRecord,
};
use gust_operations::{Param, dag_params, latest_dag};
use gust_ports::metastore::TxMode;
use serde_json::{Value, json};

use super::find;
use crate::{
    house::House,
    output::{Out, row, visible, with},
};

/// `gust dags show`.
pub async fn run(house: &House, dag_id: &str, out: &mut Out) -> anyhow::Result<()> {
    let mut tx = house.store.begin(TxMode::Read).await?;
    let record = find::dag(&mut *tx, dag_id).await?;
    let Some((record, dag)) = latest_dag(&mut *tx, &record.dag_id).await? else {
        anyhow::bail!("the DAG {dag_id} was removed while it was read");
    };
    let version = tx.dag_version(record.current_version_id).await?;
    let number = version.map(|version| version.version_number);
    if out.is_structured() {
        out.value(&structured(&record, &dag, number)?)?;
        return Ok(());
    }
    let object = with(row(&record)?, [("version", number.into())]);
    let always = [
        "dag_id",
        "description",
        "timetable_description=schedule",
        "next_run.run_after=next_run",
        "is_paused",
        "owners",
        "tags",
        "relative_fileloc=file",
        "bundle_name=bundle",
        "version",
        "max_active_runs",
        "max_active_tasks",
    ];
    let mut fields = always.to_vec();
    if record.is_stale {
        fields.push("is_stale");
    }
    if record.has_import_errors {
        fields.push("has_import_errors");
    }
    out.details(&fields, &object)?;
    let params = dag_params(&dag);
    if !params.is_empty() {
        out.line("\nParams")?;
        for param in &params {
            out.line(&format!("  {}", describe(param)))?;
        }
    }
    out.line(&format!("\nTasks ({})", dag.tasks().len()))?;
    out.raw(&tree(&dag))?;
    Ok(())
}

fn describe(param: &Param) -> String {
    let default = param.default.as_ref().map_or_else(|| "must be given".to_owned(), Value::to_string);
    let about = param.description.as_ref().map(|text| format!("  {text}")).unwrap_or_default();
    format!("{} = {default}{about}", param.name)
}

fn structured(record: &DagRecord, dag: &Dag, version: Option<i32>) -> anyhow::Result<Value> {
    let tasks: Vec<Value> = dag.topological().iter().map(|&index| task_value(dag, index)).collect();
    let params: Vec<Value> = dag_params(dag)
        .into_iter()
        .map(|param| {
            json!({
                "name": param.name, "default": param.default, "description": param.description,
                "schema": param.schema,
            })
        })
        .collect();
    Ok(with(
        row(record)?,
        [
            ("version", version.into()),
            ("start_date", serde_json::to_value(dag.start_date)?),
            ("catchup", dag.catchup.into()),
            ("params", params.into()),
            ("tasks", tasks.into()),
        ],
    ))
}

/// A task as a row of listings.
pub fn task_value(dag: &Dag, index: TaskIndex) -> Value {
    let task = dag.task(index);
    let links = dag.links(index);
    let ids = |of: &[TaskIndex]| of.iter().map(|at| dag.task(*at).task_id.to_string()).collect::<Vec<_>>();
    json!({
        "task_id": task.task_id,
        "operator": operator(task),
        "group": dag.group(task.group).group_id,
        "is_mapped": task.needs_expansion,
        "is_setup": task.is_setup,
        "is_teardown": task.is_teardown,
        "trigger_rule": task.trigger_rule.as_str(),
        "retries": task.retries,
        "pool": task.pool,
        "queue": task.queue,
        "owner": task.owner,
        "upstream": ids(&links.upstream),
        "downstream": ids(&links.downstream),
    })
}

fn operator(task: &Task) -> &str {
    task.operator_name.as_deref().unwrap_or(&task.task_type)
}

/// The tasks within their groups, each group's in the order in which they can run, each with what it waits for.
fn tree(dag: &Dag) -> String {
    let mut rank = vec![0; dag.tasks().len()];
    for (place, index) in dag.topological().iter().enumerate() {
        rank[index.at()] = place;
    }
    let mut lines = Vec::new();
    branch(dag, GroupIndex::ROOT, "", &rank, &mut lines);
    let width = lines.iter().map(|line| line.head.chars().count()).max().unwrap_or(0).min(60);
    let kind_width = lines.iter().map(|line| line.kind.chars().count()).max().unwrap_or(0).min(30);
    let mut text = String::new();
    for line in lines {
        let full = format!("{:width$}  {:kind_width$}  {}", line.head, line.kind, line.notes);
        let _ = writeln!(text, "{}", full.trim_end());
    }
    text
}

struct Line {
    head: String,
    kind: String,
    notes: String,
}

fn branch(dag: &Dag, group: GroupIndex, prefix: &str, rank: &[usize], lines: &mut Vec<Line>) {
    let mut children = dag.group(group).children.clone();
    children.sort_by_key(|child| first_rank(dag, *child, rank));
    let last = children.len().saturating_sub(1);
    for (at, child) in children.into_iter().enumerate() {
        let (corner, below) = if at == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        match child {
            GroupChild::Task(index) => {
                let task = dag.task(index);
                lines.push(Line {
                    head: format!("{prefix}{corner}{}", visible(task.task_id.as_str())),
                    kind: visible(operator(task)),
                    notes: notes(dag, index),
                });
            }
            GroupChild::Group(index) => {
                let inner = dag.group(index);
                let name = inner.group_id.as_deref().unwrap_or_default();
                let kind = if inner.expand.is_some() { "mapped task group" } else { "task group" };
                lines.push(Line {
                    head: format!("{prefix}{corner}{}", visible(name)),
                    kind: kind.to_owned(),
                    notes: String::new(),
                });
                branch(dag, index, &format!("{prefix}{below}"), rank, lines);
            }
        }
    }
}

fn first_rank(dag: &Dag, child: GroupChild, rank: &[usize]) -> usize {
    match child {
        GroupChild::Task(index) => rank[index.at()],
        GroupChild::Group(group) => {
            let children = &dag.group(group).children;
            children.iter().map(|child| first_rank(dag, *child, rank)).min().unwrap_or(usize::MAX)
        }
    }
}

fn notes(dag: &Dag, index: TaskIndex) -> String {
    let task = dag.task(index);
    let mut notes = Vec::new();
    let upstream: Vec<String> =
        dag.links(index).upstream.iter().map(|at| visible(dag.task(*at).task_id.as_str())).collect();
    if !upstream.is_empty() {
        notes.push(format!("after {}", upstream.join(", ")));
    }
    if task.is_mapped() {
        notes.push("mapped".to_owned());
    }
    if task.is_setup {
        notes.push("setup".to_owned());
    }
    if task.is_teardown {
        notes.push("teardown".to_owned());
    } else if task.trigger_rule != TriggerRule::AllSuccess {
        notes.push(task.trigger_rule.as_str().to_owned());
    }
    if task.retries > 0 {
        notes.push(format!("{} retries", task.retries));
    }
    if task.pool.as_str() != gust_model::record::DEFAULT_POOL {
        notes.push(format!("pool {}", visible(task.pool.as_str())));
    }
    notes.join("; ")
}
