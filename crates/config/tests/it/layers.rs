use gust_config::{Config, ConfigError, Flag, Origin, Sources};
use rstest::rstest;

use crate::{from_env, listed, sources};

#[rstest]
#[case::nothing(0b00000, "32  default")]
#[case::airflow(0b00001, "1  AIRFLOW__CORE__PARALLELISM")]
#[case::file_beats_airflow(0b00011, "2  /etc/gust/gust.toml:3")]
#[case::environment_beats_file(0b00111, "3  GUST__CORE__PARALLELISM")]
#[case::flag_beats_environment(0b01111, "4  --parallelism")]
#[case::the_last_flag_holds(0b11111, "5  --set")]
#[case::environment_beats_airflow(0b00101, "3  GUST__CORE__PARALLELISM")]
#[case::flag_beats_airflow(0b01001, "4  --parallelism")]
#[case::flag_beats_file(0b01010, "4  --parallelism")]
fn stronger_layer_holds_and_is_remembered(#[case] layers: u8, #[case] expected: &str) {
    let has = |layer: u8| layers & (1 << layer) != 0;
    let mut env = Vec::new();
    if has(0) {
        env.push(("AIRFLOW__CORE__PARALLELISM", "1"));
    }
    if has(2) {
        env.push(("GUST__CORE__PARALLELISM", "3"));
    }
    let mut flags = Vec::new();
    if has(3) {
        flags.push(("--parallelism", "core.parallelism", "4"));
    }
    if has(4) {
        flags.push(("--set", "core.parallelism", "5"));
    }
    let file = has(1).then_some("# limits\n[core]\nparallelism = 2\n");
    let config = Config::load(&sources(&env, file, &flags)).unwrap();
    assert_eq!(listed(&config, "core.parallelism"), expected);
    assert_eq!(config.core.parallelism.to_string(), expected.split_whitespace().next().unwrap());
}

#[test]
fn every_value_is_listed_with_its_source() {
    let file = "
[core]
dags_folder = 'dags'
dagbag_import_timeout = 0.5
sensitive_var_conn_names = ['pin', 'otp']

[dag_processor]
min_file_process_interval = 5

[[dag_processor.dag_bundle_config_list]]
name = 'finance'
kwargs = { path = '../finance', refresh_interval = 10 }

[[dag_processor.dag_bundle_config_list]]
name = 'rest'
";
    let env = [
        (
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
            "postgresql+psycopg2://gust:geheim@db:5433/gust?sslmode=require",
        ),
        ("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING"),
        ("AIRFLOW__LOGGING__JSON_LOGS", "True"),
        ("AIRFLOW__WEBSERVER__WEB_SERVER_PORT", "9090"),
        ("GUST__API_AUTH__JWT_SECRET", "geheim"),
    ];
    let config = Config::load(&sources(&env, Some(file), &[("--home", "gust.home", "/srv/gust")])).unwrap();
    let lines: Vec<String> =
        config.list().iter().map(|line| format!("{}  {}  {}", line.key, line.value, line.origin)).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn reference_holds_every_setting() {
    let lines: Vec<String> = Config::reference()
        .iter()
        .map(|line| {
            let (airflow, secret) = (line.airflow.unwrap_or("-"), if line.secret { " (secret)" } else { "" });
            format!(
                "{} = {:?}  {}{secret}\n    {}\n    {}",
                line.key, line.default, line.kind, airflow, line.doc
            )
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn every_listed_value_reads_back_as_itself() {
    let first = from_env(&[("GUST__WORKER__OUTAGE_GRACE_S", "1.5"), ("GUST__WORKER__CONCURRENCY", "3")]);
    let first = first.unwrap();
    let env: Vec<(String, String)> = Config::reference()
        .into_iter()
        .zip(first.list())
        .map(|(reference, line)| (reference.env, line.value.clone()))
        .collect();
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let second = from_env(&env).unwrap();
    for (before, after) in first.list().iter().zip(second.list()) {
        assert_eq!((before.key, &before.value), (after.key, &after.value));
    }
}

#[test]
fn defaults_stand_below_the_home_folder() {
    let config = from_env(&[("GUST__GUST__HOME", "/srv/gust")]).unwrap();
    assert_eq!(config.core.dags_folder.to_str(), Some("/srv/gust/dags"));
    assert_eq!(config.metastore.url.expose(), "sqlite:///srv/gust/gust.db");
}

#[test]
fn inherited_airflow_value_is_not_read_where_gust_has_its_own() {
    let config = from_env(&[
        ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "mysql://airflow:x@db/airflow"),
        ("GUST__METASTORE__URL", "postgres://gust@db/gust"),
    ])
    .unwrap();
    assert_eq!(config.metastore.url.expose(), "postgres://gust@db/gust");
}

#[test]
fn unknown_airflow_variables_are_noted() {
    let config = from_env(&[
        ("AIRFLOW__SCHEDULER__USE_ROW_LEVEL_LOCKING", "False"),
        ("AIRFLOW__CELERY__BROKER_URL", "redis://:x@r"),
        ("AIRFLOW__CORE__PARALLELISM", "7"),
        ("AIRFLOW__CORE__PARALLELISM_CMD", "echo 7"),
    ])
    .unwrap();
    insta::assert_snapshot!(config.notes().join("\n"));
}

#[test]
fn process_reads_the_file_in_its_home_folder() {
    let home = tempfile::tempdir().unwrap();
    let flag = |folder: &std::path::Path| {
        let value = folder.display().to_string();
        vec![Flag { flag: "--home".to_owned(), key: "gust.home".to_owned(), value }]
    };
    assert!(Sources::from_process(flag(home.path()), None).unwrap().file.is_none());
    let path = home.path().join("gust.toml");
    std::fs::write(&path, "[api]\nport = 9\n").unwrap();
    let config = Config::load(&Sources::from_process(flag(home.path()), None).unwrap()).unwrap();
    let port = config.list().iter().find(|line| line.key == "api.port").unwrap();
    assert_eq!((port.value.as_str(), &port.origin), ("9", &Origin::File { path, line: 2 }));
}

#[test]
fn file_that_was_asked_for_must_exist() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("other.toml");
    let errors = Sources::from_process(Vec::new(), Some(path.clone())).err().unwrap();
    assert!(
        matches!(&errors.0[..], [ConfigError::Unreadable { path: named, .. }] if *named == path.display().to_string())
    );
}
