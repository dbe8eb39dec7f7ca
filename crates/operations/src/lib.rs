//! What people and clients ask for: trigger, pause, clear, mark, end, note and delete, and the rules of pools. Each is
//! one transaction over the ports, followed by the wake-ups that tell others of it.
//!
//! A task instance that is taken from its worker moves to its next epoch, so that nothing the worker still writes is
//! accepted; its lease ends, and [`gust_ports::Wake::Revoked`] tells the worker before its next renewal does.

mod assets;
mod blocking;
mod clear;
mod dags;
mod error;
mod graph;
mod mark;
mod params;
mod pools;
mod reset;
mod runs;
mod select;
mod trigger;

pub use assets::{AssetUpdate, record_asset_event};
pub use blocking::{BlockingDependency, blocking_dependencies};
pub use clear::{ClearRequest, ClearRunRequest, clear_dag_run, clear_task_instances};
pub use dags::{delete_dag, set_dag_paused};
pub use error::OperationError;
pub use graph::{dag_of_version, latest_dag};
pub use mark::{MarkRequest, set_task_instance_note, set_task_instance_state};
pub use params::{Param, dag_params};
pub use pools::{PoolPatch, create_pool, delete_pool, update_pool};
pub use runs::{delete_dag_run, set_dag_run_note, set_dag_run_state};
pub use trigger::{TriggerRequest, trigger_dag_run, trigger_dag_run_in};

use gust_ports::{Ids, Metastore, Wake, Wakeups};

/// What the operations work over.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The truth.
    pub metastore: &'a dyn Metastore,
    /// Who is told.
    pub wakeups: &'a dyn Wakeups,
    /// Where fresh ids come from.
    pub ids: &'a dyn Ids,
}

impl Ports<'_> {
    async fn wake_all(&self, wakes: Vec<Wake>) {
        for wake in wakes {
            self.wakeups.wake(wake).await;
        }
    }
}
