//! How often a mapped task is there (`airflow/serialization/definitions/mappedoperator.py: get_mapped_ti_count`), and
//! which instances of a task matter to an instance of another (`airflow/models/taskinstance.py:
//! _get_relevant_map_indexes`).

use std::ops::Range;

use gust_model::dag::{Dag, GroupIndex, TaskIndex};

/// Where the lengths of tasks' values come from: `Ok(None)` where a task has left none yet.
pub(crate) trait Lengths<E> {
    fn length_of(&mut self, producer: TaskIndex) -> Result<Option<u64>, E>;
}

impl<E, F: FnMut(TaskIndex) -> Result<Option<u64>, E>> Lengths<E> for F {
    fn length_of(&mut self, producer: TaskIndex) -> Result<Option<u64>, E> {
        self(producer)
    }
}

/// How many instances a task in this group has by the group's own mapping and that of the groups around it.
/// `Ok(None)` while a value that it is mapped over is not known.
pub(crate) fn group_count<E>(
    dag: &Dag,
    innermost: GroupIndex,
    lengths: &mut impl Lengths<E>,
) -> Result<Option<u64>, E> {
    let mut count = Some(1_u64);
    let mut current = Some(innermost);
    while let Some(index) = current {
        let group = dag.group(index);
        if let Some(expand) = &group.expand {
            let length = expand.length(&mut |task| lengths.length_of(task))?;
            count = count.zip(length).map(|(count, length)| count.saturating_mul(length));
        }
        current = group.parent;
    }
    Ok(count)
}

/// How many instances a task has that is mapped or within a mapped group. `Ok(None)` while that is not known.
pub(crate) fn task_count<E>(
    dag: &Dag,
    task: TaskIndex,
    lengths: &mut impl Lengths<E>,
) -> Result<Option<u64>, E> {
    let definition = dag.task(task);
    let own = match &definition.expand {
        Some(expand) => expand.length(&mut |producer| lengths.length_of(producer))?,
        None => Some(1),
    };
    let around = group_count(dag, definition.group, lengths)?;
    Ok(own.zip(around).map(|(own, around)| own.saturating_mul(around)))
}

/// Which indexes of `relative` matter to the instance of a task at `map_index`, when both are within the mapped group
/// `shared`, the task has `task_count` instances and the group makes `group_count`.
pub(crate) fn relevant_indexes(
    dag: &Dag,
    relative: TaskIndex,
    shared: GroupIndex,
    map_index: i32,
    task_count: u64,
    group_count: u64,
) -> Range<i64> {
    let clamp = |count: u64| i64::try_from(count).unwrap_or(i64::MAX).max(1);
    let (task_count, group_count) = (clamp(task_count), clamp(group_count));
    let at = i64::from(map_index).saturating_mul(group_count).div_euclid(task_count);
    if dag.is_further_mapped_inside(relative, shared) {
        let further = task_count / group_count;
        let start = at.saturating_mul(further);
        start..start.saturating_add(further)
    } else {
        at..at.saturating_add(1)
    }
}
