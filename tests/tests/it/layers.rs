//! Who knows whom. What stands here is decided in ARCHITECTURE.md; a crate that knows more than its row says fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Each crate and the crates of the workspace that it may know. Development dependencies are not bound by it.
const MAY_KNOW: &[(&str, &[&str])] = &[
    // What happens: pure.
    ("model", &[]),
    ("timetable", &["model"]),
    ("planner", &["model", "timetable"]),
    ("config", &[]),
    // The seam.
    ("ports", &["model"]),
    // What works over ports only.
    ("task-log", &["model", "ports"]),
    ("bundle", &["model", "ports"]),
    ("operations", &["model", "ports", "timetable", "planner"]),
    ("scheduler", &["model", "ports", "timetable", "planner", "task-log"]),
    ("web", &["model", "ports", "timetable", "planner", "operations", "task-log"]),
    ("worker", &["model", "ports", "planner", "operations", "task-log", "python-host"]),
    // Adapters: what stands behind the ports.
    ("metastore", &["model", "ports"]),
    ("local", &["model", "ports"]),
    ("python-host", &[]),
];

/// What puts everything together, and so may know every crate.
const COMPOSITION_ROOTS: &[&str] = &["gust", "gust-tests"];

/// Crates whose clippy.toml bans what would make their answers depend on more than their input.
const PURE: &[&str] = &["planner", "timetable"];

/// What each of them must ban.
const BANS: &[&str] = &["HashMap", "HashSet", "SystemTime", "Instant", "Utc::now"];

fn workspace() -> Metadata {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).no_deps().exec().unwrap()
}

fn short(name: &str) -> &str {
    name.strip_prefix("gust-").unwrap_or(name)
}

fn known_of<'a>(package: &'a Package, ours: &BTreeSet<&str>) -> BTreeSet<&'a str> {
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind != DependencyKind::Development)
        .map(|dependency| dependency.name.as_str())
        .filter(|name| ours.contains(name))
        .collect()
}

#[test]
fn crates_know_only_what_their_row_allows() {
    let metadata = workspace();
    let packages = metadata.workspace_packages();
    let ours: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let table: BTreeMap<&str, &[&str]> = MAY_KNOW.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in &packages {
        let name = package.name.as_str();
        if COMPOSITION_ROOTS.contains(&name) {
            continue;
        }
        let Some(allowed) = table.get(short(name)) else {
            wrong.push(format!(
                "{name} has no row: add it to MAY_KNOW in tests/tests/it/layers.rs (or to COMPOSITION_ROOTS if it puts \
                 adapters together), and to the layout in ARCHITECTURE.md"
            ));
            continue;
        };
        for known in known_of(package, &ours) {
            if !allowed.contains(&short(known)) {
                wrong.push(format!("{name} may not know {known}; it may know {allowed:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "the direction of knowledge is broken:\n{}", wrong.join("\n"));
}

#[test]
fn every_row_is_about_a_crate_that_is_there() {
    let metadata = workspace();
    let packages = metadata.workspace_packages();
    let there: BTreeSet<&str> = packages.iter().map(|package| short(&package.name)).collect();
    let gone: Vec<&str> =
        MAY_KNOW.iter().map(|(name, _)| *name).filter(|name| !there.contains(name)).collect();
    assert!(gone.is_empty(), "rows of MAY_KNOW without a crate: {gone:?}");
}

#[test]
fn nobody_depends_on_a_composition_root() {
    let metadata = workspace();
    for package in metadata.workspace_packages() {
        let known = package.dependencies.iter().map(|dependency| dependency.name.as_str());
        let roots: Vec<&str> = known.filter(|name| COMPOSITION_ROOTS.contains(name)).collect();
        assert!(roots.is_empty(), "{} depends on {roots:?}, which only put things together", package.name);
    }
}

#[test]
fn packages_are_named_after_gust_and_share_lints_and_version() {
    let metadata = workspace();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        assert!(name == "gust" || name.starts_with("gust-"), "the package {name} is not named gust-…");
        let manifest: toml::Table = fs::read_to_string(&package.manifest_path).unwrap().parse().unwrap();
        let inherits = |table: &str, key: &str| {
            manifest.get(table).and_then(|table| table.get(key)).is_some_and(|value| {
                value.as_bool() == Some(true)
                    || value.get("workspace").is_some_and(|it| it.as_bool() == Some(true))
            })
        };
        assert!(inherits("lints", "workspace"), "{name} does not inherit the workspace's lints");
        for key in ["version", "edition", "rust-version", "license"] {
            assert!(inherits("package", key), "{name} does not take its {key} from the workspace");
        }
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(kind).and_then(toml::Value::as_table) else { continue };
            for (dependency, how) in dependencies {
                let is_itself = how.get("path").and_then(toml::Value::as_str) == Some(".");
                let is_shared = how.get("workspace").and_then(toml::Value::as_bool) == Some(true);
                assert!(
                    is_itself || is_shared,
                    "{name}: {dependency} does not come from [workspace.dependencies]"
                );
            }
        }
    }
}

#[test]
fn the_pure_crates_ban_clocks_randomness_and_hash_order() {
    for crate_name in PURE {
        let path = format!("{}/../crates/{crate_name}/clippy.toml", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let bans: toml::Table = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        let banned: Vec<String> = ["disallowed-types", "disallowed-methods"]
            .iter()
            .filter_map(|list| bans.get(*list)?.as_array())
            .flatten()
            .filter_map(|ban| ban.as_str().or_else(|| ban.get("path")?.as_str()).map(str::to_owned))
            .collect();
        for ban in BANS {
            assert!(banned.iter().any(|path| path.contains(ban)), "{path} does not ban {ban}: {banned:?}");
        }
    }
}
