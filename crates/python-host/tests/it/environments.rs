//! The Python environment: given, refused, made.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use gust_python_host::{Environment, EnvironmentConfig, Error, Progress, testing};
use tempfile::TempDir;

/// An interpreter that answers as it is told, as a shell script.
fn interpreter(folder: &Path, answer: &str) -> PathBuf {
    let path = folder.join("python");
    std::fs::write(&path, format!("#!/bin/sh\n{answer}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn check(answer: &str) -> Result<Environment, Error> {
    let folder = TempDir::new().unwrap();
    let python = Some(interpreter(folder.path(), answer));
    Environment::ensure(&EnvironmentConfig { home: folder.path().join("home"), python }, |_| {}).await
}

#[tokio::test]
async fn a_given_interpreter_with_the_pinned_packages_is_taken_as_it_is() {
    let environment = check(r#"echo '{"sdk": "1.3.2", "core": "3.3.2"}'"#).await.unwrap();
    assert!(environment.python.ends_with("python"));
}

#[tokio::test]
async fn a_given_interpreter_with_others_is_refused_with_what_would_be_right() {
    for (answer, found) in [
        (r#"echo '{"sdk": "1.2.0", "core": "3.3.2"}'"#, "task-sdk 1.2.0"),
        (r#"echo '{"sdk": null, "core": null}'"#, "not at all"),
        ("echo broken >&2; exit 1", "broken"),
    ] {
        let problem = check(answer).await.unwrap_err();
        assert!(matches!(problem, Error::WrongEnvironment { .. }));
        let text = problem.to_string();
        assert!(text.contains(found) && text.contains("apache-airflow-task-sdk==1.3.2"), "{text}");
        assert!(text.contains("requirements.lock"), "{text}");
    }
}

#[tokio::test]
async fn an_interpreter_that_is_not_there_is_named() {
    let home = TempDir::new().unwrap();
    let python = Some(PathBuf::from("/nowhere/python"));
    let config = EnvironmentConfig { home: home.path().to_owned(), python };
    let text = Environment::ensure(&config, |_| {}).await.unwrap_err().to_string();
    assert!(text.contains("/nowhere/python"), "{text}");
}

#[tokio::test]
#[ignore = "downloads the whole environment, twice; takes a minute and more"]
async fn two_starts_at_once_and_an_unfinished_one_end_in_one_environment() {
    let home = TempDir::new().unwrap();
    let config = EnvironmentConfig { home: home.path().to_owned(), python: None };
    let steps = |seen: &mut Vec<Progress>, step: Progress| seen.push(step);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let (one, two) = tokio::join!(
        Environment::ensure(&config, |step| steps(&mut first, step)),
        Environment::ensure(&config, |step| steps(&mut second, step)),
    );
    let environment = one.unwrap();
    assert_eq!(environment, two.unwrap());
    assert_eq!(first.contains(&Progress::Waiting), !second.contains(&Progress::Waiting));
    assert!(first.iter().chain(&second).any(|step| matches!(step, Progress::Collecting { .. })));
    // Without its mark it counts as interrupted.
    let folder = environment.python.parent().unwrap().parent().unwrap();
    std::fs::remove_file(folder.join("gust-complete")).unwrap();
    std::fs::remove_dir_all(folder.join("lib")).unwrap();
    let again = Environment::ensure(&config, |_| {}).await.unwrap();
    let checked = EnvironmentConfig { home: home.path().to_owned(), python: Some(again.python) };
    Environment::ensure(&checked, |_| {}).await.unwrap();
}

#[tokio::test]
async fn the_environment_of_tests_is_the_pinned_one() {
    let Some(environment) = testing::environment().await else { return };
    assert!(environment.python.is_file());
}
