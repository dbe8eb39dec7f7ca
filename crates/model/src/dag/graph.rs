//! What follows from the DAG's edges, worked out once when it is read.

use super::{Dag, DagError, GroupIndex, Task, TaskGroup, TaskIndex, WeightRule};

/// A task's neighbours and everything about them that planning asks for again and again. All lists are sorted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TaskLinks {
    /// The tasks directly before it.
    pub upstream: Vec<TaskIndex>,
    /// The tasks directly after it.
    pub downstream: Vec<TaskIndex>,
    /// The mapped groups around it, the innermost first.
    pub mapped_groups: Vec<GroupIndex>,
    /// Direct upstreams that share a mapped group with it, so that each of its instances looks at its own index, with
    /// the innermost group that they share.
    pub index_upstream: Vec<(TaskIndex, GroupIndex)>,
    /// Direct downstreams that share a mapped group with it, with the innermost group that they share.
    pub index_downstream: Vec<(TaskIndex, GroupIndex)>,
    /// Direct downstreams whose [`crate::record::UpstreamTally`] counts its instances: all others.
    pub tallied_downstream: Vec<TaskIndex>,
    /// Whether a direct upstream is mapped or within a mapped group, so that its instances have to be counted.
    pub has_expanding_upstream: bool,
    /// Setups somewhere before it that it cannot run without: they have no teardown, or one after it
    /// (`airflow/_shared/dagnode/node.py: get_upstreams_only_setups`).
    pub relevant_setups: Vec<TaskIndex>,
    /// Those of them that are not directly before it; none for a teardown.
    pub indirect_setups: Vec<TaskIndex>,
    /// Teardowns of this setup, or, for others, nothing: its direct downstreams that tear down.
    pub teardowns: Vec<TaskIndex>,
    /// For a teardown: what lies between its setups and it, other than directly before it. It waits for all of that.
    pub teardown_scope: Vec<TaskIndex>,
    /// The tasks whose values its own `expand` needs.
    pub own_dependencies: Vec<TaskIndex>,
    /// The tasks whose values decide how often it is there: its own, or else those of the closest mapped group
    /// (`airflow/ti_deps/deps/mapped_task_upstream_dep.py`).
    pub mapped_dependencies: Vec<TaskIndex>,
    /// The same, with those of all mapped groups around it.
    pub expansion_dependencies: Vec<TaskIndex>,
    /// Which tasks have to be looked at when one of its instances ends or its number of instances changes: the
    /// reverse of everything above.
    pub evaluate_on_change: Vec<TaskIndex>,
    /// Its weight at admission.
    pub weight: i64,
}

/// Works out every task's links. The tasks' groups and expand inputs are read already.
pub(super) fn link(
    dag_id: &str,
    tasks: &[Task],
    groups: &[TaskGroup],
    edges: &[Vec<TaskIndex>],
) -> Result<(Vec<TaskLinks>, Vec<TaskIndex>), DagError> {
    let mut links: Vec<TaskLinks> = vec![TaskLinks::default(); tasks.len()];
    for (from, downstream) in edges.iter().enumerate() {
        let mut downstream = downstream.clone();
        downstream.sort_unstable();
        downstream.dedup();
        for to in &downstream {
            links[to.at()].upstream.push(TaskIndex::new(from));
        }
        links[from].downstream = downstream;
    }
    let order = topological_order(dag_id, tasks, &links)?;
    for (at, task) in tasks.iter().enumerate() {
        links[at].mapped_groups = mapped_groups_of(groups, task.group);
        links[at].own_dependencies =
            task.expand.as_ref().map(super::ExpandInput::dependencies).unwrap_or_default();
    }
    link_groups(tasks, groups, &mut links);
    link_setups(tasks, &mut links);
    link_reverse(tasks, &mut links);
    weigh(tasks, &order, &mut links);
    Ok((links, order))
}

fn mapped_groups_of(groups: &[TaskGroup], innermost: GroupIndex) -> Vec<GroupIndex> {
    let mut found = Vec::new();
    let mut current = Some(innermost);
    while let Some(group) = current {
        if groups[group.at()].expand.is_some() {
            found.push(group);
        }
        current = groups[group.at()].parent;
    }
    found
}

fn link_groups(tasks: &[Task], groups: &[TaskGroup], links: &mut [TaskLinks]) {
    for at in 0..tasks.len() {
        let task = TaskIndex::new(at);
        let mut index_upstream = Vec::new();
        for &upstream in &links[at].upstream.clone() {
            let shared = links[at]
                .mapped_groups
                .iter()
                .find(|group| links[upstream.at()].mapped_groups.contains(group))
                .copied();
            match shared {
                Some(group) => {
                    index_upstream.push((upstream, group));
                    links[upstream.at()].index_downstream.push((task, group));
                }
                None => links[upstream.at()].tallied_downstream.push(task),
            }
        }
        let own = &links[at];
        let group_dependencies =
            |group: &GroupIndex| groups[group.at()].expand.as_ref().map(super::ExpandInput::dependencies);
        let mapped = if tasks[at].is_mapped() {
            own.own_dependencies.clone()
        } else {
            own.mapped_groups.first().and_then(group_dependencies).unwrap_or_default()
        };
        let mut all = own.own_dependencies.clone();
        all.extend(own.mapped_groups.iter().filter_map(group_dependencies).flatten());
        all.sort_unstable();
        all.dedup();
        let has_expanding_upstream = own.upstream.iter().any(|upstream| tasks[upstream.at()].needs_expansion);
        let own = &mut links[at];
        own.index_upstream = index_upstream;
        own.mapped_dependencies = mapped;
        own.expansion_dependencies = all;
        own.has_expanding_upstream = has_expanding_upstream;
    }
}

/// All tasks that can be reached from `start` along `next`, `start` itself left out, as flags by index.
fn reachable<'a>(count: usize, start: usize, next: impl Fn(usize) -> &'a [TaskIndex]) -> Vec<bool> {
    let mut seen = vec![false; count];
    let mut stack: Vec<TaskIndex> = next(start).to_vec();
    while let Some(task) = stack.pop() {
        if !seen[task.at()] {
            seen[task.at()] = true;
            stack.extend_from_slice(next(task.at()));
        }
    }
    seen
}

fn link_setups(tasks: &[Task], links: &mut [TaskLinks]) {
    let count = tasks.len();
    for setup in (0..count).filter(|&at| tasks[at].is_setup) {
        let teardowns: Vec<TaskIndex> =
            links[setup].downstream.iter().copied().filter(|task| tasks[task.at()].is_teardown).collect();
        let after = reachable(count, setup, |at| &links[at].downstream);
        let mut covered = vec![teardowns.is_empty(); count];
        for teardown in &teardowns {
            let before = reachable(count, teardown.at(), |at| &links[at].upstream);
            for at in 0..count {
                covered[at] |= before[at];
                if after[at] && before[at] {
                    links[teardown.at()].teardown_scope.push(TaskIndex::new(at));
                }
            }
        }
        for at in 0..count {
            let is_direct = links[setup].downstream.binary_search(&TaskIndex::new(at)).is_ok();
            if after[at] && covered[at] {
                links[at].relevant_setups.push(TaskIndex::new(setup));
                if !is_direct && !tasks[at].is_teardown {
                    links[at].indirect_setups.push(TaskIndex::new(setup));
                }
            }
        }
        links[setup].teardowns = teardowns;
    }
    for own in links.iter_mut() {
        let (direct, scope) = (&own.upstream, &mut own.teardown_scope);
        scope.sort_unstable();
        scope.dedup();
        scope.retain(|task| direct.binary_search(task).is_err());
    }
}

fn link_reverse(tasks: &[Task], links: &mut [TaskLinks]) {
    let mut reverse: Vec<Vec<TaskIndex>> = links.iter().map(|own| own.downstream.clone()).collect();
    for (at, own) in links.iter().enumerate() {
        let task = TaskIndex::new(at);
        let looks_at = own
            .indirect_setups
            .iter()
            .chain(if tasks[at].is_teardown { own.teardown_scope.as_slice() } else { &[] })
            .chain(&own.mapped_dependencies)
            .chain(&own.expansion_dependencies);
        for source in looks_at {
            reverse[source.at()].push(task);
        }
    }
    for (own, mut list) in links.iter_mut().zip(reverse) {
        list.sort_unstable();
        list.dedup();
        own.evaluate_on_change = list;
    }
}

/// Kahn's algorithm; among tasks that are free at once the one that the file names first goes first.
fn topological_order(dag_id: &str, tasks: &[Task], links: &[TaskLinks]) -> Result<Vec<TaskIndex>, DagError> {
    let mut waiting: Vec<usize> = links.iter().map(|own| own.upstream.len()).collect();
    let mut free: std::collections::BTreeSet<TaskIndex> =
        (0..tasks.len()).filter(|&at| waiting[at] == 0).map(TaskIndex::new).collect();
    let mut order = Vec::with_capacity(tasks.len());
    while let Some(task) = free.pop_first() {
        order.push(task);
        for next in &links[task.at()].downstream {
            waiting[next.at()] -= 1;
            if waiting[next.at()] == 0 {
                free.insert(*next);
            }
        }
    }
    if order.len() == tasks.len() {
        return Ok(order);
    }
    // Whoever still waits has an upstream that still waits; following those ends in a circle.
    let mut path: Vec<usize> = Vec::new();
    let mut current = waiting.iter().position(|&count| count > 0).unwrap_or(0);
    while !path.contains(&current) {
        path.push(current);
        current = links[current]
            .upstream
            .iter()
            .map(|task| task.at())
            .find(|&at| waiting[at] > 0)
            .unwrap_or(current);
    }
    let start = path.iter().position(|&at| at == current).unwrap_or(0);
    let mut circle: Vec<usize> = path[start..].to_vec();
    circle.reverse();
    circle.push(circle[0]);
    Err(DagError::Cycle {
        dag: dag_id.into(),
        tasks: circle.into_iter().map(|at| tasks[at].task_id.to_string()).collect(),
    })
}

/// The weights by rule. A sum over all tasks after (or before) a task counts each once however many ways lead to it, so
/// sets are needed; they are kept as bits, a block of tasks at a time, to bound memory.
fn weigh(tasks: &[Task], order: &[TaskIndex], links: &mut [TaskLinks]) {
    let mut sums: Vec<i64> = tasks.iter().map(|task| task.priority_weight).collect();
    if tasks.iter().any(|task| task.weight_rule == WeightRule::Downstream) {
        let wanted = |at: usize| tasks[at].weight_rule == WeightRule::Downstream;
        add_reachable(
            tasks,
            &order.iter().rev().copied().collect::<Vec<_>>(),
            |at| &links[at].downstream,
            wanted,
            &mut sums,
        );
    }
    if tasks.iter().any(|task| task.weight_rule == WeightRule::Upstream) {
        let wanted = |at: usize| tasks[at].weight_rule == WeightRule::Upstream;
        add_reachable(tasks, order, |at| &links[at].upstream, wanted, &mut sums);
    }
    for (own, sum) in links.iter_mut().zip(sums) {
        // Airflow keeps weights in 32 bits (`airflow/sdk/bases/operator.py: db_safe_priority`).
        own.weight = sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
    }
}

fn add_reachable<'a>(
    tasks: &[Task],
    order: &[TaskIndex],
    next: impl Fn(usize) -> &'a [TaskIndex],
    wanted: impl Fn(usize) -> bool,
    sums: &mut [i64],
) {
    const BLOCK: usize = 2048;
    const WORDS: usize = BLOCK / 64;
    let count = tasks.len();
    for block_start in (0..count).step_by(BLOCK) {
        let mut bits = vec![[0_u64; WORDS]; count];
        for task in order {
            let mut own = [0_u64; WORDS];
            for neighbour in next(task.at()) {
                for (word, other) in own.iter_mut().zip(&bits[neighbour.at()]) {
                    *word |= other;
                }
                if let Some(position) =
                    neighbour.at().checked_sub(block_start).filter(|&position| position < BLOCK)
                {
                    own[position / 64] |= 1 << (position % 64);
                }
            }
            if wanted(task.at()) {
                for (word_at, &word) in own.iter().enumerate() {
                    let mut rest = word;
                    while rest != 0 {
                        let position = word_at * 64 + rest.trailing_zeros() as usize;
                        sums[task.at()] =
                            sums[task.at()].saturating_add(tasks[block_start + position].priority_weight);
                        rest &= rest - 1;
                    }
                }
            }
            bits[task.at()] = own;
        }
    }
}

impl Dag {
    /// Whether `inner` is mapped itself, or is within a mapped group that lies within `container`
    /// (`airflow/models/taskinstance.py: _is_further_mapped_inside`).
    #[must_use]
    pub fn is_further_mapped_inside(&self, inner: TaskIndex, container: GroupIndex) -> bool {
        let task = self.task(inner);
        task.is_mapped()
            || self
                .links(inner)
                .mapped_groups
                .iter()
                .any(|&group| group != container && self.is_inside(group, container))
    }

    fn is_inside(&self, group: GroupIndex, container: GroupIndex) -> bool {
        let mut current = self.group(group).parent;
        while let Some(parent) = current {
            if parent == container {
                return true;
            }
            current = self.group(parent).parent;
        }
        false
    }
}
