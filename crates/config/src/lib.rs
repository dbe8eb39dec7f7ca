//! One typed [`Config`] for every Gust process, and the memory of where each value came from.
//!
//! Layers, weakest first:
//!
//! 1. the defaults in the table of `settings.rs`, Airflow 3.3.2's unless the setting says why not;
//! 2. Airflow's environment, `AIRFLOW__SECTION__KEY` (and `…_CMD` for secrets), where the meaning is the same;
//! 3. one file, `gust.toml`;
//! 4. Gust's environment, `GUST__SECTION__KEY`;
//! 5. the command line.
//!
//! Airflow's environment stands below the file, other than in Airflow itself: it is usually inherited from a
//! deployment made for Airflow, and whoever writes a Gust setting means Gust.
//!
//! Everything that is wrong is found in one go and returned as [`ConfigErrors`]. A value in the file, in a `GUST__`
//! variable or on the command line must be right even where a stronger layer hides it; an inherited `AIRFLOW__` value
//! must be right only where it counts, so that an environment made for Airflow on `MySQL` can still start a Gust that
//! has its own metastore.
//!
//! Loading is pure: [`Sources`] carries the environment, the file's text and the way to run a command.
//! [`Sources::from_process`] fills it for a real process.

mod children;
mod config;
mod error;
mod file;
mod nearest;
mod resolve;
mod settings;
mod sources;
mod values;

pub use children::withheld_from_children;
pub use config::{Lease, Listed, Reference};
pub use error::{ConfigError, ConfigErrors};
pub use settings::{
    Api, ApiAuth, Config, Core, DagProcessor, Gust, Logging, Metastore, Python, Scheduler, Secrets, Smtp,
    Web, Worker, Workers,
};
pub use sources::{Flag, Origin, RunCommand, Sources};
pub use values::{
    BaseUrl, Bundle, Bundles, IgnoreSyntax, KeyRing, LogFormat, LogLevel, MetastoreUrl, Seconds, Secret,
    TestConnection, Timezone, WeightRule,
};
