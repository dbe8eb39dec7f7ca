//! The commands that end by themselves. They act on the metastore directly, as Airflow's do, and change things through
//! the operations that the REST API uses as well.

pub mod bundle;
pub mod config;
mod confirm;
pub mod connections;
pub mod dags;
pub mod db;
mod files;
mod find;
mod moment;
pub mod pools;
pub mod tasks;
pub mod variables;

use gust_config::Config;
use gust_operations::Ports;
use serde_json::json;
use thiserror::Error;

use crate::{house::House, output::Out};

/// Something on the command line that cannot be meant; clap did not see it.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Opens the house for a command that works on a finished schema.
///
/// # Errors
/// As [`House::open`], and when the schema is another than this version's.
async fn open(config: Config) -> anyhow::Result<House> {
    let house = House::open(config).await?;
    house.store.check().await?;
    Ok(house)
}

/// What operations work over.
fn ports(house: &House) -> Ports<'_> {
    Ports { metastore: &*house.store, wakeups: &*house.wakeups, ids: &*house.ids }
}

/// Prints which Gust this is.
///
/// # Errors
/// When nothing can be printed.
pub fn version(out: &mut Out) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    if out.is_structured() {
        out.value(&json!({ "version": version }))?;
    } else {
        out.line(version)?;
    }
    Ok(())
}

/// How many rows one listing asks for.
const LISTING: u32 = 500;

/// Reads all pages of a listing: `$tx.$method(…, limit, offset)` until everything is there or `$most` rows are.
macro_rules! all_pages {
    ($most:expr, |$limit:ident, $offset:ident| $page:expr) => {{
        let most: u32 = $most;
        let mut items = Vec::new();
        loop {
            let $offset = u32::try_from(items.len()).unwrap_or(u32::MAX);
            let $limit = $crate::commands::LISTING.min(most.saturating_sub($offset));
            if $limit == 0 {
                break items;
            }
            let page = $page;
            let got = page.items.len();
            items.extend(page.items);
            if got < $limit as usize {
                break items;
            }
        }
    }};
}
use all_pages;
