//! `gust pools …`

use std::{collections::BTreeMap, path::PathBuf};

use clap::Subcommand;
use gust_config::Config;
use gust_model::{PoolName, record::Pool};
use gust_operations::{PoolPatch, create_pool, delete_pool, update_pool};
use gust_ports::metastore::TxMode;
use serde_json::{Map, Value, json};

use super::{files, find, open, ports};
use crate::{
    house::House,
    output::{Out, row, with},
};

/// `gust pools …`
#[derive(Debug, Subcommand)]
pub enum PoolsCommand {
    /// List the pools and who holds their slots
    List,
    /// Show one pool
    Get {
        /// The pool
        #[arg(value_name = "NAME")]
        pool: String,
    },
    /// Make or change a pool
    #[command(after_help = "Examples:
  gust pools set db 4 'connections to the warehouse'
  gust pools set waiting -1 --include-deferred")]
    Set {
        /// The pool
        #[arg(value_name = "NAME")]
        pool: String,
        /// How many slots; -1 for no limit
        #[arg(allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1..))]
        slots: i32,
        /// What it is for
        #[arg(default_value = "")]
        description: String,
        /// Deferred task instances keep their slots
        #[arg(long)]
        include_deferred: bool,
    },
    /// Remove a pool
    Delete {
        /// The pool
        #[arg(value_name = "NAME")]
        pool: String,
    },
    /// Make or change pools as a JSON file says
    #[command(
        after_help = "The file: {\"db\": {\"slots\": 4, \"description\": \"…\", \"include_deferred\": false}}"
    )]
    Import {
        /// The file; - for the standard input
        file: PathBuf,
    },
    /// Write all pools to a JSON file
    Export {
        /// The file; - for the standard output
        file: PathBuf,
    },
}

const COLUMNS: [&str; 9] = [
    "name=pool",
    "slots",
    "description",
    "include_deferred",
    "usage.running=running",
    "usage.queued=queued",
    "usage.scheduled=scheduled",
    "usage.deferred=deferred",
    "open",
];

/// Runs a command.
///
/// # Errors
/// What went wrong, for people.
pub async fn run(command: PoolsCommand, config: Config, out: &mut Out) -> anyhow::Result<()> {
    let house = open(config).await?;
    match command {
        PoolsCommand::List => {
            let rows = rows(&house, None).await?;
            out.rows(&COLUMNS, &rows, "no pools")?;
        }
        PoolsCommand::Get { pool } => out.rows(&COLUMNS, &rows(&house, Some(&pool)).await?, "")?,
        PoolsCommand::Set { pool, slots, description, include_deferred } => {
            let description = Some(description).filter(|text| !text.is_empty());
            let pool = Pool { name: PoolName::from(pool), slots, description, include_deferred };
            set(&house, pool.clone()).await?;
            out.rows(&COLUMNS, &rows(&house, Some(pool.name.as_str())).await?, "")?;
        }
        PoolsCommand::Delete { pool } => {
            rows(&house, Some(&pool)).await?;
            delete_pool(ports(&house), PoolName::from(pool.as_str())).await?;
            if out.is_structured() {
                out.value(&json!({ "deleted": pool }))?;
            } else {
                out.line(&format!("removed the pool {pool}"))?;
            }
        }
        PoolsCommand::Import { file } => {
            let pools = files::read_object(&file)?
                .into_iter()
                .map(|(name, value)| pool_of(&name, &value))
                .collect::<Result<Vec<_>, _>>()?;
            let count = pools.len();
            for pool in pools {
                set(&house, pool).await?;
            }
            out.say(&format!("{count} pools were imported"))?;
        }
        PoolsCommand::Export { file } => {
            let mut tx = house.store.begin(TxMode::Read).await?;
            let pools: Map<String, Value> = tx
                .pools()
                .await?
                .into_iter()
                .map(|pool| {
                    let value = json!({
                        "slots": pool.slots, "description": pool.description,
                        "include_deferred": pool.include_deferred,
                    });
                    (pool.name.to_string(), value)
                })
                .collect();
            files::write_object(&file, pools)?;
        }
    }
    Ok(())
}

fn pool_of(name: &str, value: &Value) -> anyhow::Result<Pool> {
    let slots = value.get("slots").and_then(Value::as_i64).and_then(|slots| i32::try_from(slots).ok());
    let Some(slots) = slots.filter(|slots| *slots >= -1) else {
        anyhow::bail!(
            "the pool {name} needs \"slots\": a whole number, -1 for no limit; nothing was imported"
        );
    };
    Ok(Pool {
        name: PoolName::from(name),
        slots,
        description: value.get("description").and_then(Value::as_str).map(str::to_owned),
        include_deferred: value.get("include_deferred").and_then(Value::as_bool).unwrap_or(false),
    })
}

async fn set(house: &House, pool: Pool) -> anyhow::Result<()> {
    let exists = {
        let mut tx = house.store.begin(TxMode::Read).await?;
        tx.pools().await?.iter().any(|known| known.name == pool.name)
    };
    if exists {
        let patch = PoolPatch {
            slots: Some(pool.slots),
            description: Some(pool.description),
            include_deferred: Some(pool.include_deferred),
        };
        update_pool(ports(house), pool.name, patch).await?;
    } else {
        create_pool(ports(house), pool).await?;
    }
    Ok(())
}

/// All pools, or one that must be there.
async fn rows(house: &House, only: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let mut tx = house.store.begin(TxMode::Read).await?;
    let usage: BTreeMap<_, _> = tx.pool_usage().await?.into_iter().collect();
    let pools = tx.pools().await?;
    if let Some(name) = only
        && !pools.iter().any(|pool| pool.name == *name)
    {
        return Err(find::missing("pool", name, pools.iter().map(|pool| pool.name.as_str())));
    }
    let mut rows = Vec::new();
    for pool in pools.iter().filter(|pool| only.is_none_or(|name| pool.name == *name)) {
        let used = usage.get(&pool.name).copied().unwrap_or_default();
        let deferred = if pool.include_deferred { used.deferred } else { 0 };
        let open = if pool.slots < 0 {
            Value::Null
        } else {
            (i64::from(pool.slots) - used.running - used.queued - deferred).into()
        };
        rows.push(with(row(pool)?, [("usage", row(&used)?), ("open", open)]));
    }
    Ok(rows)
}
