//! Identifiers. Text ids are cheap to clone, since plans, facts and messages pass them around by the thousand.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Declares a text identifier as a type of its own, so that a task id is never taken for a run id.
macro_rules! text_id {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a text as this kind of identifier.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The identifier's text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }
    )+};
}

text_id! {
    /// A DAG's id, unique in a Gust.
    DagId;
    /// A DAG run's id as Airflow shows it (`manual__2026-…`), unique within its DAG.
    RunId;
    /// A task's id within its DAG, with the ids of its task groups as prefix.
    TaskId;
    /// A pool's name.
    PoolName;
    /// A logical queue's name, as `queue="…"` on an operator gives it.
    QueueName;
    /// A DAG bundle's name.
    BundleName;
    /// A bundle version: the lower-case hex SHA-256 of its content.
    BundleVersion;
    /// A Variable's key.
    VariableKey;
    /// A Connection's id.
    ConnectionId;
}

/// Declares an identifier of a metastore row, made by the `Ids` port.
macro_rules! row_id {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

row_id! {
    /// The row of a DAG run. Airflow's clients never see it; they name a run by DAG id and run id.
    DagRunId;
    /// The row of a task instance, the same through all of its tries.
    TaskInstanceId;
    /// A DAG version.
    DagVersionId;
    /// What one worker drew for itself when it claimed a try: two claims of one epoch differ in it.
    AttemptId;
    /// A trigger that a deferred task waits for.
    TriggerId;
    /// A callback to be run for a try or run that ended without its own process doing so.
    CallbackId;
    /// An asset.
    AssetId;
    /// An asset event.
    EventId;
    /// A backfill.
    BackfillId;
}

/// How many times a task instance has been handed out or taken back. Every write of a worker is fenced by it, and it
/// only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub i64);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A mapped task instance's index; −1 stands for a task instance without one (`airflow/models/taskinstance.py`): not
/// mapped, mapped and not yet expanded, or expanded to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MapIndex(pub i32);

impl MapIndex {
    /// The index of a task instance that is not, or not yet, mapped.
    pub const UNMAPPED: Self = Self(-1);

    /// Whether this is an index of an expanded task.
    #[must_use]
    pub fn is_mapped(self) -> bool {
        self.0 >= 0
    }
}

impl Default for MapIndex {
    fn default() -> Self {
        Self::UNMAPPED
    }
}

impl fmt::Display for MapIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
