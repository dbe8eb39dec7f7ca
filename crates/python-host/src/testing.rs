//! The Python environment of tests, shared by all crates that run real tasks.

use std::path::{Path, PathBuf};

use crate::{Environment, EnvironmentConfig, Error};

/// The interpreter named by `GUST_TEST_PYTHON`, else one made from the lock below the target folder.
///
/// Without either (no Python, no network) it prints why and returns `None`, so that the test can end early; with `CI`
/// set that is a failure.
///
/// # Panics
/// With `CI` set, where no environment can be had.
pub async fn environment() -> Option<Environment> {
    let config = EnvironmentConfig {
        home: target_folder().join("test-python"),
        python: std::env::var_os("GUST_TEST_PYTHON").map(PathBuf::from),
    };
    match Environment::ensure(&config, |_| {}).await {
        Ok(environment) => Some(environment),
        Err(problem) => {
            refuse_in_ci(&problem);
            eprintln!("skipped: no Python environment: {problem}");
            None
        }
    }
}

fn refuse_in_ci(problem: &Error) {
    assert!(std::env::var_os("CI").is_none(), "CI must have the Python environment: {problem}");
}

/// The workspace's target folder: that of the running test binary.
fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from)
}
