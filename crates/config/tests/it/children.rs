use gust_config::{Config, withheld_from_children};
use rstest::rstest;

use crate::sources;

#[test]
fn user_code_gets_airflow_settings_and_no_credentials() {
    let env = [
        ("AIRFLOW__OPERATORS__DEFAULT_OWNER", "ann"),
        ("AIRFLOW__CORE__DEFAULT_TASK_RETRIES", "2"),
        ("AIRFLOW__CORE__MAX_MAP_LENGTH", "9"),
        ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://u:hush@h/d"),
        ("AIRFLOW__CORE__FERNET_KEY_CMD", "echo AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        ("AIRFLOW__API_AUTH__JWT_SECRET", "hush"),
        ("AIRFLOW__SECRETS__BACKEND_KWARG__ROLE_ID", "r"),
        ("GUST__CORE__DEFAULT_TIMEZONE", "Europe/Amsterdam"),
        ("PATH", "/bin"),
    ];
    let text = "[core]\nmax_map_length = 7\n[secrets]\nbackend = 'a.b.C'\nbackend_kwargs = { url = 'u' }\n";
    let config = Config::load(&sources(&env, Some(text), &[])).unwrap();
    let lines: Vec<String> =
        config.child_env().iter().map(|(name, value)| format!("{name}={value}")).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn value_unset_for_gust_is_unset_for_user_code() {
    let env = [("AIRFLOW__SECRETS__BACKEND", "a.b.C"), ("GUST__SECRETS__BACKEND", "")];
    let config = Config::load(&sources(&env, None, &[])).unwrap();
    assert!(!config.child_env().contains_key("AIRFLOW__SECRETS__BACKEND"));
}

#[rstest]
#[case("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_SECRET", true)]
#[case("AIRFLOW__CORE__SQL_ALCHEMY_CONN", true)]
#[case("AIRFLOW__CORE__FERNET_KEY", true)]
#[case("AIRFLOW__CORE__FERNET_KEY_CMD", true)]
#[case("AIRFLOW__API__SECRET_KEY", true)]
#[case("AIRFLOW__CELERY__RESULT_BACKEND", true)]
#[case("AIRFLOW__TEAM_A___CELERY__BROKER_URL", true)]
#[case("AIRFLOW__LOGGING__REMOTE_LOGGING", true)]
#[case("GUST__CORE__PARALLELISM", true)]
#[case("gust__core__fernet_key", true)]
#[case("AIRFLOW__LOGGING__LOGGING_LEVEL", false)]
#[case("AIRFLOW__CORE__MAX_MAP_LENGTH", false)]
#[case("AIRFLOW__SENSORS__DEFAULT_TIMEOUT", false)]
#[case("AIRFLOW_CONN_DB", false)]
#[case("PATH", false)]
fn only_credentials_are_withheld(#[case] name: &str, #[case] withheld: bool) {
    assert_eq!(withheld_from_children(name), withheld);
}
