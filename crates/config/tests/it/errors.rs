use gust_config::{Config, Sources};

use crate::{from_env, from_file, sources};

fn env(name: &str, value: &str) -> String {
    from_env(&[(name, value)]).unwrap_err().to_string()
}

fn file(text: &str) -> String {
    from_file(text).unwrap_err().to_string()
}

fn flag(key: &str, value: &str) -> String {
    Config::load(&sources(&[], None, &[("--set", key, value)])).unwrap_err().to_string()
}

#[test]
fn each_error_says_what_where_and_what_would_be_right() {
    let key = "A".repeat(43);
    let messages = [
        // Names.
        file("[core]\nparalelism = 3\n"),
        file("\n[cor]\nparallelism = 3\nmax_map_length = 4\n"),
        file("[nonsense]\n"),
        file("[nonsense]\nutterly_strange_key = 3\n"),
        file("[database]\nsql_alchemy_conn = 'sqlite:////tmp/x.db'\n"),
        file("[scheduler]\nmin_file_process_interval = 3\n"),
        file("parallelism = 3\n"),
        env("GUST__CORE__PARALELISM", "3"),
        env("GUST__CORE__parallelism", "3"),
        env("GUST__PARALLELISM", "3"),
        env("GUST__XYZZY__QUUX", "3"),
        env("GUST__DATABASE__SQL_ALCHEMY_CONN", "3"),
        flag("core.paralelism", "3"),
        flag("parallelism", "3"),
        // Plain values.
        env("GUST__CORE__PARALLELISM", "many"),
        env("AIRFLOW__CORE__PARALLELISM", ""),
        env("GUST__CORE__PARALLELISM", "0"),
        file("[core]\nparallelism = '32'\n"),
        file("[core]\nparallelism = -1\n"),
        file("[core]\nparallelism = 1.5\n"),
        file("[core.parallelism]\nmost = 3\n"),
        env("AIRFLOW__API__PORT", "80800"),
        env("AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION", "yes"),
        file("[core]\nkilled_task_cleanup_time = -5\n"),
        file("[core]\nkilled_task_cleanup_time = 1979-05-27\n"),
        env("GUST__CORE__KILLED_TASK_CLEANUP_TIME", "inf"),
        file("[core]\nmax_task_retry_delay = 0.5\n"),
        env("AIRFLOW__CORE__DEFAULT_TIMEZONE", "Europe/Amsterdm"),
        env("AIRFLOW__CORE__DEFAULT_TIMEZONE", "system"),
        env("AIRFLOW__CORE__DEFAULT_TASK_WEIGHT_RULE", "sideways"),
        env("AIRFLOW__LOGGING__LOGGING_LEVEL", "LOUD"),
        env("AIRFLOW__LOGGING__JSON_LOGS", "perhaps"),
        env("GUST__API__BASE_URL", "gust.example.com"),
        file("[web]\nallowed_hosts = ['gust', 3]\n"),
        file("[api]\nhost = ''\n"),
        file("[core]\ndags_folder = ''\n"),
        // Secrets are not repeated.
        env("GUST__METASTORE__URL", "mysql://u:geheim@db/airflow"),
        env("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "mysql+pymysql://u:geheim@db/airflow"),
        env("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "sqlite:///airflow.db"),
        env("GUST__METASTORE__URL", "mssql+pyodbc://u:geheim@db/airflow"),
        env("GUST__METASTORE__URL", "geheim"),
        env("GUST__METASTORE__URL", "postgres://u:ge@heim:x@db:nine/airflow"),
        env("GUST__METASTORE__URL", "postgres:db"),
        env("GUST__METASTORE__URL", "sqlite://"),
        env("AIRFLOW__CORE__FERNET_KEY", &format!("{key}=,geheim")),
        env("AIRFLOW__SECRETS__BACKEND_KWARGS", "\"geheim\""),
        env("AIRFLOW__CORE__FERNET_KEY_SECRET", "vault/fernet"),
        env("AIRFLOW__CORE__FERNET_KEY_CMD", "false"),
        env("AIRFLOW__CORE__FERNET_KEY_CMD", "echo 'open"),
        // Bundles.
        env("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", "[{"),
        env(
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST",
            r#"[{"name": "a", "classpath": "airflow.providers.git.bundles.git.GitDagBundle", "kwargs": {}}]"#,
        ),
        file("[[dag_processor.dag_bundle_config_list]]\nname = 'a'\nkwargs = { pth = 'x' }\n"),
        file("[dag_processor]\ndag_bundle_config_list = [{ name = 'a' }, { name = 'a' }]\n"),
        file(
            "[dag_processor]\ndag_bundle_config_list = [{ name = 'a', kwargs = { refresh_interval = -1 } }]\n",
        ),
        // Values that do not fit together.
        env("GUST__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC", "101"),
        env("GUST__WORKER__LOG_FLUSH_MIN_S", "11"),
        env("AIRFLOW__LOGGING__REMOTE_LOGGING", "True"),
        file("[logging]\nremote_logging = true\nremote_base_log_folder = 'gs://logs'\n"),
        // The file as a whole.
        file("[core]\nparallelism = \n\n[core\nx = 3"),
        file("[core]\nparallelism = 3\nparallelism = 4\n"),
        // No home.
        Config::load(&Sources::default()).unwrap_err().to_string(),
    ];
    let messages = messages.join("\n\n");
    assert!(!messages.contains("geheim"), "{messages}");
    insta::assert_snapshot!(messages);
}

#[test]
fn all_errors_are_shown_at_once() {
    let text = "[core]\nparalelism = 3\nmax_map_length = 'x'\n\n[api]\nport = true\n";
    let env =
        [("GUST__CORE__PARALLELISM", "x"), ("GUST__NO", "1"), ("AIRFLOW__API__MAXIMUM_PAGE_LIMIT", "x")];
    let flags = [("--port", "api.port", "x")];
    insta::assert_snapshot!(Config::load(&sources(&env, Some(text), &flags)).unwrap_err());
}
