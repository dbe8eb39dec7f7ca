use std::{collections::BTreeMap, time::Duration};

use gust_model::QueueName;

/// How a worker works. [`WorkerConfig::new`] has values that fit.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Which worker it is, for people: host and process.
    pub name: String,
    /// The host, as task instances show it.
    pub hostname: String,
    /// The worker's process id, as task instances show it.
    pub pid: i32,
    /// The logical queues it takes work from.
    pub queues: Vec<QueueName>,
    /// How many work items it runs at once.
    pub concurrency: usize,
    /// How long a claim holds without renewal.
    pub lease_ttl: Duration,
    /// How long the metastore may be silent before a running try is given up (DESIGN §1, 11).
    pub outage_grace: Duration,
    /// Between SIGTERM and SIGKILL (`[core] killed_task_cleanup_time`).
    pub killed_task_cleanup_time: Duration,
    /// How long a process may go on after it reported its end (`[core] task_success_overtime`).
    pub end_overtime: Duration,
    /// How long past its `execution_timeout` a process may go on before it is killed from outside. Inside, the SDK
    /// raises at the timeout itself.
    pub execution_timeout_grace: Duration,
    /// How long a write that nobody waits for may stay unwritten.
    pub write_delay: Duration,
    /// The first interval between log objects, and the one while somebody follows.
    pub log_interval_min: Duration,
    /// The longest interval between log objects.
    pub log_interval_max: Duration,
    /// A log object is written once so many bytes of lines are there.
    pub log_chunk_bytes: usize,
    /// How long a shutdown waits for running tries before it gives them back.
    pub drain_limit: Duration,
    /// How often it says that it is alive.
    pub heartbeat_interval: Duration,
    /// How many instances a task may be mapped to (`[core] max_map_length`).
    pub max_map_length: i64,
    /// How many bytes of JSON an XCom may have.
    pub max_xcom_bytes: usize,
    /// Whether a task's state store is emptied when it succeeds (`[state_store] clear_on_success`).
    pub clear_state_on_success: bool,
    /// Shorter secrets are not masked (`[logging] min_length_masked_secret`).
    pub min_secret_length: usize,
    /// Further names that make a value a secret (`[core] sensitive_var_conn_names`).
    pub sensitive_names: Vec<String>,
    /// Additions to the environment of every child.
    pub env: BTreeMap<String, String>,
}

impl WorkerConfig {
    /// The defaults, for a worker on one queue.
    #[must_use]
    pub fn new(hostname: impl Into<String>, pid: i32) -> Self {
        let hostname = hostname.into();
        Self {
            name: format!("{hostname}:{pid}"),
            hostname,
            pid,
            queues: vec!["default".into()],
            concurrency: 4,
            lease_ttl: Duration::from_secs(30),
            outage_grace: Duration::from_mins(5),
            killed_task_cleanup_time: Duration::from_mins(1),
            end_overtime: Duration::from_secs(20),
            execution_timeout_grace: Duration::from_secs(30),
            write_delay: Duration::from_millis(200),
            log_interval_min: Duration::from_secs(1),
            log_interval_max: Duration::from_secs(10),
            log_chunk_bytes: 1024 * 1024,
            drain_limit: Duration::from_mins(10),
            heartbeat_interval: Duration::from_secs(10),
            max_map_length: 1024,
            max_xcom_bytes: 16 * 1024 * 1024,
            clear_state_on_success: false,
            min_secret_length: 5,
            sensitive_names: Vec::new(),
            env: BTreeMap::new(),
        }
    }
}
