//! The log lines of triggers, behind those of the try that waits for them.

use std::{collections::HashMap, sync::Arc};

use gust_model::record::TaskInstance;
use gust_task_log::TryLog;
use serde_json::Value;
use tracing::debug;

use crate::{config::WorkerConfig, log::LogWriter, redact::Secrets, services::Services};

/// One trigger's log.
pub(crate) struct TriggerLog {
    number: i64,
    writer: LogWriter,
}

impl TriggerLog {
    /// Writes what is due.
    pub(crate) async fn write(&mut self) {
        self.writer.continue_behind_end().await;
        self.writer.start_if_due();
        if let Some(upload) = self.writer.upload().take() {
            let result = upload.await;
            self.writer.uploaded(result);
        }
    }

    /// Writes what is left, if there ever was a line.
    pub(crate) async fn end(&mut self) {
        if self.writer.has_lines() {
            self.writer.continue_behind_end().await;
            self.writer.end().await;
        }
    }
}

/// The logs of all triggers that run here, by the triggers' numbers.
pub(crate) struct TriggerLogs {
    services: Services,
    config: Arc<WorkerConfig>,
    secrets: Arc<Secrets>,
    open: HashMap<i64, TriggerLog>,
}

impl TriggerLogs {
    pub(crate) fn new(services: &Services, config: &Arc<WorkerConfig>, secrets: &Arc<Secrets>) -> Self {
        Self {
            services: services.clone(),
            config: Arc::clone(config),
            secrets: Arc::clone(secrets),
            open: HashMap::new(),
        }
    }

    pub(crate) fn open(&mut self, number: i64, ti: &TaskInstance) {
        let writer = LogWriter::new(&self.services, &self.config, TryLog::of(ti), ti.epoch, &self.secrets);
        self.open.insert(number, TriggerLog { number, writer });
    }

    /// Takes a line to the trigger that it names.
    pub(crate) fn push(&mut self, line: &[u8]) {
        let number =
            serde_json::from_slice::<Value>(line).ok().and_then(|line| line.get("trigger_id")?.as_i64());
        if let Some(log) = number.and_then(|number| self.open.get_mut(&number)) {
            log.writer.logged(line);
        } else {
            // Unmasked, it must not reach the process's own log.
            debug!(bytes = line.len(), "a line of the triggers' process belongs to no trigger");
        }
    }

    /// Those that have something to be written by now. They must be given back.
    pub(crate) fn take_due(&mut self) -> Vec<TriggerLog> {
        let now = self.services.clock.monotonic();
        let due: Vec<i64> = self
            .open
            .iter()
            .filter(|(_, log)| log.writer.due_at().is_some_and(|at| at <= now))
            .map(|(&number, _)| number)
            .collect();
        due.into_iter().filter_map(|number| self.open.remove(&number)).collect()
    }

    pub(crate) fn give_back(&mut self, log: TriggerLog) {
        self.open.insert(log.number, log);
    }

    pub(crate) fn close(&mut self, number: i64) -> Option<TriggerLog> {
        self.open.remove(&number)
    }
}
