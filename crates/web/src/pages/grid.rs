//! The grid of runs × tasks.

use std::collections::BTreeMap;

use gust_model::{
    DagRunId,
    dag::{Dag, GroupChild, GroupIndex, TaskIndex},
    record::{DagRun, Timestamp},
};
use maud::{Markup, html};

use super::{
    graph::{group_name, short_name},
    reads::{Cell, Cells},
    urls,
    view::{self, Stated as _},
};

/// How tall the longest run's bar is, in pixels.
const BAR: f64 = 44.0;
/// How many rows a page shows.
const ROWS: usize = 250;

/// One row: a task, or a group that stands for what is in it.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    kind: RowKind,
    depth: usize,
    parent: Option<GroupIndex>,
}

#[derive(Debug, Clone, PartialEq)]
enum RowKind {
    Task(TaskIndex),
    Group(GroupIndex, Vec<TaskIndex>),
}

/// All rows: each group followed by what is in it, in the order in which it runs.
fn rows(dag: &Dag) -> Vec<Row> {
    let mut rank = BTreeMap::new();
    for (at, task) in dag.topological().iter().enumerate() {
        rank.insert(*task, at);
    }
    let mut found = Vec::new();
    add_rows(dag, GroupIndex::ROOT, 0, &rank, &mut found);
    found
}

fn tasks_of(dag: &Dag, group: GroupIndex) -> Vec<TaskIndex> {
    let mut found = Vec::new();
    for child in &dag.group(group).children {
        match child {
            GroupChild::Task(task) => found.push(*task),
            GroupChild::Group(group) => found.extend(tasks_of(dag, *group)),
        }
    }
    found
}

fn add_rows(
    dag: &Dag,
    group: GroupIndex,
    depth: usize,
    rank: &BTreeMap<TaskIndex, usize>,
    found: &mut Vec<Row>,
) {
    let parent = (group != GroupIndex::ROOT).then_some(group);
    let first = |tasks: &[TaskIndex]| tasks.iter().filter_map(|task| rank.get(task)).min().copied();
    let mut children: Vec<(Option<usize>, RowKind)> = dag
        .group(group)
        .children
        .iter()
        .map(|child| match child {
            GroupChild::Task(task) => (first(&[*task]), RowKind::Task(*task)),
            GroupChild::Group(group) => {
                let tasks = tasks_of(dag, *group);
                (first(&tasks), RowKind::Group(*group, tasks))
            }
        })
        .collect();
    children.sort_by_key(|(rank, _)| rank.unwrap_or(usize::MAX));
    for (_, kind) in children {
        let inner = if let RowKind::Group(group, _) = &kind { Some(*group) } else { None };
        found.push(Row { kind, depth, parent });
        if let Some(group) = inner {
            add_rows(dag, group, depth + 1, rank, found);
        }
    }
}

fn indent(depth: usize) -> &'static str {
    ["", "i1", "i2", "i3", "i4"][depth.min(4)]
}

/// The grid: `runs` from old to new.
pub(super) fn grid(
    dag: &Dag,
    runs: &[DagRun],
    cells: &BTreeMap<DagRunId, Cells>,
    selected: Option<DagRunId>,
    now: Timestamp,
) -> Markup {
    let dag_id = dag.dag_id.as_str();
    let length = |run: &DagRun| {
        run.start_date.map_or(0.0, |start| view::seconds_between(start, run.end_date.unwrap_or(now)).max(0.0))
    };
    let longest = runs.iter().map(length).fold(0.001, f64::max);
    let all = rows(dag);
    let sel = |run: &DagRun| (Some(run.id) == selected).then_some("sel");
    html! {
        div.scroll {
            table.grid data-dag=(dag_id) {
                thead {
                    tr {
                        th.when scope="col" {
                            @if !runs.is_empty() {
                                (view::duration(longest))
                                br;
                                "longest run"
                            }
                        }
                        @for run in runs {
                            th.run.(sel(run).unwrap_or_default()) scope="col" data-key=(run.id) {
                                a href=(urls::run(dag_id, run.run_id.as_str())) title=(run_title(run, length(run))) aria-label=(run_title(run, length(run))) {
                                    @let height = (length(run) / longest * BAR).max(3.0).round();
                                    svg.(run.state.class()) width="10" height=(height) aria-hidden="true" {
                                        rect width="10" height=(height) rx="2" {}
                                    }
                                    span.kind aria-hidden="true" { (view::kind_letter(run.run_type)) }
                                }
                            }
                        }
                    }
                }
                tbody {
                    @for row in all.iter().take(ROWS) { (grid_row(dag, row, runs, cells, &sel)) }
                }
            }
        }
        @if all.len() > ROWS {
            p.empty { (all.len() - ROWS) " more tasks are not shown here; a run's own page lists them all." }
        }
    }
}

fn run_title(run: &DagRun, seconds: f64) -> String {
    let took =
        if run.start_date.is_some() { format!(", {}", view::duration(seconds)) } else { String::new() };
    format!("{} · {} · {}{took}", run.run_id, run.run_type, run.state)
}

fn grid_row(
    dag: &Dag,
    row: &Row,
    runs: &[DagRun],
    cells: &BTreeMap<DagRunId, Cells>,
    sel: &impl Fn(&DagRun) -> Option<&'static str>,
) -> Markup {
    let dag_id = dag.dag_id.as_str();
    let parent = row.parent.map(|group| group.0);
    match &row.kind {
        RowKind::Task(index) => {
            let task = dag.task(*index);
            html! {
                tr data-key={ "t-" (task.task_id) } data-parent=[parent] {
                    th scope="row" title={ (task.task_id) " · " (task.operator_name.as_deref().unwrap_or(&task.task_type)) } {
                        span.(indent(row.depth)) {
                            (short_name(dag, *index))
                            @if task.is_mapped() { span.muted { " [ ]" } }
                        }
                    }
                    @for run in runs {
                        td class=[sel(run)] {
                            @if let Some(cell) = cells.get(&run.id).and_then(|cells| cells.get(&task.task_id)) {
                                a.(cell.state().class()).m[cell.is_mapped] href=(urls::task(dag_id, run.run_id.as_str(), task.task_id.as_str())) title=(cell_title(cell)) {}
                            }
                        }
                    }
                }
            }
        }
        RowKind::Group(index, tasks) => {
            let group = dag.group(*index);
            let name = group_name(dag, *index);
            html! {
                tr data-key={ "g-" (index.0) } data-group=(index.0) data-parent=[parent] {
                    th scope="row" title=(group.group_id.as_deref().unwrap_or_default()) {
                        span.(indent(row.depth)) {
                            button.group type="button" aria-expanded="true" {
                                span.caret aria-hidden="true" { "▸" }
                                (name)
                                @if group.expand.is_some() { span.muted { " [ ]" } }
                            }
                        }
                    }
                    @for run in runs {
                        td class=[sel(run)] {
                            @if let Some(cell) = group_cell(dag, tasks, cells.get(&run.id)) {
                                a.(cell.state().class()).m href=(urls::run(dag_id, run.run_id.as_str())) title={ (name) ": " (cell.summary()) } tabindex="-1" {}
                            }
                        }
                    }
                }
            }
        }
    }
}

fn group_cell(dag: &Dag, tasks: &[TaskIndex], cells: Option<&Cells>) -> Option<Cell> {
    let cells = cells?;
    let mut merged: Option<Cell> = None;
    for cell in tasks.iter().filter_map(|task| cells.get(&dag.task(*task).task_id)) {
        merged.get_or_insert_default().merge(cell);
    }
    merged
}

fn cell_title(cell: &Cell) -> String {
    if cell.is_mapped {
        return cell.summary();
    }
    let mut text = cell.state().name().to_owned();
    if let (Some(start), Some(end)) = (cell.start, cell.end) {
        text.push_str(", ");
        text.push_str(&view::duration(view::seconds_between(start, end)));
    }
    if cell.try_number > 1 {
        text.push_str(", try ");
        text.push_str(&cell.try_number.to_string());
    }
    text
}
