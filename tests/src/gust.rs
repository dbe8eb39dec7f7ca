//! `gust standalone`, from its start to its end.

use std::{path::Path, time::Duration};

use crate::{
    house::House,
    rest::Rest,
    service::Service,
    waiting::{eventually, keep_looking},
};

/// How long a start may take, an environment being there.
const START: Duration = Duration::from_mins(2);

/// What precedes the address in what is printed.
const READY: &str = "Gust is ready:";

/// How `gust standalone` is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How many tasks run at once; `None` for the default.
    pub concurrency: Option<u32>,
}

/// A running `gust standalone`.
#[derive(Debug)]
pub struct Gust {
    /// The process.
    pub service: Service,
    /// Its API.
    pub rest: Rest,
}

impl Gust {
    /// Starts and waits until it says that it is ready.
    ///
    /// # Panics
    /// If it ends instead, or says nothing for two minutes.
    pub async fn start(house: &House, python: &Path, options: &Options) -> Self {
        let (mut service, skip) = Self::launch(house, python, options);
        let base = eventually("gust standalone is ready", START, async || {
            service.check();
            ready_address(&service, skip)
        })
        .await;
        let rest = Rest::open(&base).await;
        Self { service, rest }
    }

    /// Starts, and does not wait. Also returns how much was written by the processes before it.
    pub fn launch(house: &House, python: &Path, options: &Options) -> (Service, usize) {
        let skip = std::fs::metadata(house.file("standalone.out"))
            .map_or(0, |file| usize::try_from(file.len()).expect("the output fits into memory"));
        let (dags, python) = (house.dags(), python.to_owned());
        let mut arguments =
            vec!["standalone", "--port", "0", "--dags", path(&dags), "--python", path(&python)];
        let concurrency = options.concurrency.map(|n| n.to_string());
        if let Some(n) = &concurrency {
            arguments.extend(["--concurrency", n]);
        }
        (house.start("standalone", arguments), skip)
    }

    /// Waits for a launched process to be ready; `None` if it has not become so within `limit`.
    pub async fn is_ready(service: &Service, skip: usize, limit: Duration) -> Option<String> {
        keep_looking(limit, async || ready_address(service, skip)).await
    }
}

fn ready_address(service: &Service, skip: usize) -> Option<String> {
    let written = service.written();
    let (_, rest) = written.get(skip..)?.split_once(READY)?;
    let (address, _) = rest.split_once('\n')?;
    Some(address.trim().to_owned())
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}
