use std::{future::Future, pin::Pin, time::Duration};

use chrono::{DateTime, SubsecRound, Utc};
use uuid::Uuid;

/// Time: wall clock, monotonic clock and sleeping. A simulation supplies its own.
#[async_trait::async_trait]
pub trait Clock: Send + Sync {
    /// The wall clock, to the microsecond. It may jump.
    fn now(&self) -> DateTime<Utc>;

    /// Time since some fixed moment. It never jumps and never goes back.
    fn monotonic(&self) -> Duration;

    /// Waits for at least `duration`.
    async fn sleep(&self, duration: Duration);
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    started: std::time::Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { started: std::time::Instant::now() }
    }
}

#[async_trait::async_trait]
impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now().trunc_subsecs(6)
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Fresh identifiers.
pub trait Ids: Send + Sync {
    /// An identifier that nobody had before. They sort roughly by when they were made, which keeps indexes compact.
    fn fresh(&self) -> Uuid;

    /// Eight random letters or digits, as ids of runs end in them.
    fn random_letters(&self) -> String {
        // The end of a version 7 UUID is random; its beginning is the clock.
        let mut text = self.fresh().simple().to_string();
        text.split_off(24)
    }
}

/// Version 7 UUIDs from the machine's clock and randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    fn fresh(&self) -> Uuid {
        Uuid::now_v7()
    }
}

/// Starts tasks that run beside the caller.
pub trait Spawner: Send + Sync {
    /// Starts a task. `name` shows up in logs and in a simulation's trace.
    fn spawn(&self, name: &'static str, task: Pin<Box<dyn Future<Output = ()> + Send>>);
}

/// Starts tasks on the Tokio runtime of the caller.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioSpawner;

impl Spawner for TokioSpawner {
    fn spawn(&self, _name: &'static str, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(task);
    }
}
