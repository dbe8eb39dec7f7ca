use serde::{Deserialize, Serialize};

use crate::PoolName;

/// The pool of task instances that name none.
pub const DEFAULT_POOL: &str = "default_pool";

/// A pool of slots (`airflow/models/pool.py: Pool`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// How many slots it has; −1 for no limit.
    pub slots: i32,
    /// What it is for.
    pub description: Option<String>,
    /// Whether deferred task instances keep their slots.
    pub include_deferred: bool,
}

/// How many slots of a pool are held, by the state of who holds them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolUsage {
    /// By running task instances.
    pub running: i64,
    /// By queued ones.
    pub queued: i64,
    /// Wanted by scheduled ones.
    pub scheduled: i64,
    /// By deferred ones, if the pool counts them.
    pub deferred: i64,
}
