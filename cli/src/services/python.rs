use std::time::Duration;

use gust_python_host::{Environment, EnvironmentConfig, Error, Progress};
use indicatif::{ProgressBar, ProgressStyle};

/// Finds or makes the Python environment, showing how far it is on a terminal and saying so in the log elsewhere.
pub(super) async fn ensure_environment(config: &EnvironmentConfig) -> Result<Environment, Error> {
    let bar = ProgressBar::no_length();
    let style = ProgressStyle::with_template("{spinner} {msg} {wide_bar} {pos}/{len}");
    let mut begun = false;
    let environment = Environment::ensure(config, |progress| {
        if !begun {
            begun = true;
            if let Ok(style) = &style {
                bar.set_style(style.clone());
            }
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        match progress {
            Progress::Waiting => say(&bar, "waiting for another process that makes the Python environment"),
            Progress::Creating(base) => {
                say(
                    &bar,
                    &format!("making a Python environment with {} (once; about a minute)", base.display()),
                );
            }
            Progress::Collecting { package, done, total } => {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
                bar.set_message(package);
            }
            Progress::Installing => say(&bar, "installing and compiling the packages"),
        }
    })
    .await;
    bar.finish_and_clear();
    environment
}

fn say(bar: &ProgressBar, message: &str) {
    if bar.is_hidden() {
        tracing::info!("{message}");
    } else {
        bar.set_message(message.to_owned());
    }
}
