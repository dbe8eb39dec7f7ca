//! Trigger rules and weight rules, under Airflow's names.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

macro_rules! rule {
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
            type Err = ();

            fn from_str(text: &str) -> Result<Self, ()> {
                match text { $($text => Ok(Self::$variant),)+ _ => Err(()) }
            }
        }
    };
}

rule! {
    /// When a task may run, by what its direct upstreams have come to (`airflow/task/trigger_rule.py`).
    TriggerRule {
        /// All succeeded.
        AllSuccess = "all_success",
        /// All failed, or failed because of something before them.
        AllFailed = "all_failed",
        /// All are over.
        AllDone = "all_done",
        /// All are over and at least one succeeded; a skipped one skips it.
        AllDoneMinOneSuccess = "all_done_min_one_success",
        /// All are over, and of the setups among them at least one succeeded. The rule of teardowns.
        AllDoneSetupSuccess = "all_done_setup_success",
        /// At least one succeeded.
        OneSuccess = "one_success",
        /// At least one failed.
        OneFailed = "one_failed",
        /// At least one succeeded or failed.
        OneDone = "one_done",
        /// All succeeded or were skipped.
        NoneFailed = "none_failed",
        /// All are over and none was skipped.
        NoneSkipped = "none_skipped",
        /// Whatever they come to.
        Always = "always",
        /// All succeeded or were skipped, and at least one succeeded.
        NoneFailedMinOneSuccess = "none_failed_min_one_success",
        /// All were skipped.
        AllSkipped = "all_skipped",
    }
}

/// How a task's weight follows from priorities (`airflow/task/priority_strategy.py`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WeightRule {
    /// Its own priority and that of all tasks after it.
    Downstream,
    /// Its own priority and that of all tasks before it.
    Upstream,
    /// Its own priority.
    Absolute,
    /// A strategy class of a plugin, by its import path; it runs in Python, so the task's own priority stands in for it.
    Custom(String),
}

impl WeightRule {
    /// Reads a rule's short name, the built-in strategies' class names, or else a plugin's class.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "downstream" | "airflow.task.priority_strategy._DownstreamPriorityWeightStrategy" => {
                Self::Downstream
            }
            "upstream" | "airflow.task.priority_strategy._UpstreamPriorityWeightStrategy" => Self::Upstream,
            "absolute" | "airflow.task.priority_strategy._AbsolutePriorityWeightStrategy" => Self::Absolute,
            other => Self::Custom(other.to_owned()),
        }
    }

    /// The rule as Airflow spells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
            Self::Absolute => "absolute",
            Self::Custom(class) => class,
        }
    }
}
