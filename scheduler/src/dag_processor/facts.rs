use gust_model::{
    DagId, TaskId,
    dag::{AssetLike, Dag, canonical_json, stable_hash},
    record::{AssetReference, AssetReferenceKind, NextRun},
};
use gust_timetable::{AssetLeaf, Timetable};
use serde_json::Value;

/// All that the metastore has to know of a DAG as its file now has it.
#[derive(Debug, Clone)]
pub struct DagFacts {
    /// The graph.
    pub dag: Dag,
    /// When it runs.
    pub timetable: Timetable,
    /// The serialized form with everything sorted that has no order.
    pub canonical: String,
    /// Its hash: two parses of the same DAG have the same.
    pub hash: String,
    /// The assets that it names, with what the asset's row has to hold.
    pub assets: Vec<NamedAsset>,
    /// How it names them.
    pub references: Vec<AssetReference>,
    /// What its timetable answered, if that is the user's own class.
    pub asked_next_run: Option<NextRun>,
}

/// An asset as a DAG names it.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedAsset {
    /// Its name.
    pub name: String,
    /// Its URI.
    pub uri: String,
    /// Its group.
    pub group: String,
    /// What its author attached.
    pub extra: Value,
}

impl DagFacts {
    /// Reads a serialized DAG.
    ///
    /// # Errors
    /// The text of an import error: which DAG, task and field cannot be read and what was expected.
    pub fn read(serialized: &Value) -> Result<Self, String> {
        let dag = Dag::from_serialized(serialized).map_err(|error| error.to_string())?;
        let timetable = Timetable::from_serialized(&dag.timetable)
            .map_err(|error| format!("the timetable of DAG {}: {error}", dag.dag_id))?;
        let mut assets = Vec::new();
        let mut references = Vec::new();
        if let Some(condition) = timetable.asset_condition() {
            for leaf in condition.leaves() {
                let (name, uri) = match leaf {
                    AssetLeaf::Asset(asset) => {
                        assets.push(NamedAsset {
                            name: asset.name.clone(),
                            uri: asset.uri.clone(),
                            group: asset.group.clone(),
                            extra: asset.extra.clone(),
                        });
                        (asset.name.clone(), Some(asset.uri.clone()))
                    }
                    AssetLeaf::Alias(name) | AssetLeaf::NameRef(name) => (name.to_owned(), None),
                    AssetLeaf::UriRef(uri) => (uri.to_owned(), Some(uri.to_owned())),
                };
                let kind = AssetReferenceKind::Schedule;
                references.push(AssetReference {
                    dag_id: dag.dag_id.clone(),
                    kind,
                    task_id: None,
                    name,
                    uri,
                });
            }
        }
        for task in dag.tasks() {
            let mut of_task = OfTask { dag_id: &dag.dag_id, task_id: &task.task_id, assets: &mut assets };
            references.extend(task.outlets.iter().flat_map(|o| of_task.refer(AssetReferenceKind::Outlet, o)));
            references.extend(task.inlets.iter().flat_map(|i| of_task.refer(AssetReferenceKind::Inlet, i)));
        }
        let mut seen = Vec::new();
        references.retain(|reference| {
            let is_new = !seen.contains(reference);
            if is_new {
                seen.push(reference.clone());
            }
            is_new
        });
        assets.sort_by(|a, b| (&a.name, &a.uri).cmp(&(&b.name, &b.uri)));
        assets.dedup_by(|a, b| a.name == b.name && a.uri == b.uri);
        let canonical = canonical_json(serialized);
        let hash = stable_hash(serialized);
        Ok(Self { dag, timetable, canonical, hash, assets, references, asked_next_run: None })
    }
}

struct OfTask<'a> {
    dag_id: &'a DagId,
    task_id: &'a TaskId,
    assets: &'a mut Vec<NamedAsset>,
}

impl OfTask<'_> {
    fn refer(&mut self, kind: AssetReferenceKind, named: &AssetLike) -> Vec<AssetReference> {
        let reference = |name: &str, uri: Option<&str>| AssetReference {
            dag_id: self.dag_id.clone(),
            kind,
            task_id: Some(self.task_id.clone()),
            name: name.to_owned(),
            uri: uri.map(str::to_owned),
        };
        match named {
            AssetLike::Asset { name, uri, group, extra, .. } => {
                self.assets.push(NamedAsset {
                    name: name.clone(),
                    uri: uri.clone(),
                    group: group.clone(),
                    extra: extra.clone(),
                });
                vec![reference(name, Some(uri))]
            }
            AssetLike::Alias { name, .. } | AssetLike::NameRef(name) => vec![reference(name, None)],
            AssetLike::UriRef(uri) => vec![reference(uri, Some(uri))],
            AssetLike::All(several) | AssetLike::Any(several) => {
                several.iter().flat_map(|one| self.refer(kind, one)).collect()
            }
        }
    }
}
