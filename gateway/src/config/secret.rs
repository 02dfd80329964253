//! `[secret.NAME]`: where to find a value that must not stand in the file.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, de::Error};
use toml::Spanned;

use super::fault;

/// Where to find a value that must not stand in the file. The value itself is never in here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// The NAME in `[secret.NAME]`.
    pub name: Spanned<String>,
    /// Where the value is.
    pub source: SecretSource,
}

/// Where a secret's value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In an environment variable of the gateway.
    Env(String),
    /// In a file; a relative path starts at the folder of the configuration file.
    File(String),
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let source = match (written.env, written.file) {
            (Some(name), None) => SecretSource::Env(name),
            (None, Some(path)) => SecretSource::File(path),
            (None, None) => return Err(mistake("a secret needs a source")),
            (Some(_), Some(_)) => {
                return Err(mistake("a secret has one source, not two"));
            }
        };
        Ok(Self { name: super::unnamed(), source })
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Written::json_schema(generator)
    }
}

/// Where to find a value that must not stand in the file: exactly one of `env` and `file`. It is
/// read again at each reload, and never printed.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Written {
    /// Name of an environment variable.
    env: Option<String>,
    /// Path of a file that holds the value and nothing else; a line end after it is dropped. A
    /// relative path starts at the folder of the configuration file.
    file: Option<String>,
}

fn mistake<E: Error>(message: &str) -> E {
    let label = "expected either `env = \"VARIABLE\"` or `file = \"PATH\"`";
    E::custom(fault::custom(message, label, None))
}
