//! The processes that run triggers, behind a trait.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use gust_python_host::{Answers, Error, Host, Trigger, TriggerReport, Triggerer as Child};

/// Starts the processes that run triggers: [`Host`], or a simulation's.
#[async_trait]
pub trait TriggerProcesses: Send + Sync {
    /// Starts a process; with a bundle's folder and name its code is importable.
    async fn start(
        &self,
        bundle: Option<(PathBuf, String)>,
        env: BTreeMap<String, String>,
        answers: Arc<dyn Answers>,
    ) -> Result<Box<dyn TriggerProcess>, Error>;
}

/// A process that runs triggers. Dropping it kills it.
#[async_trait]
pub trait TriggerProcess: Send + Sync {
    /// Runs a trigger.
    async fn add(&self, trigger: &Trigger) -> Result<(), Error>;

    /// Stops a trigger; by a person's act its `on_kill` runs.
    async fn cancel(&self, id: i64, by_user: bool) -> Result<(), Error>;

    /// The next report; `None` after the process's end. It may be dropped without losing a report.
    async fn next(&mut self) -> Option<TriggerReport>;
}

#[async_trait]
impl TriggerProcesses for Host {
    async fn start(
        &self,
        bundle: Option<(PathBuf, String)>,
        env: BTreeMap<String, String>,
        answers: Arc<dyn Answers>,
    ) -> Result<Box<dyn TriggerProcess>, Error> {
        let bundle = bundle.as_ref().map(|(path, name)| (path.as_path(), name.as_str()));
        Ok(Box::new(self.triggerer(bundle, env, answers).await?))
    }
}

#[async_trait]
impl TriggerProcess for Child {
    async fn add(&self, trigger: &Trigger) -> Result<(), Error> {
        Self::add(self, trigger).await
    }

    async fn cancel(&self, id: i64, by_user: bool) -> Result<(), Error> {
        Self::cancel(self, id, by_user).await
    }

    async fn next(&mut self) -> Option<TriggerReport> {
        Self::next(self).await
    }
}
