//! Assets, aliases and conditions on them, as inlets, outlets and schedules name them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::reader::{excerpt, kind_of};

/// Something that names assets (`airflow/serialization/encoders.py: encode_asset_like`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum AssetLike {
    /// An asset.
    Asset {
        /// Its name.
        name: String,
        /// Its URI.
        uri: String,
        /// Its group.
        group: String,
        /// What its author attached.
        extra: Value,
        /// The triggers that watch it, as serialized.
        watchers: Vec<Value>,
    },
    /// An alias: assets that a task names while it runs.
    Alias {
        /// Its name.
        name: String,
        /// Its group.
        group: String,
    },
    /// An asset by name alone.
    NameRef(String),
    /// An asset by URI alone.
    UriRef(String),
    /// All of these.
    All(Vec<Self>),
    /// Any of these.
    Any(Vec<Self>),
}

impl AssetLike {
    /// Reads a serialized asset, alias, reference or condition, wrapped in `__var` or flat.
    ///
    /// # Errors
    /// A text that says what was expected and found.
    pub fn from_serialized(value: &Value) -> Result<Self, String> {
        let unreadable =
            || format!("expected an asset, alias, reference or condition, found {}", excerpt(value));
        let kind = kind_of(value).ok_or_else(unreadable)?;
        let outer = value.as_object().ok_or_else(unreadable)?;
        let body = outer.get("__var").and_then(Value::as_object).unwrap_or(outer);
        let text = |field: &str| body.get(field).and_then(Value::as_str).map(str::to_owned);
        match kind {
            "asset" => {
                let uri = text("uri").ok_or_else(unreadable)?;
                Ok(Self::Asset {
                    name: text("name").unwrap_or_else(|| uri.clone()),
                    uri,
                    group: text("group").unwrap_or_else(|| "asset".to_owned()),
                    extra: body.get("extra").cloned().unwrap_or(Value::Null),
                    watchers: body.get("watchers").and_then(Value::as_array).cloned().unwrap_or_default(),
                })
            }
            "asset_alias" => Ok(Self::Alias {
                name: text("name").ok_or_else(unreadable)?,
                group: text("group").unwrap_or_else(|| "asset".to_owned()),
            }),
            "asset_ref" => match (text("name"), text("uri")) {
                (Some(name), _) => Ok(Self::NameRef(name)),
                (None, Some(uri)) => Ok(Self::UriRef(uri)),
                (None, None) => Err(unreadable()),
            },
            "asset_all" => Self::read_objects(outer, body).ok_or_else(unreadable)?.map(Self::All),
            "asset_any" => Self::read_objects(outer, body).ok_or_else(unreadable)?.map(Self::Any),
            _ => Err(unreadable()),
        }
    }

    fn read_objects(
        outer: &Map<String, Value>,
        body: &Map<String, Value>,
    ) -> Option<Result<Vec<Self>, String>> {
        let objects = body.get("objects").or_else(|| outer.get("__var"))?.as_array()?;
        Some(objects.iter().map(Self::from_serialized).collect())
    }
}
