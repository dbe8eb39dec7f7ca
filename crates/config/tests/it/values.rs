use std::time::Duration;

use gust_config::{Config, LogFormat, LogLevel, Sources, WeightRule};
use proptest::prelude::*;
use rstest::rstest;

use crate::{from_env, from_file, listed, sources};

#[rstest]
#[case::psycopg2("AIRFLOW", "postgresql+psycopg2://u:p%40@h:5/d?a=b", "postgres://u:p%40@h:5/d?a=b")]
#[case::asyncpg("AIRFLOW", "postgresql+asyncpg://u@h/d", "postgres://u@h/d")]
#[case::plain("AIRFLOW", "postgresql://u@h/d", "postgres://u@h/d")]
#[case::old("AIRFLOW", "postgres://u@h/d", "postgres://u@h/d")]
#[case::socket("GUST", "postgresql:///d?host=/run/postgresql", "postgres:///d?host=/run/postgresql")]
#[case::sqlite_of_airflow("AIRFLOW", "sqlite:////var/a.db", "sqlite:///var/a.db")]
#[case::aiosqlite("AIRFLOW", "sqlite+aiosqlite:////var/a.db", "sqlite:///var/a.db")]
#[case::memory_of_airflow("AIRFLOW", "sqlite://", "sqlite::memory:")]
#[case::sqlite("GUST", "sqlite:///var/a.db", "sqlite:///var/a.db")]
#[case::four_slashes("GUST", "sqlite:////var/a.db", "sqlite:///var/a.db")]
#[case::relative("GUST", "sqlite://a.db?mode=ro", "sqlite://a.db?mode=ro")]
#[case::tilde("GUST", "sqlite:~/a.db", "sqlite:///home/ann/a.db")]
#[case::memory("GUST", "sqlite::memory:", "sqlite::memory:")]
fn metastore_addresses_have_one_form(#[case] whose: &str, #[case] written: &str, #[case] expected: &str) {
    let name = if whose == "GUST" { "GUST__METASTORE__URL" } else { "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" };
    let config = from_env(&[(name, written)]).unwrap();
    assert_eq!(config.metastore.url.expose(), expected);
    assert_eq!(config.metastore.url.is_sqlite(), expected.starts_with("sqlite"));
}

#[test]
fn secrets_are_shown_nowhere() {
    let key = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U=";
    let config = from_env(&[
        ("GUST__CORE__FERNET_KEY", key),
        ("GUST__METASTORE__URL", "postgres://u:hush@h/d?sslpassword=hush&application_name=g"),
        ("GUST__API__SECRET_KEY", "hush"),
        ("GUST__API_AUTH__JWT_SECRET", "hush"),
        ("GUST__SECRETS__BACKEND_KWARGS", r#"{"token": "hush"}"#),
        ("AIRFLOW__SMTP__SMTP_PASSWORD", "hush"),
    ])
    .unwrap();
    let list = format!("{:?} {:?}", config.list(), config.notes());
    let json = serde_json::to_string(&config).unwrap();
    for shown in [format!("{config:?}"), list, json] {
        assert!(!shown.contains("hush") && !shown.contains(key), "{shown}");
    }
    assert_eq!(
        listed(&config, "metastore.url"),
        "postgres://u:***@h/d?sslpassword=***&application_name=g  GUST__METASTORE__URL"
    );
    assert_eq!(config.api_auth.jwt_secret.unwrap().expose(), "hush");
    assert_eq!(config.core.fernet_key.unwrap().keys(), [*b"secretsecretsecretsecretsecretse"]);
}

#[test]
fn unset_secrets_are_listed_as_unset() {
    assert_eq!(listed(&from_env(&[]).unwrap(), "core.fernet_key"), "  default");
}

#[test]
fn paths_follow_the_home_the_variables_and_the_place_of_the_file() {
    let text = "[core]\ndags_folder = 'dags'\nplugins_folder = '$BASE/${KIND}s'\n[logging]\nbase_log_folder = '~/logs'\n";
    let env = [("BASE", "/srv"), ("KIND", "plugin")];
    let config = Config::load(&sources(&env, Some(text), &[("--dir", "logging.dir", "logs")])).unwrap();
    assert_eq!(config.core.dags_folder.to_str(), Some("/etc/gust/dags"));
    assert_eq!(config.core.plugins_folder.to_str(), Some("/srv/plugins"));
    assert_eq!(config.logging.base_log_folder.to_str(), Some("/home/ann/logs"));
    assert_eq!(config.logging.dir.unwrap().to_str(), Some("logs"));
}

#[test]
fn airflow_values_are_expanded_as_airflow_does() {
    let config = from_env(&[
        ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://u:${PW}@h/d?x=$UNKNOWN"),
        ("PW", "$PW2"),
        ("PW2", "deep"),
    ])
    .unwrap();
    assert_eq!(config.metastore.url.expose(), "postgres://u:deep@h/d?x=$UNKNOWN");
}

#[test]
fn secret_of_a_command_loses_its_line_end() {
    let config = from_env(&[("AIRFLOW__API_AUTH__JWT_SECRET_CMD", "echo 'two words'")]).unwrap();
    assert_eq!(config.api_auth.jwt_secret.as_ref().unwrap().expose(), "two words");
    assert_eq!(listed(&config, "api_auth.jwt_secret"), "***  AIRFLOW__API_AUTH__JWT_SECRET_CMD");
}

#[test]
fn no_command_runs_where_its_value_does_not_count() {
    let mut sources = sources(
        &[("AIRFLOW__API_AUTH__JWT_SECRET_CMD", "get-secret"), ("GUST__API_AUTH__JWT_SECRET", "own")],
        None,
        &[],
    );
    sources.run_command = Box::new(|line| Err(format!("{line} was run")));
    assert_eq!(Config::load(&sources).unwrap().api_auth.jwt_secret.unwrap().expose(), "own");
}

#[test]
fn values_have_their_types() {
    let config = from_file(
        "[core]\ndefault_task_weight_rule = 'upstream'\ndefault_task_execution_timeout = 90\n\
         [logging]\nlevel = 'debug'\nformat = 'json'\n[worker]\noutage_grace_s = 2.5\n",
    )
    .unwrap();
    assert_eq!(config.core.default_task_weight_rule, WeightRule::Upstream);
    assert_eq!(config.core.default_task_execution_timeout.map(Duration::from), Some(Duration::from_secs(90)));
    assert_eq!((config.logging.level, config.logging.format), (LogLevel::Debug, LogFormat::Json));
    assert_eq!(*config.worker.outage_grace_s, Duration::from_millis(2500));
    assert_eq!(config.core.default_timezone.0, chrono_tz::UTC);
}

#[rstest]
#[case::as_airflow(&[], 300, 5)]
#[case::own_interval(&[("AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC", "20")], 300, 20)]
#[case::short_lease(&[("AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT", "6")], 6, 2)]
fn lease_is_renewed_thrice_at_least(#[case] env: &[(&str, &str)], #[case] duration: u64, #[case] every: u64) {
    let lease = from_env(env).unwrap().lease();
    assert_eq!((lease.duration.as_secs(), lease.renew_every.as_secs()), (duration, every));
}

#[test]
fn bundles_fall_back_to_the_folder_and_the_interval_of_all() {
    let list = r#"[{"name": "a", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {}},
                   {"name": "b", "kwargs": {"path": "~/b", "refresh_interval": 7}}]"#;
    let config = from_env(&[
        ("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", list),
        ("AIRFLOW__CORE__DAGS_FOLDER", "/dags"),
    ])
    .unwrap();
    let expected = [("a", "/dags", 300), ("b", "/home/ann/b", 7)];
    let expected = expected.map(|(name, path, s)| (name.to_owned(), path.into(), Duration::from_secs(s)));
    assert_eq!(config.bundles(), expected);
}

proptest! {
    #[test]
    fn no_text_upsets_any_setting(index in 0..Config::reference().len(), text in "\\PC{0,24}") {
        let name = &Config::reference()[index].env;
        let _ = from_env(&[(name, &text)]);
    }

    #[test]
    fn no_file_upsets_the_reader(text in "(\\[{0,2}[a-z_.]{0,8}\\]{0,2}|[a-z]{1,4} = [0-9a-z'\"{}\\[\\], éß]{0,9}|\n){0,12}") {
        let _ = from_file(&text);
    }

    #[test]
    fn no_variable_name_upsets_the_hints(name in "GUST__[A-Za-z_é]{0,20}") {
        let mut sources = Sources { run_command: Box::new(|_| Ok(String::new())), ..Sources::default() };
        sources.env.insert("HOME".to_owned(), "/home/ann".to_owned());
        sources.env.insert(name, "1".to_owned());
        let _ = Config::load(&sources);
    }
}
