//! What a pass asks for, and the answers.

use std::collections::{BTreeMap, BTreeSet};

use gust_model::{
    MapIndex, TaskId, TaskInstanceState,
    record::{DagRun, TaskInstance, TaskTally, Timestamp},
};
use serde_json::Value;

/// Which instances of a task. More than asked for may be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceSelection {
    /// All.
    All,
    /// Those in state none.
    Undecided,
    /// Those at these indexes, where they exist.
    Indexes(BTreeSet<MapIndex>),
}

/// What is asked about the run before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviousRunRequest {
    /// The newest run whose logical date is before this; no runs without one.
    pub before: Timestamp,
    /// Whether runs made by hand are left out.
    pub is_automated_only: bool,
    /// The tallies of these tasks in that run.
    pub tally_task_ids: BTreeSet<TaskId>,
    /// For these tasks also whether any earlier run has instances of them.
    pub history_task_ids: BTreeSet<TaskId>,
}

/// The answer to a [`PreviousRunRequest`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PreviousRunReply {
    /// That run; none if there is none.
    pub run: Option<DagRun>,
    /// Whether the run that is being advanced is the first of its backfill.
    pub is_first_of_backfill: bool,
    /// The tallies asked for, as far as they exist.
    pub tallies: Vec<TaskTally>,
    /// Those of `history_task_ids` that some earlier run has instances of.
    pub tasks_with_history: BTreeSet<TaskId>,
}

/// Facts that a pass needs before it can go on. All of them are of the run that is being advanced unless they say
/// otherwise, and are to be read in the transaction that holds its lock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FactRequest {
    /// Tallies of these tasks.
    pub tally_task_ids: BTreeSet<TaskId>,
    /// Tallies of all tasks.
    pub all_tallies: bool,
    /// Instances of these tasks.
    pub instances: BTreeMap<TaskId, InstanceSelection>,
    /// All instances of the run.
    pub all_instances: bool,
    /// The `mapped_length` of these tasks' `return_value` XComs at map index −1.
    pub map_length_task_ids: BTreeSet<TaskId>,
    /// How many `return_value` XComs these tasks have at map indexes 0 and up.
    pub return_value_count_task_ids: BTreeSet<TaskId>,
    /// XComs with the key [`FactRequest::SKIP_KEY`].
    pub skip_xcoms: BTreeSet<(TaskId, MapIndex)>,
    /// About the run before.
    pub previous_run: Option<PreviousRunRequest>,
    /// The instance in this state with the latest end, if there is one.
    pub latest_ended: Option<TaskInstanceState>,
}

impl FactRequest {
    /// The key under which tasks that skip others note whom they skip or follow.
    pub const SKIP_KEY: &'static str = "skipmixin_key";

    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The answers to a [`FactRequest`]; what does not exist is left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FactReply {
    /// Tallies.
    pub tallies: Vec<TaskTally>,
    /// Task instances. Those that were handed in or given before may be among them; they are not taken again.
    pub instances: Vec<TaskInstance>,
    /// Mapped lengths.
    pub map_lengths: Vec<(TaskId, u32)>,
    /// Numbers of return values.
    pub return_value_counts: Vec<(TaskId, u32)>,
    /// The values of skip XComs.
    pub skip_xcoms: Vec<(TaskId, MapIndex, Value)>,
    /// About the run before.
    pub previous_run: Option<PreviousRunReply>,
    /// The instance with the latest end.
    pub latest_ended: Option<TaskInstance>,
}
