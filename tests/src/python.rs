//! Python environments: the one in which tasks run, and the one of Airflow's client.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The client that the REST API is written for.
const CLIENT: &str = "apache-airflow-client==3.3.2";

/// The interpreter in which tasks run: the one named by `GUST_TEST_PYTHON`, else one made from the lock.
///
/// `None`, after saying why, where there is none; with `CI` set that fails the test.
pub async fn python() -> Option<PathBuf> {
    gust_python_host::testing::environment().await.map(|environment| environment.python)
}

/// The folder of Airflow's own example DAGs, in that interpreter's environment.
pub fn example_dags_folder(python: &Path) -> PathBuf {
    const WHERE: &str = "import importlib.util as u; print(u.find_spec('airflow.example_dags').origin)";
    let output = Command::new(python).args(["-c", WHERE]).output().expect("Python runs");
    assert!(
        output.status.success(),
        "Airflow's example DAGs are not in {}: {}",
        python.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let said = String::from_utf8_lossy(&output.stdout);
    // The import may have warned; the path is the last that was printed.
    let init = PathBuf::from(said.lines().last().unwrap_or_default());
    init.parent().expect("a package lies in a folder").to_owned()
}

/// An interpreter that has Airflow's Python client: the one named by `GUST_TEST_CLIENT_PYTHON`, else one that is made
/// from `PyPI`, once.
///
/// `None`, after saying why, where it cannot be made; with `CI` set that fails the test.
pub fn client_python(base: &Path) -> Option<PathBuf> {
    if let Some(python) = env::var_os("GUST_TEST_CLIENT_PYTHON") {
        return Some(python.into());
    }
    let folder = target_folder().join("test-client");
    let (python, mark) = (folder.join("bin/python"), folder.join(".complete"));
    if mark.is_file() {
        return Some(python);
    }
    let made = run(Command::new(base).args(["-m", "venv", "--clear"]).arg(&folder))
        .and_then(|()| run(Command::new(&python).args(["-m", "pip", "install", "--quiet", CLIENT])))
        .and_then(|()| std::fs::write(&mark, "").map_err(|error| error.to_string()));
    match made {
        Ok(()) => Some(python),
        Err(problem) => {
            assert!(env::var_os("CI").is_none(), "CI must have Airflow's client: {problem}");
            eprintln!("skipped: no environment with {CLIENT}: {problem}");
            None
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn target_folder() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from)
}
