//! The table of all settings: the one place that says which there are, and what is generated from it.
#![expect(clippy::doc_markdown, reason = "the settings' docs are shown to operators as plain text")]

use std::path::PathBuf;

use serde::Serialize;

use crate::config::Provenance;
use crate::resolve::Resolver;
use crate::values::{
    BaseUrl, Bundles, IgnoreSyntax, KeyRing, LogFormat, LogLevel, MetastoreUrl, Seconds, Secret,
    SecretObject, SettingValue, TestConnection, Timezone, WeightRule, format_of_json_logs, from_sql_alchemy,
    level_of_python,
};

/// Turns Airflow's writing of a value into Gust's; the error is the reason why not.
type Translate = fn(&str) -> Result<String, String>;

/// What is known of a setting besides its value.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) section: &'static str,
    pub(crate) key: &'static str,
    /// `section.key`.
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    /// The default as text; `{home}` stands for `gust.home`, and empty text for unset.
    pub(crate) default: &'static str,
    /// The names of Airflow's that it follows, deprecated ones behind the current one.
    pub(crate) airflow: &'static [&'static str],
    pub(crate) doc: &'static str,
    pub(crate) secret: bool,
    /// Whether user code's Python reads it too.
    pub(crate) child: bool,
    pub(crate) least: Option<u32>,
    pub(crate) whole: bool,
    pub(crate) translate: Option<Translate>,
}

impl Setting {
    /// The value is shown masked.
    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// The value is handed on to user code under its Airflow name.
    const fn child(mut self) -> Self {
        self.child = true;
        self
    }

    /// Smaller numbers are refused.
    const fn at_least(mut self, least: u32) -> Self {
        self.least = Some(least);
        self
    }

    /// Fractions are refused, because the Python side reads whole seconds only.
    const fn whole(mut self) -> Self {
        self.whole = true;
        self
    }

    /// Airflow writes the value otherwise than Gust; the function gives Gust's writing.
    const fn translated(mut self, translate: Translate) -> Self {
        self.translate = Some(translate);
        self
    }

    /// `GUST__SECTION__KEY`.
    pub(crate) fn variable(&self) -> String {
        format!("GUST__{}__{}", self.section.to_uppercase(), self.key.to_uppercase())
    }

    /// As one writes it in the file.
    pub(crate) fn in_file(&self) -> String {
        format!("[{}] {}", self.section, self.key)
    }
}

/// Declares the sections and their settings: `key: type = "default" follows "airflow name" | "deprecated name",
/// modifier(arguments);`.
macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])*
        $section:ident: $Section:ident {$(
            $(#[doc = $doc:literal])*
            $key:ident: $type:ty = $default:literal
                $(follows $($airflow:literal)|+)? $(, $modifier:ident($($argument:expr)?))*;
        )+}
    )+) => {
        $(
            $(#[doc = $section_doc])*
            #[derive(Debug, Clone, Serialize)]
            pub struct $Section {$(
                $(#[doc = $doc])*
                #[doc = concat!("\n\nDefault: `", $default, "`." $(, " Airflow's name:" $(, " `", $airflow, "`")+, ".")?)]
                pub $key: $type,
            )+}

            impl $Section {
                const SETTINGS: &'static [Setting] = &[$(
                    Setting {
                        section: stringify!($section),
                        key: stringify!($key),
                        name: concat!(stringify!($section), ".", stringify!($key)),
                        kind: <$type as SettingValue>::KIND,
                        default: $default,
                        airflow: &[$($($airflow),+)?],
                        doc: concat!($($doc),*),
                        secret: false,
                        child: false,
                        least: None,
                        whole: false,
                        translate: None,
                    }$(.$modifier($($argument)?))*
                ),+];

                /// Every setting is read before the first one that is missing ends it, so that all errors are found.
                fn read(resolver: &mut Resolver<'_>) -> Option<Self> {
                    let mut settings = Self::SETTINGS.iter();
                    $(let $key = resolver.take::<$type>(settings.next()?);)+
                    Some(Self { $($key: $key?),+ })
                }
            }
        )+

        /// Every setting of every Gust process, by section.
        ///
        /// Neither `Debug` nor serialization shows a secret.
        #[derive(Debug, Clone, Serialize)]
        pub struct Config {
            $(
                $(#[doc = $section_doc])*
                pub $section: $Section,
            )+
            #[serde(skip)]
            pub(crate) provenance: Provenance,
        }

        impl Config {
            pub(crate) fn read(resolver: &mut Resolver<'_>) -> Option<Self> {
                $(let $section = $Section::read(resolver);)+
                Some(Self { $($section: $section?,)+ provenance: Provenance::default() })
            }
        }

        const SECTIONS: &[(&str, &[Setting])] = &[$((stringify!($section), $Section::SETTINGS)),+];
    };
}

settings! {
    /// Gust itself.
    gust: Gust {
        /// The folder for what Gust keeps on this machine; other defaults stand below it.
        home: PathBuf = "~/.gust";
    }

    /// How much may run at once, and how DAGs and tasks behave that do not say it themselves.
    core: Core {
        /// The folder of DAG files, which a bundle without a path means.
        dags_folder: PathBuf = "{home}/dags" follows "core.dags_folder";
        /// The folder of Airflow plugins, for the Python side.
        plugins_folder: PathBuf = "{home}/plugins" follows "core.plugins_folder", child();
        /// How many task instances each scheduler lets be queued or running at once.
        parallelism: u32 = "32" follows "core.parallelism", at_least(1);
        /// How many task instances of a DAG run at once, all its runs together.
        max_active_tasks_per_dag: u32 = "16" follows "core.max_active_tasks_per_dag", child();
        /// How many runs of a DAG are running at once.
        max_active_runs_per_dag: u32 = "16" follows "core.max_active_runs_per_dag", child();
        /// After how many failed runs in a row a DAG is paused; 0 means never.
        max_consecutive_failed_dag_runs_per_dag: u32 = "0" follows "core.max_consecutive_failed_dag_runs_per_dag",
            child();
        /// Whether a new DAG starts out paused.
        dags_are_paused_at_creation: bool = "true" follows "core.dags_are_paused_at_creation";
        /// The time zone of dates without one. `system` is refused: schedulers on several machines must agree.
        default_timezone: Timezone = "UTC" follows "core.default_timezone", child();
        /// How often a task is tried again.
        default_task_retries: u32 = "0" follows "core.default_task_retries", child();
        /// The wait before a task is tried again.
        default_task_retry_delay: Seconds = "300" follows "core.default_task_retry_delay", child(), whole();
        /// The longest wait before a task is tried again, whatever the task says.
        max_task_retry_delay: Seconds = "86400" follows "core.max_task_retry_delay", child(), whole();
        /// How a task's priority weight counts its relatives.
        default_task_weight_rule: WeightRule = "downstream" follows "core.default_task_weight_rule", child();
        /// How long a task may run; unset means as long as it likes.
        default_task_execution_timeout: Option<Seconds> = "" follows "core.default_task_execution_timeout", child(), whole();
        /// How long a task that is to end has for it between SIGTERM and SIGKILL.
        killed_task_cleanup_time: Seconds = "60" follows "core.killed_task_cleanup_time";
        /// How long a task's process may go on, with listeners and callbacks, after the task has succeeded.
        task_success_overtime: Seconds = "20" follows "core.task_success_overtime";
        /// How many task instances a mapped task may expand to.
        max_map_length: u32 = "1024" follows "core.max_map_length", at_least(1), child();
        /// How long importing a DAG file may take.
        dagbag_import_timeout: Seconds = "30" follows "core.dagbag_import_timeout", child();
        /// Whether only files are parsed which contain the words `dag` and `airflow`.
        dag_discovery_safe_mode: bool = "true" follows "core.dag_discovery_safe_mode", child();
        /// The syntax of `.airflowignore` files.
        dag_ignore_file_syntax: IgnoreSyntax = "glob" follows "core.dag_ignore_file_syntax", child();
        /// The slots of `default_pool` when it is made; later changes are made to the pool.
        default_pool_task_slot_count: u32 = "128" follows "core.default_pool_task_slot_count";
        /// The keys that encrypt Connections and Variables, the newest first; unset means a key that Gust makes and
        /// keeps in its home folder.
        fernet_key: Option<KeyRing> = "" follows "core.fernet_key", secret();
        /// Whether Variables and fields of Connections with telling names are hidden in logs and pages.
        hide_sensitive_var_conn_fields: bool = "true" follows "core.hide_sensitive_var_conn_fields", child();
        /// Further words that make a name telling.
        sensitive_var_conn_names: Vec<String> = "" follows "core.sensitive_var_conn_names", child();
        /// Whether connections can be tried out over API and pages.
        test_connection: TestConnection = "Disabled" follows "core.test_connection";
    }

    /// The database that holds all state.
    metastore: Metastore {
        /// Where it is: `postgres://user:password@host/name` or `sqlite:///absolute/path`. SQLAlchemy's driver names
        /// (`postgresql+psycopg2://`) are accepted.
        url: MetastoreUrl = "sqlite://{home}/gust.db" follows "database.sql_alchemy_conn" | "core.sql_alchemy_conn",
            secret(), translated(from_sql_alchemy);
        /// How many connections a process keeps open. PostgreSQL only.
        pool_size: u32 = "5" follows "database.sql_alchemy_pool_size", at_least(1);
        /// How many connections more a process opens for a while. PostgreSQL only.
        max_overflow: u32 = "10" follows "database.sql_alchemy_max_overflow";
        /// After how long a connection is replaced by a new one.
        pool_recycle: Seconds = "1800" follows "database.sql_alchemy_pool_recycle", at_least(1);
    }

    /// The passes that make runs and queue tasks.
    scheduler: Scheduler {
        /// How often a scheduler shows that it is alive.
        scheduler_heartbeat_sec: Seconds = "5" follows "scheduler.scheduler_heartbeat_sec";
        /// After how long a silent scheduler counts as dead in `monitor/health`.
        scheduler_health_check_threshold: Seconds = "30" follows "scheduler.scheduler_health_check_threshold";
        /// How often a worker renews the lease of a try; 0 leaves it to `workers.min_heartbeat_interval`.
        task_instance_heartbeat_sec: Seconds = "0" follows "scheduler.task_instance_heartbeat_sec";
        /// The length of a try's lease: a try whose worker was silent for so long is given up.
        task_instance_heartbeat_timeout: Seconds = "300" follows "scheduler.task_instance_heartbeat_timeout", at_least(1);
        /// For how many DAGs one pass makes runs.
        max_dagruns_to_create_per_loop: u32 = "10" follows "scheduler.max_dagruns_to_create_per_loop", at_least(1);
        /// How many runs one pass examines.
        max_dagruns_per_loop_to_schedule: u32 = "20" follows "scheduler.max_dagruns_per_loop_to_schedule", at_least(1);
        /// How many task instances one statement queues; 0 means `core.parallelism`.
        max_tis_per_query: u32 = "16" follows "scheduler.max_tis_per_query";
        /// How long a try may wait in the queue before it is tried again or fails.
        task_queued_timeout: Seconds = "600" follows "scheduler.task_queued_timeout";
        /// Whether a DAG that does not say it makes up for missed intervals.
        catchup_by_default: bool = "false" follows "scheduler.catchup_by_default", child();
        /// Whether `depends_on_past` is passed over in a DAG's first run.
        ignore_first_depends_on_past_by_default: bool = "true" follows "scheduler.ignore_first_depends_on_past_by_default",
            child();
        /// Whether a cron expression as schedule means data intervals rather than moments.
        create_cron_data_intervals: bool = "false" follows "scheduler.create_cron_data_intervals", child();
        /// Whether a timedelta as schedule means data intervals rather than moments.
        create_delta_data_intervals: bool = "false" follows "scheduler.create_delta_data_intervals", child();
    }

    /// Finding and parsing DAG files.
    dag_processor: DagProcessor {
        /// The bundles of DAG files, folders all of them.
        dag_bundle_config_list: Bundles = r#"[{"name":"dags-folder"}]"# follows "dag_processor.dag_bundle_config_list";
        /// How many files are parsed at once.
        parsing_processes: u32 = "2" follows "dag_processor.parsing_processes", at_least(1);
        /// After how long a file is parsed again though it has not changed, since it may depend on more than itself.
        min_file_process_interval: Seconds = "30" follows "dag_processor.min_file_process_interval";
        /// How often a bundle is searched for new files, besides being watched.
        refresh_interval: Seconds = "300" follows "dag_processor.refresh_interval" | "scheduler.dag_dir_list_interval";
        /// How long parsing a file may take before it is killed.
        dag_file_processor_timeout: Seconds = "50" follows
            "dag_processor.dag_file_processor_timeout" | "core.dag_file_processor_timeout", at_least(1);
    }

    /// The processes that run tasks.
    worker: Worker {
        /// How many tries one worker process runs at once; unset means one for each processor core.
        concurrency: Option<u32> = "", at_least(1);
        /// How long, in seconds, a try goes on while the metastore is silent. It must outlast a failover.
        outage_grace_s: Seconds = "300";
        /// After how long, in seconds, the first part of a task's log is stored, and every part while somebody
        /// follows it.
        log_flush_min_s: Seconds = "1";
        /// To what interval, in seconds, storing parts of a task's log slows down.
        log_flush_max_s: Seconds = "10";
    }

    /// What Airflow's workers have settings for.
    workers: Workers {
        /// How often a worker renews the lease of a try, and so learns that it is to end.
        min_heartbeat_interval: Seconds = "5" follows "workers.min_heartbeat_interval", at_least(1);
    }

    /// The Python side, which parses and runs DAG files.
    python: Python {
        /// The interpreter that has the Task SDK; unset means an environment that Gust makes in `python.env_dir`.
        interpreter: Option<PathBuf> = "";
        /// Where Gust makes its Python environment.
        env_dir: PathBuf = "{home}/python";
        /// After how long, in seconds, a process that tasks are forked from is replaced, since what a DAG file reads at
        /// import is frozen in it.
        zygote_refresh_s: Seconds = "300", at_least(1);
    }

    /// Task logs and the processes' own logs.
    logging: Logging {
        /// The folder of task logs, where they are not stored remotely.
        base_log_folder: PathBuf = "{home}/logs" follows "logging.base_log_folder";
        /// Whether task logs are stored under `logging.remote_base_log_folder`.
        remote_logging: bool = "false" follows "logging.remote_logging";
        /// Where task logs are stored remotely: `s3://bucket/prefix`.
        remote_base_log_folder: Option<String> = "" follows "logging.remote_base_log_folder";
        /// The least serious lines in a process's own log. Tasks' loggers go by Airflow's variable alone, which
        /// is handed on to them.
        level: LogLevel = "info" follows "logging.logging_level", translated(level_of_python);
        /// How a process writes its own log.
        format: LogFormat = "text" follows "logging.json_logs", translated(format_of_json_logs);
        /// The folder for the processes' own logs; unset means stderr.
        dir: Option<PathBuf> = "";
    }

    /// The REST API and its server.
    api: Api {
        /// The address to listen on. Other than Airflow's, which is all of the machine's.
        host: String = "127.0.0.1" follows "api.host" | "webserver.web_server_host";
        /// The port to listen on; 0 means any that is free.
        port: u16 = "8080" follows "api.port" | "webserver.web_server_port";
        /// The address under which Gust is reached, for links; unset means host and port.
        base_url: Option<BaseUrl> = "" follows "api.base_url" | "webserver.base_url";
        /// The key that signs what the web server gives out for itself; unset means one that Gust makes and keeps in
        /// its home folder.
        secret_key: Option<Secret> = "" follows "api.secret_key" | "webserver.secret_key", secret();
        /// Whether the API shows the configuration, with secrets masked.
        expose_config: bool = "false" follows "api.expose_config" | "webserver.expose_config",
            translated(masked_or_not);
        /// Whether every request is written to the log.
        access_log: bool = "true";
        /// How many items a page of the API has at most.
        maximum_page_limit: u32 = "100" follows "api.maximum_page_limit", at_least(1);
        /// How many items a page of the API has where the request does not say.
        fallback_page_limit: u32 = "50" follows "api.fallback_page_limit" | "api.page_size" | "webserver.page_size",
            at_least(1);
    }

    /// The pages.
    web: Web {
        /// The host names that requests may be addressed to, besides the machine's loopback names and that of
        /// `api.base_url`.
        allowed_hosts: Vec<String> = "";
    }

    /// Tokens of the API.
    api_auth: ApiAuth {
        /// The key that signs tokens; unset means one that Gust makes and keeps in its home folder.
        jwt_secret: Option<Secret> = "" follows "api_auth.jwt_secret", secret();
        /// How long a token holds.
        jwt_expiration_time: Seconds = "86400" follows "api_auth.jwt_expiration_time", at_least(1);
        /// How long a token holds that was made for the command line.
        jwt_cli_expiration_time: Seconds = "3600" follows "api_auth.jwt_cli_expiration_time", at_least(1);
    }

    /// Where Connections and Variables come from besides the metastore. The Python side looks there.
    secrets: Secrets {
        /// The class of a secrets backend, which is asked before the environment and the metastore.
        backend: Option<String> = "" follows "secrets.backend", child();
        /// What the class is made with. It is handed on to user code, in whose process Airflow makes backends, so give
        /// it no more than user code may do.
        backend_kwargs: Option<SecretObject> = "" follows "secrets.backend_kwargs", secret(), child();
    }

    /// How the Python side sends mail. User and password stand in the Connection `smtp_default`, as in Airflow 3.
    smtp: Smtp {
        /// The mail server.
        smtp_host: String = "localhost" follows "smtp.smtp_host", child();
        /// The mail server's port.
        smtp_port: u16 = "25" follows "smtp.smtp_port", at_least(1), child();
        /// Whether to turn to TLS after connecting.
        smtp_starttls: bool = "true" follows "smtp.smtp_starttls", child();
        /// Whether to connect with TLS.
        smtp_ssl: bool = "false" follows "smtp.smtp_ssl", child();
        /// The sender's address.
        smtp_mail_from: String = "airflow@example.com" follows "smtp.smtp_mail_from", child();
        /// How long to wait for the mail server.
        smtp_timeout: Seconds = "30" follows "smtp.smtp_timeout", child(), whole();
        /// How often to try again.
        smtp_retry_limit: u32 = "5" follows "smtp.smtp_retry_limit", child();
    }
}

/// Airflow's deprecated third value of `api.expose_config` means the same as true.
#[expect(clippy::unnecessary_wraps, reason = "the signature is that of all translations")]
fn masked_or_not(text: &str) -> Result<String, String> {
    let text = text.trim();
    Ok(if text.eq_ignore_ascii_case("non-sensitive-only") { "true" } else { text }.to_owned())
}

/// The names of all sections.
pub(crate) fn sections() -> impl Iterator<Item = &'static str> {
    SECTIONS.iter().map(|(name, _)| *name)
}

/// All settings, in the order of the table.
pub(crate) fn settings() -> impl Iterator<Item = &'static Setting> {
    SECTIONS.iter().flat_map(|(_, settings)| *settings)
}

/// The setting of exactly this name.
pub(crate) fn find(section: &str, key: &str) -> Option<&'static Setting> {
    settings().find(|setting| setting.section == section && setting.key == key)
}
