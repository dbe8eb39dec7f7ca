//! The condition on assets under which a DAG runs: `airflow/serialization/definitions/assets.py`.

use serde_json::{Value, json};

/// A condition on assets, as an expression tree.
#[derive(Debug, Clone, PartialEq)]
pub enum AssetExpression {
    /// Every one of these.
    All(Vec<AssetExpression>),
    /// At least one of these.
    Any(Vec<AssetExpression>),
    /// An asset.
    Asset(Asset),
    /// Whatever assets an alias stands for when events arrive.
    Alias {
        /// The alias' name.
        name: String,
        /// The alias' group.
        group: String,
    },
    /// The asset of this name, whatever its URI.
    NameRef {
        /// The asset's name.
        name: String,
    },
    /// The asset of this URI, whatever its name.
    UriRef {
        /// The asset's URI.
        uri: String,
    },
}

/// An asset that a DAG waits for.
#[derive(Debug, Clone, PartialEq)]
pub struct Asset {
    /// Its name.
    pub name: String,
    /// Its URI.
    pub uri: String,
    /// Its group, "asset" unless set.
    pub group: String,
    /// What its author noted with it.
    pub extra: Value,
    /// What watches it from outside: each `{name, trigger: {classpath, kwargs}}`, as serialized.
    pub watchers: Vec<Value>,
    /// Which teams may produce and consume it, as serialized; null where unrestricted.
    pub access_control: Value,
}

/// A leaf of an [`AssetExpression`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AssetLeaf<'a> {
    /// An asset.
    Asset(&'a Asset),
    /// An alias, by name.
    Alias(&'a str),
    /// A reference by name.
    NameRef(&'a str),
    /// A reference by URI.
    UriRef(&'a str),
}

impl AssetExpression {
    /// Reads what `airflow/serialization/encoders.py: encode_asset_like` writes; the error says what is wrong.
    pub fn from_serialized(value: &Value) -> Result<Self, String> {
        let kind = value.get("__type").and_then(Value::as_str);
        let Some(kind) = kind else {
            return Err(format!("expected an object with \"__type\" in an asset condition, found {value}"));
        };
        let body = value.get("__var").unwrap_or(value);
        let text = |key: &str| {
            let text = body.get(key).and_then(Value::as_str).map(str::to_owned);
            text.ok_or_else(|| format!("{kind}: expected text under {key:?}, found {body}"))
        };
        let objects = || {
            let objects = body.get("objects").and_then(Value::as_array);
            let objects =
                objects.ok_or_else(|| format!("{kind}: expected a list under \"objects\", found {body}"))?;
            objects.iter().map(Self::from_serialized).collect::<Result<Vec<_>, _>>()
        };
        match kind {
            "asset_all" => Ok(Self::All(objects()?)),
            "asset_any" => Ok(Self::Any(objects()?)),
            "asset" => Ok(Self::Asset(Asset {
                name: text("name")?,
                uri: text("uri")?,
                group: text("group")?,
                extra: body.get("extra").cloned().unwrap_or_else(|| json!({})),
                watchers: body.get("watchers").and_then(Value::as_array).cloned().unwrap_or_default(),
                access_control: body.get("access_control").cloned().unwrap_or(Value::Null),
            })),
            "asset_alias" => Ok(Self::Alias { name: text("name")?, group: text("group")? }),
            "asset_ref" if body.get("name").is_some() => Ok(Self::NameRef { name: text("name")? }),
            "asset_ref" => Ok(Self::UriRef { uri: text("uri")? }),
            other => Err(format!(
                "{other:?} is no asset condition; expected asset, asset_alias, asset_ref, asset_all or asset_any"
            )),
        }
    }

    /// The tree as Airflow stores and shows it (`DagModel.asset_expression`).
    #[must_use]
    pub fn as_expression(&self) -> Value {
        let all = |objects: &[Self]| objects.iter().map(Self::as_expression).collect::<Vec<_>>();
        match self {
            Self::All(objects) => json!({ "all": all(objects) }),
            Self::Any(objects) => json!({ "any": all(objects) }),
            Self::Asset(asset) => {
                json!({ "asset": { "uri": asset.uri, "name": asset.name, "group": asset.group } })
            }
            Self::Alias { name, group } => json!({ "alias": { "name": name, "group": group } }),
            Self::NameRef { name } => json!({ "asset_ref": { "name": name } }),
            Self::UriRef { uri } => json!({ "asset_ref": { "uri": uri } }),
        }
    }

    /// The leaves, in the order in which they were written.
    #[must_use]
    pub fn leaves(&self) -> Vec<AssetLeaf<'_>> {
        match self {
            Self::All(objects) | Self::Any(objects) => objects.iter().flat_map(Self::leaves).collect(),
            Self::Asset(asset) => vec![AssetLeaf::Asset(asset)],
            Self::Alias { name, .. } => vec![AssetLeaf::Alias(name)],
            Self::NameRef { name } => vec![AssetLeaf::NameRef(name)],
            Self::UriRef { uri } => vec![AssetLeaf::UriRef(uri)],
        }
    }

    /// Whether the condition is fulfilled, given for each leaf whether it is (`airflow/assets/evaluation.py`).
    ///
    /// An alias counts as any of the assets that it stands for, so one that stands for none is not fulfilled.
    pub fn is_fulfilled(&self, leaf: &mut impl FnMut(AssetLeaf<'_>) -> bool) -> bool {
        match self {
            Self::All(objects) => objects.iter().all(|object| object.is_fulfilled(leaf)),
            Self::Any(objects) => objects.iter().any(|object| object.is_fulfilled(leaf)),
            Self::Asset(asset) => leaf(AssetLeaf::Asset(asset)),
            Self::Alias { name, .. } => leaf(AssetLeaf::Alias(name)),
            Self::NameRef { name } => leaf(AssetLeaf::NameRef(name)),
            Self::UriRef { uri } => leaf(AssetLeaf::UriRef(uri)),
        }
    }
}
