//! States of runs and task instances, under Airflow's names (`airflow/utils/state.py`), and which may follow which.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Declares a closed set of names with its text forms, so that the database, the API and the SDK spell them alike.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name as Airflow spells it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(UnknownName {
                        kind: stringify!($name),
                        given: text.to_owned(),
                        known: &[$($text),+],
                    }),
                }
            }
        }
    };
}

/// A name that is none of those its kind has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no {kind}; it is one of {}", known.join(", "))]
pub struct UnknownName {
    kind: &'static str,
    given: String,
    known: &'static [&'static str],
}

named! {
    /// A DAG run's state.
    DagRunState {
        /// Made, waiting for `max_active_runs`.
        Queued = "queued",
        /// Its task instances are being planned and run.
        Running = "running",
        /// Ended well.
        Success = "success",
        /// Ended badly.
        Failed = "failed",
    }
}

impl DagRunState {
    /// Whether the run is over.
    #[must_use]
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Success | Self::Failed)
    }
}

named! {
    /// Why a run exists (`airflow/utils/types.py: DagRunType`).
    DagRunType {
        /// Part of a backfill.
        Backfill = "backfill",
        /// Due by its timetable.
        Scheduled = "scheduled",
        /// Asked for by a person or a client.
        Manual = "manual",
        /// Asked for by a `TriggerDagRunOperator`.
        OperatorTriggered = "operator_triggered",
        /// Its assets were updated.
        AssetTriggered = "asset_triggered",
        /// Asked for in order to update an asset.
        AssetMaterialization = "asset_materialization",
    }
}

named! {
    /// Through which door a run was asked for (`airflow/utils/types.py: DagRunTriggeredByType`).
    TriggeredBy {
        /// `gust dags trigger`.
        Cli = "cli",
        /// `TriggerDagRunOperator`.
        Operator = "operator",
        /// The REST API.
        RestApi = "rest_api",
        /// A page.
        Ui = "ui",
        /// `gust dags test`.
        Test = "test",
        /// A timetable.
        Timetable = "timetable",
        /// Asset updates.
        Asset = "asset",
        /// A backfill.
        Backfill = "backfill",
    }
}

named! {
    /// A task instance's state. [`TaskInstanceState::None`] is Airflow's `None`: nothing decided yet.
    TaskInstanceState {
        /// Nothing decided yet; null in Airflow's API.
        None = "none",
        /// Its dependencies are met; it waits for slots.
        Scheduled = "scheduled",
        /// Admitted; a message names it, and no worker has claimed it yet.
        Queued = "queued",
        /// Claimed by a worker, under a lease.
        Running = "running",
        /// Ended well.
        Success = "success",
        /// A person cleared it while it ran; its process is being ended.
        Restarting = "restarting",
        /// Ended badly, no try left.
        Failed = "failed",
        /// Ended badly; it waits for its next try.
        UpForRetry = "up_for_retry",
        /// A sensor in reschedule mode; it waits for its next poke.
        UpForReschedule = "up_for_reschedule",
        /// An upstream failed and the trigger rule asked for its success.
        UpstreamFailed = "upstream_failed",
        /// Not to be run in this run.
        Skipped = "skipped",
        /// It waits for a trigger.
        Deferred = "deferred",
        /// It waits for a person's answer.
        AwaitingInput = "awaiting_input",
        /// Its task or map index is no longer in the DAG.
        Removed = "removed",
    }
}

/// A move between states that no path of a task instance's life has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a task instance cannot go from {from} to {to}")]
pub struct IllegalTransition {
    /// The state it is in.
    pub from: TaskInstanceState,
    /// The state it was to go to.
    pub to: TaskInstanceState,
}

impl TaskInstanceState {
    /// Whether the task instance is over, for this try and all (`airflow/utils/state.py: State.finished`).
    #[must_use]
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Success | Self::Failed | Self::UpstreamFailed | Self::Skipped | Self::Removed)
    }

    /// Whether a worker or an executor holds it: it counts against pools and limits
    /// (`airflow/ti_deps/dependencies_states.py: EXECUTION_STATES`).
    #[must_use]
    pub fn is_executing(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }

    /// Whether something else than the planner's next look moves it on: it is under way or waits for a time, a
    /// trigger or a person.
    #[must_use]
    pub fn is_under_way(self) -> bool {
        matches!(
            self,
            Self::Scheduled
                | Self::Queued
                | Self::Running
                | Self::Restarting
                | Self::UpForRetry
                | Self::UpForReschedule
                | Self::Deferred
                | Self::AwaitingInput
        )
    }

    /// The state as Airflow's API shows it: null for [`TaskInstanceState::None`].
    #[must_use]
    pub fn as_airflow(self) -> Option<&'static str> {
        (self != Self::None).then(|| self.as_str())
    }

    /// Whether the engine itself (planner, admission, claim, worker, reaper) may move a task instance from this state
    /// to `to`. What a person asks for (clear, mark) may set any finished state or [`TaskInstanceState::None`] from
    /// any state and is not held by this.
    #[must_use]
    pub fn may_become(self, to: Self) -> bool {
        use TaskInstanceState as S;
        match self {
            S::None => matches!(
                to,
                S::Scheduled
                    | S::Success
                    | S::Skipped
                    | S::UpstreamFailed
                    | S::Removed
                    | S::Failed
                    | S::Deferred
            ),
            S::Scheduled => {
                matches!(
                    to,
                    S::Queued | S::None | S::Skipped | S::Failed | S::Removed | S::Success | S::Deferred
                )
            }
            S::Queued => {
                matches!(to, S::Running | S::Scheduled | S::Failed | S::UpForRetry | S::Skipped | S::Removed)
            }
            S::Running => matches!(
                to,
                S::Success
                    | S::Failed
                    | S::Skipped
                    | S::UpForRetry
                    | S::UpForReschedule
                    | S::Deferred
                    | S::AwaitingInput
                    | S::Restarting
                    | S::Queued
            ),
            S::Restarting => matches!(to, S::UpForRetry | S::None | S::Failed),
            S::UpForRetry | S::UpForReschedule => {
                matches!(to, S::Scheduled | S::None | S::Failed | S::UpstreamFailed | S::Skipped | S::Removed)
            }
            S::Deferred | S::AwaitingInput => {
                matches!(to, S::Scheduled | S::Failed | S::Skipped | S::UpForRetry)
            }
            S::Success | S::Failed | S::UpstreamFailed | S::Skipped => matches!(to, S::None | S::Removed),
            S::Removed => matches!(to, S::None),
        }
    }

    /// Checks a move of the engine.
    ///
    /// # Errors
    /// [`IllegalTransition`] when no path of a task instance's life has it.
    pub fn transition(self, to: Self) -> Result<Self, IllegalTransition> {
        if self.may_become(to) { Ok(to) } else { Err(IllegalTransition { from: self, to }) }
    }
}
