use std::sync::Arc;

use async_trait::async_trait;
use gust_ports::{BundleSource, Cipher, Clock, Ids, Metastore, ObjectStore, Spawner, TaskQueue, Wakeups};
use gust_python_host::{Child, Error, Event, Host, Signal, SpawnCallbacks, SpawnTask, messages::Reply};

/// Everything outside that a worker uses.
#[derive(Clone)]
pub struct Services {
    /// The truth.
    pub metastore: Arc<dyn Metastore>,
    /// Where hints come from.
    pub queue: Arc<dyn TaskQueue>,
    /// Where logs go.
    pub objects: Arc<dyn ObjectStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Fresh identifiers.
    pub ids: Arc<dyn Ids>,
    /// Who waits for what changed.
    pub wakeups: Arc<dyn Wakeups>,
    /// Starts tasks beside the caller.
    pub spawner: Arc<dyn Spawner>,
    /// Opens Variables and Connections.
    pub cipher: Arc<dyn Cipher>,
    /// Brings DAG code.
    pub bundles: Arc<dyn BundleSource>,
    /// Starts Python children.
    pub processes: Arc<dyn Processes>,
}

/// Starts the processes that run user code: [`Host`], or a simulation's.
#[async_trait]
pub trait Processes: Send + Sync {
    /// Starts a task.
    async fn start_task(&self, task: SpawnTask) -> Result<Box<dyn Process>, Error>;

    /// Starts callbacks of one DAG file.
    async fn start_callbacks(&self, callbacks: SpawnCallbacks) -> Result<Box<dyn Process>, Error>;
}

/// A running process. Dropping it before its end kills it.
#[async_trait]
pub trait Process: Send + Sync {
    /// What it does next; `None` after its end. It may be dropped without losing an event.
    async fn next_event(&mut self) -> Option<Event>;

    /// Its process id.
    fn pid(&self) -> u32;

    /// Answers one of its requests.
    async fn reply(&self, id: i64, reply: Reply) -> Result<(), Error>;

    /// Signals it and what it has started.
    fn kill(&self, signal: Signal);
}

#[async_trait]
impl Processes for Host {
    async fn start_task(&self, task: SpawnTask) -> Result<Box<dyn Process>, Error> {
        Ok(Box::new(self.spawn_task(task).await?))
    }

    async fn start_callbacks(&self, callbacks: SpawnCallbacks) -> Result<Box<dyn Process>, Error> {
        Ok(Box::new(self.spawn_callbacks(callbacks).await?))
    }
}

#[async_trait]
impl Process for Child {
    async fn next_event(&mut self) -> Option<Event> {
        Self::next_event(self).await
    }

    fn pid(&self) -> u32 {
        Self::pid(self)
    }

    async fn reply(&self, id: i64, reply: Reply) -> Result<(), Error> {
        self.handle().reply(id, reply).await
    }

    fn kill(&self, signal: Signal) {
        Self::kill(self, signal);
    }
}
