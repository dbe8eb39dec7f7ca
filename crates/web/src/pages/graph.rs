//! A DAG's graph as a picture.

use std::fmt::Write as _;

use gust_model::dag::{Dag, GroupIndex, TaskIndex};
use maud::{Markup, html};

use super::{
    layout::{CLUSTER_SIDE, CLUSTER_TOP, Layout, Node, Point, lay_out},
    reads::Cells,
    view::Stated as _,
};

const HEIGHT: f64 = 36.0;
/// A label longer than this is cut; the whole of it is in the title.
const MAX_LABEL: usize = 30;
/// How many letters the name of a state that a task is in for long has at most (`upstream_failed`).
const LONGEST_STATE: usize = 15;

/// A box around a group's tasks.
struct GroupBox {
    label: String,
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    depth: usize,
}

/// The groups around a task, the outermost first, without the root.
fn clusters(dag: &Dag, group: GroupIndex) -> Vec<usize> {
    let mut found = Vec::new();
    let mut current = group;
    while let Some(parent) = dag.group(current).parent {
        found.push(current.0 as usize);
        current = parent;
    }
    found.reverse();
    found
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[expect(clippy::cast_precision_loss, reason = "Labels are short.")]
fn width_of(label: &str, below: usize) -> f64 {
    (label.chars().count() as f64 * 6.9 + 30.0).max(below as f64 * 5.5 + 24.0).max(96.0)
}

/// The last part of a task's id: the groups around it are drawn.
pub(super) fn short_name(dag: &Dag, task: TaskIndex) -> &str {
    let task = dag.task(task);
    if let Some(name) = task.display_name.as_deref() {
        return name;
    }
    let id = task.task_id.as_str();
    let group = dag.group(task.group);
    group
        .group_id
        .as_deref()
        .filter(|_| group.prefix_group_id)
        .and_then(|group| id.strip_prefix(group)?.strip_prefix('.'))
        .unwrap_or(id)
}

/// A group's name without the names of the groups around it.
pub(super) fn group_name(dag: &Dag, index: GroupIndex) -> &str {
    let group = dag.group(index);
    let id = group.group_id.as_deref().unwrap_or_default();
    if !group.display_name.is_empty() && group.display_name != id {
        return &group.display_name;
    }
    let parent = group.parent.and_then(|parent| dag.group(parent).group_id.as_deref()).unwrap_or_default();
    id.strip_prefix(parent).and_then(|rest| rest.strip_prefix('.')).unwrap_or(id)
}

/// The picture, coloured by a run's cells where there is one; `address` is where a task leads to.
pub(super) fn picture(
    dag: &Dag,
    cells: Option<&Cells>,
    address: impl Fn(TaskIndex) -> Option<String>,
) -> Markup {
    let tasks: Vec<TaskIndex> = dag.task_indexes().collect();
    let labels: Vec<String> = tasks.iter().map(|&task| cut(short_name(dag, task), MAX_LABEL)).collect();
    let below: Vec<String> = tasks.iter().map(|&task| second_line(dag, task, cells)).collect();
    // With a run there is room for every state, so that nothing moves when one changes.
    let room = |task: TaskIndex, below: &str| match cells {
        Some(_) if dag.task(task).is_mapped() => LONGEST_STATE + 7,
        Some(_) => LONGEST_STATE + role(dag, task).len(),
        None => below.chars().count(),
    };
    let nodes: Vec<Node> = tasks
        .iter()
        .zip(labels.iter().zip(&below))
        .map(|(&task, (label, below))| Node {
            width: width_of(label, room(task, below)),
            height: HEIGHT,
            clusters: clusters(dag, dag.task(task).group),
        })
        .collect();
    let edges: Vec<(usize, usize)> = tasks
        .iter()
        .flat_map(|&task| dag.links(task).downstream.iter().map(move |to| (task.at(), to.at())))
        .collect();
    let layout = lay_out(&nodes, &edges);
    let boxes = group_boxes(dag, &nodes, &layout);
    let (width, height) = (layout.width.ceil(), layout.height.ceil());
    html! {
        div.gr tabindex="0" role="group" aria-label="Graph of tasks" {
            svg width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) } role="img" aria-label="Tasks and what they wait for" {
                defs {
                    marker #arrow viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto" {
                        path.arrow d="M0 0 8 4 0 8z" {}
                    }
                }
                @for group in &boxes {
                    rect.group x=(group.left) y=(group.top) width=(group.width) height=(group.height) rx="8" {}
                    text.grouplabel x=(group.left + 7.0) y=(group.top + 12.5) { (group.label) }
                }
                @for points in &layout.edges { path.edge d=(curve(points)) marker-end="url(#arrow)" {} }
                @for (&task, text) in tasks.iter().zip(labels.iter().zip(&below)) {
                    (node(dag, task, text, &nodes[task.at()], layout.nodes[task.at()], cells, address(task)))
                }
            }
        }
    }
}

/// The line below a task's name: its state in the run, or its kind where there is no run.
fn second_line(dag: &Dag, index: TaskIndex, cells: Option<&Cells>) -> String {
    let task = dag.task(index);
    let kind = task.operator_name.as_deref().unwrap_or(&task.task_type);
    let mut line = match cells.and_then(|cells| cells.get(&task.task_id)) {
        Some(cell) if cell.is_mapped => format!("{} × {}", cell.state().name(), cell.total()),
        Some(cell) => cell.state().name().to_owned(),
        None if task.is_mapped() => format!("{} [ ]", cut(kind, MAX_LABEL)),
        None => cut(kind, MAX_LABEL),
    };
    line.push_str(role(dag, index));
    line
}

/// What a task is beside a task.
fn role(dag: &Dag, index: TaskIndex) -> &'static str {
    let task = dag.task(index);
    if task.is_setup {
        " · setup"
    } else if task.is_teardown {
        " · teardown"
    } else {
        ""
    }
}

fn node(
    dag: &Dag,
    index: TaskIndex,
    (label, below): (&String, &String),
    size: &Node,
    at: Point,
    cells: Option<&Cells>,
    address: Option<String>,
) -> Markup {
    let task = dag.task(index);
    let cell = cells.and_then(|cells| cells.get(&task.task_id));
    let class = cell.map_or("plain", |cell| cell.state().class());
    let kind = task.operator_name.as_deref().unwrap_or(&task.task_type);
    let title = match cell {
        Some(cell) => format!("{} ({kind}): {}", task.task_id, cell.summary()),
        None => format!("{} ({kind})", task.task_id),
    };
    let inner = html! {
        g.(class) {
            title { (title) }
            @if task.needs_expansion {
                rect.node x=(at.x + 4.0) y=(at.y + 4.0) width=(size.width) height=(size.height) rx="6" {}
            }
            rect.node x=(at.x) y=(at.y) width=(size.width) height=(size.height) rx="6" {}
            rect.mark x=(at.x) y=(at.y + 6.0) width="4" height=(size.height - 12.0) rx="2" {}
            text x=(at.x + 13.0) y=(at.y + 15.5) { (label) }
            text.sub x=(at.x + 13.0) y=(at.y + 28.5) { (below) }
        }
    };
    match address {
        Some(href) => html! { a href=(href) aria-label=(title) { (inner) } },
        None => inner,
    }
}

/// A smooth way through points: level at each of them.
fn curve(points: &[Point]) -> String {
    let mut path = String::new();
    for (at, point) in points.iter().enumerate() {
        let previous = points[at.saturating_sub(1)];
        let middle = f64::midpoint(previous.x, point.x);
        let (x, y) = (point.x, point.y);
        // Writing to a string does not fail.
        let _ = if at == 0 {
            write!(path, "M{x:.1} {y:.1}")
        } else if (previous.y - y).abs() < 0.5 {
            write!(path, "L{x:.1} {y:.1}")
        } else {
            write!(path, "C{middle:.1} {:.1} {middle:.1} {y:.1} {x:.1} {y:.1}", previous.y)
        };
    }
    path
}

/// Boxes around those groups whose box holds no stranger, the outermost first.
fn group_boxes(dag: &Dag, nodes: &[Node], layout: &Layout) -> Vec<GroupBox> {
    let mut boxes = Vec::new();
    for number in 1..dag.groups().len() {
        let is_inside = |at: usize| nodes[at].clusters.contains(&number);
        let members: Vec<usize> = (0..nodes.len()).filter(|&at| is_inside(at)).collect();
        if members.is_empty() {
            continue;
        }
        // Each level of groups within it needs room for a border.
        let depth_of = |at: usize| nodes[at].clusters.iter().position(|&one| one == number);
        let depth = members.first().and_then(|&at| depth_of(at)).unwrap_or_default();
        let inner = members.iter().map(|&at| nodes[at].clusters.len() - depth - 1).max().unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "Groups are not nested that deep.")]
        let levels = (inner + 1) as f64;
        let room = CLUSTER_SIDE * levels;
        let edge = |from: fn(Point, &Node) -> f64, pick: fn(f64, f64) -> f64, start: f64| {
            members.iter().map(|&at| from(layout.nodes[at], &nodes[at])).fold(start, pick)
        };
        let left = edge(|p, _| p.x, f64::min, f64::INFINITY) - room;
        let top = edge(|p, _| p.y, f64::min, f64::INFINITY) - CLUSTER_TOP * levels;
        let right = edge(|p, n| p.x + n.width, f64::max, 0.0) + room;
        let bottom = edge(|p, n| p.y + n.height, f64::max, 0.0) + room;
        let holds_stranger = (0..nodes.len()).any(|at| {
            let (p, n) = (layout.nodes[at], &nodes[at]);
            !is_inside(at) && p.x < right && p.x + n.width > left && p.y < bottom && p.y + n.height > top
        });
        if !holds_stranger {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "A width in pixels is small."
            )]
            let label = cut(
                group_name(dag, GroupIndex(u32::try_from(number).unwrap_or(0))),
                ((right - left - 10.0) / 6.6) as usize,
            );
            boxes.push(GroupBox { label, left, top, width: right - left, height: bottom - top, depth });
        }
    }
    boxes.sort_by_key(|group| group.depth);
    boxes
}
