//! Secrets: values that no debug output and no serialization shows.

use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::plain::text_of;
use super::{Context, Given, SettingValue};

/// A text that is never shown by accident: [`Secret::expose`] is the only way to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text in clear.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl SettingValue for Secret {
    const KIND: &'static str = "text";

    fn parse(given: &Given<'_>, context: &Context<'_>) -> Result<Self, String> {
        String::parse(given, context).map(Self)
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

/// The keys that encrypt Connections and Variables: the first one encrypts, each of them decrypts, so that a key is
/// rotated by putting a new one in front.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRing(Vec<[u8; 32]>);

impl KeyRing {
    /// The keys; at least one.
    #[must_use]
    pub fn keys(&self) -> &[[u8; 32]] {
        &self.0
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} keys, not shown", self.0.len())
    }
}

impl Serialize for KeyRing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// Fernet keys are written with padding, but pass through tools which drop it.
const FERNET: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl SettingValue for KeyRing {
    const KIND: &'static str = "keys of 32 bytes in URL-safe base64, separated by commas";

    fn parse(given: &Given<'_>, context: &Context<'_>) -> Result<Self, String> {
        let written = Vec::<String>::parse(given, context)?;
        if written.is_empty() {
            return Err(format!("expected {}", Self::KIND));
        }
        written
            .iter()
            .enumerate()
            .map(|(index, key)| {
                let bytes = FERNET.decode(key).ok();
                bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).ok_or_else(|| {
                    format!("expected {}, and key {} of {} is none", Self::KIND, index + 1, written.len())
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn text(&self) -> String {
        self.0.iter().map(|key| FERNET.encode(key)).collect::<Vec<_>>().join(",")
    }
}

/// A JSON object, in the file a table as well, whose values may be secrets: shown only by [`SecretObject::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct SecretObject(Map<String, Value>);

impl SecretObject {
    /// The object in clear.
    #[must_use]
    pub fn expose(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl fmt::Debug for SecretObject {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

impl Serialize for SecretObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl SettingValue for SecretObject {
    const KIND: &'static str = "a JSON object";

    fn parse(given: &Given<'_>, _: &Context<'_>) -> Result<Self, String> {
        if let Given::Toml(Value::Object(table)) = given {
            return Ok(Self(table.clone()));
        }
        let text = text_of(given, "a table or a JSON object")?;
        // The parser's own words may quote the value, which may be a secret; the place is enough.
        serde_json::from_str(text).map(Self).map_err(|error| {
            format!(
                "expected {}, and it is none at line {} column {}",
                Self::KIND,
                error.line(),
                error.column()
            )
        })
    }

    fn text(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }
}
