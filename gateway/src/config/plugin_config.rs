//! The `config` table of a plugin: free in form, remembered with the place of every value.

use std::{borrow::Cow, collections::BTreeMap, fmt, ops::Range};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use toml::Spanned;

use super::fault;

/// The settings of a plugin. Two are equal if their values are; where they stand does not matter.
#[derive(Clone, PartialEq)]
pub struct PluginConfig(Spanned<Value>);

impl PluginConfig {
    /// JSON text for the plugin. Dates become strings.
    pub fn to_json(&self) -> String {
        // A tree of our own values has only string keys and finite numbers: nothing can fail.
        serde_json::to_string(self.0.get_ref()).unwrap_or_else(|_| "{}".to_owned())
    }

    /// Where the table stands.
    pub fn span(&self) -> Range<usize> {
        self.0.span()
    }

    /// Where the value at a path stands, such as `services.0.port` or `services[0].port`; if there is
    /// no such value, the deepest table on the way to it. `None` if not even the first step exists.
    pub fn span_of(&self, path: &str) -> Option<Range<usize>> {
        find(self.0.get_ref(), path)
    }
}

/// Names the keys and hides the values: `${VARIABLE}` may have put anything there.
impl fmt::Debug for PluginConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("PluginConfig");
        if let Value::Table(table) = self.0.get_ref() {
            for key in table.keys() {
                shown.field(key, &format_args!("…"));
            }
        }
        shown.finish()
    }
}

impl<'de> Deserialize<'de> for PluginConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Spanned::<Value>::deserialize(deserializer)?;
        match value.get_ref() {
            Value::Table(_) => Ok(Self(value)),
            _ => {
                let label = "expected a table: `{ key = value }`";
                Err(D::Error::custom(fault::custom("`config` has to be a table", label, None)))
            }
        }
    }
}

impl JsonSchema for PluginConfig {
    fn schema_name() -> Cow<'static, str> {
        "PluginConfig".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object" })
    }
}

/// Any TOML value.
#[derive(Clone, PartialEq)]
enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Array(Vec<Spanned<Value>>),
    Table(BTreeMap<String, Spanned<Value>>),
}

/// Keys may hold dots themselves, so every key that the path starts with is tried.
fn find(value: &Value, path: &str) -> Option<Range<usize>> {
    let step = |key: &str, child: &Spanned<Value>| {
        let rest = path.strip_prefix(key)?;
        let rest = rest.strip_prefix(']').unwrap_or(rest);
        match rest.strip_prefix(['.', '[']) {
            Some(rest) => find(child.get_ref(), rest).or_else(|| Some(child.span())),
            None => rest.is_empty().then(|| child.span()),
        }
    };
    match value {
        Value::Table(table) => table.iter().rev().find_map(|(key, child)| step(key, child)),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(index, child)| step(&index.to_string(), child))
        }
        _ => None,
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::String(text) => text.serialize(serializer),
            Self::Integer(number) => number.serialize(serializer),
            Self::Float(number) => number.serialize(serializer),
            Self::Boolean(value) => value.serialize(serializer),
            Self::Array(items) => serializer.collect_seq(items.iter().map(Spanned::get_ref)),
            Self::Table(table) => {
                serializer.collect_map(table.iter().map(|(key, value)| (key, value.get_ref())))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has too")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        if number.is_finite() {
            return Ok(Value::Float(number));
        }
        let label = "JSON has no such number";
        Err(E::custom(fault::custom("a plugin cannot be given this", label, None)))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        // The name under which the toml crate passes a date, as a table of this single key.
        const DATE: &str = "$__toml_private_datetime";
        let mut table = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == DATE {
                return map.next_value().map(Value::String);
            }
            table.insert(key, map.next_value()?);
        }
        Ok(Value::Table(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"since = 2026-01-02T03:04:05Z
request = { "x.y" = "1", x = { y = 2 } }
services = [{ name = "api", port = 3000 }]
ratio = 0.5
on = true"#;

    fn config(text: &str) -> Result<PluginConfig, toml::de::Error> {
        PluginConfig::deserialize(toml::Deserializer::parse(text)?)
    }

    #[test]
    fn becomes_json() {
        let json = config(TEXT).expect("a config").to_json();
        assert_eq!(
            json,
            r#"{"on":true,"ratio":0.5,"request":{"x":{"y":2},"x.y":"1"},"services":[{"name":"api","port":3000}],"since":"2026-01-02T03:04:05Z"}"#
        );
    }

    #[test]
    fn knows_where_values_stand() {
        let config = config(TEXT).expect("a config");
        let at = |path| config.span_of(path).and_then(|span| TEXT.get(span));
        for (path, expected) in [
            ("services.0.port", Some("3000")),
            ("services[0].port", Some("3000")),
            ("services.0", Some("{ name = \"api\", port = 3000 }")),
            ("services.0.prot", Some("{ name = \"api\", port = 3000 }")),
            ("services.7", Some("[{ name = \"api\", port = 3000 }]")),
            ("request.x.y", Some("\"1\"")),
            ("request.x", Some("{ y = 2 }")),
            ("ratio", Some("0.5")),
            ("rat", None),
            ("nothing", None),
            ("", None),
        ] {
            assert_eq!(at(path), expected, "for {path:?}");
        }
    }

    #[test]
    fn what_json_cannot_say_is_an_error() {
        assert!(config("a = nan").is_err());
        assert!(config("a = -inf").is_err());
    }

    #[test]
    fn debug_shows_no_value() {
        let shown = format!("{:?}", config(TEXT).expect("a config"));
        assert!(shown.contains("request"), "{shown}");
        assert!(!shown.contains("3000") && !shown.contains("api"), "{shown}");
    }
}
