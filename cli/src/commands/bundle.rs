//! `gust bundle …`

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use gust_bundle::{current_version, pack, push};
use gust_config::Config;
use gust_model::{BundleName, BundleVersion};
use gust_ports::{
    ObjectKey,
    metastore::{DagFilter, Page, TxMode},
};
use serde_json::{Value, json};

use super::{find, open};
use crate::{house::House, output::Out};

/// `gust bundle …`
#[derive(Debug, Subcommand)]
pub enum BundleCommand {
    /// Pack a folder of DAG files and make it the bundle's newest version
    ///
    /// The DAG processor takes it in at once. Runs that have begun stay on the version that they began with.
    #[command(after_help = "Examples:
  gust bundle push ./dags
  gust bundle push ./etl --name etl")]
    Push(PushArgs),
    /// List the bundles and their newest versions
    List,
    /// Show a bundle: its versions and how many DAGs it serves
    Show {
        /// The bundle
        name: String,
    },
}

/// `gust bundle push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// The folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The bundle [default: the first configured one]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// Runs a command.
///
/// # Errors
/// What went wrong, for people.
pub async fn run(command: BundleCommand, config: Config, out: &mut Out) -> anyhow::Result<()> {
    match command {
        // The metastore is not needed for it: a build server can push where only the object store can be reached.
        BundleCommand::Push(args) => push_folder(&House::open(config).await?, args, out).await,
        BundleCommand::List => list(&open(config).await?, out).await,
        BundleCommand::Show { name } => show(&open(config).await?, &name, out).await,
    }
}

async fn push_folder(house: &House, args: PushArgs, out: &mut Out) -> anyhow::Result<()> {
    let configured = house.config.bundles();
    let name = match (&args.name, configured.first()) {
        (Some(name), _) => name.clone(),
        (None, Some((first, ..))) => first.clone(),
        (None, None) => anyhow::bail!("no bundle is configured; name one by --name"),
    };
    let folder = args.folder.clone();
    anyhow::ensure!(folder.is_dir(), "{} is no folder", folder.display());
    let packed = tokio::task::spawn_blocking(move || pack(&folder))
        .await?
        .with_context(|| format!("packing {}", args.folder.display()))?;
    let bundle = BundleName::from(name.as_str());
    let before = current_version(&*house.objects, &bundle).await?;
    push(&*house.objects, &bundle, &packed).await?;
    let is_new = before.as_ref() != Some(&packed.version);
    match configured.iter().find(|(known, ..)| *known == name) {
        None => {
            let known: Vec<_> = configured.iter().map(|(name, ..)| name.as_str()).collect();
            eprintln!(
                "warning: no bundle {name} is configured, so no DAG processor will take it in; configured: {} \
                 (dag_processor.dag_bundle_config_list)",
                known.join(", ")
            );
        }
        Some((_, path, _)) if path.is_dir() => eprintln!(
            "warning: the bundle {name} is read from {} on this machine, whose next change replaces what was pushed",
            path.display()
        ),
        Some(_) => {}
    }
    if out.is_structured() {
        out.value(&json!({
            "name": name, "version": packed.version, "file_count": packed.file_count,
            "archive_bytes": packed.archive.len(), "is_new": is_new,
        }))?;
    } else {
        let news = if is_new { "pushed" } else { "unchanged:" };
        out.line(&format!(
            "{news} {name} version {}: {} files, {} bytes packed",
            packed.version,
            packed.file_count,
            packed.archive.len()
        ))?;
    }
    Ok(())
}

/// The names and archived versions of all bundles in the object store, with their sizes.
async fn stored(house: &House) -> anyhow::Result<BTreeMap<String, Vec<(BundleVersion, u64)>>> {
    const LISTING: usize = 1000;
    let mut bundles: BTreeMap<String, Vec<(BundleVersion, u64)>> = BTreeMap::new();
    let mut after: Option<ObjectKey> = None;
    loop {
        let objects = house.objects.list("bundles/", after.as_ref(), LISTING).await?;
        for object in &objects {
            let parts: Vec<&str> = object.key.as_str().split('/').collect();
            let [_, segment, file] = parts.as_slice() else { continue };
            let versions = bundles.entry(decoded(segment)).or_default();
            if let Some(version) = file.strip_suffix(".tar.zst") {
                versions.push((BundleVersion::from(version), object.size_bytes));
            }
        }
        after = objects.last().map(|object| object.key.clone());
        if objects.len() < LISTING {
            return Ok(bundles);
        }
    }
}

/// Undoes [`ObjectKey::segment`].
fn decoded(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        if let (b'%', Some(byte)) = (first, escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            bytes.push(byte);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn bundle_value(house: &House, name: &str, versions: &[(BundleVersion, u64)]) -> anyhow::Result<Value> {
    let bundle = BundleName::from(name);
    let configured = house.config.bundles().into_iter().find(|(known, ..)| known == name);
    let origin = match configured {
        None => "not configured".to_owned(),
        Some((_, path, _)) if path.is_dir() => path.display().to_string(),
        Some(_) => "pushed".to_owned(),
    };
    let pushed = current_version(&*house.objects, &bundle).await?;
    let mut tx = house.store.begin(TxMode::Read).await?;
    let taken_in = tx.current_bundle_version(&bundle).await?;
    let in_use: BTreeSet<_> = tx.bundle_versions_in_use(&bundle).await?.into_iter().collect();
    let serving = DagFilter { bundle_name: Some(bundle), is_stale: Some(false), ..DagFilter::default() };
    let dag_count = tx.dags(&serving, &Page::first(1)).await?.total;
    let all: Vec<Value> = versions
        .iter()
        .map(|(version, size)| {
            json!({
                "version": version, "archive_bytes": size, "is_newest": pushed.as_ref() == Some(version),
                "is_taken_in": taken_in.as_ref() == Some(version), "is_in_use": in_use.contains(version),
            })
        })
        .collect();
    Ok(json!({
        "name": name, "origin": origin, "newest": pushed, "taken_in": taken_in, "dag_count": dag_count,
        "versions": all,
    }))
}

async fn list(house: &House, out: &mut Out) -> anyhow::Result<()> {
    let mut bundles = stored(house).await?;
    for (name, ..) in house.config.bundles() {
        bundles.entry(name).or_default();
    }
    let mut rows = Vec::new();
    for (name, versions) in &bundles {
        rows.push(bundle_value(house, name, versions).await?);
    }
    out.rows(&["name", "origin", "newest", "taken_in", "dag_count=dags"], &rows, "no bundles")?;
    Ok(())
}

async fn show(house: &House, name: &str, out: &mut Out) -> anyhow::Result<()> {
    let mut bundles = stored(house).await?;
    for (name, ..) in house.config.bundles() {
        bundles.entry(name).or_default();
    }
    let Some(versions) = bundles.get(name) else {
        return Err(find::missing("bundle", name, bundles.keys().map(String::as_str)));
    };
    let value = bundle_value(house, name, versions).await?;
    out.details(&["name", "origin", "newest", "taken_in", "dag_count=dags"], &value)?;
    if !out.is_structured() {
        out.line("")?;
        let versions = value["versions"].as_array().cloned().unwrap_or_default();
        out.rows(
            &["version", "archive_bytes=bytes", "is_taken_in", "is_in_use"],
            &versions,
            "nothing was pushed yet",
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_from_their_keys() {
        for name in ["dags-folder", "my bundle/v2", "50%", "ünï", "%zz"] {
            assert_eq!(decoded(&ObjectKey::segment(name)), name);
        }
    }
}
