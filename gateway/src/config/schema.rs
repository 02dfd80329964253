//! JSON Schema of the file, for editors; and the list of all keys, read from it.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Config;

/// JSON Schema (draft 7, which TOML editors understand) of a whole configuration file.
pub fn json_schema() -> Value {
    let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Config>();
    let mut schema = schema.to_value();
    forget_null(&mut schema);
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".to_owned(), "vers-gateway configuration".into());
    }
    schema
}

/// TOML has no null: what may be absent is simply not required.
fn forget_null(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(forget_null),
        Value::Object(object) => {
            object.retain(|key, value| !(key == "default" && value.is_null()));
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|kind| kind != "null");
            }
            if let Some(Value::Array(forms)) = object.get_mut("anyOf") {
                forms.retain(|form| form.get("type").is_none_or(|kind| kind != "null"));
            }
            object.values_mut().for_each(forget_null);
        }
        _ => {}
    }
}

/// A key of the file.
#[derive(Debug)]
pub(super) struct Key {
    /// The table, as it is written: `[[listener]]`.
    pub(super) table: String,
    /// The way to the key in the table, with dots: `timeouts.head`.
    pub(super) path: String,
    /// Its default, if it has a plain one.
    #[cfg_attr(not(test), expect(dead_code, reason = "only the test of the reference page reads it"))]
    pub(super) default: Option<Value>,
}

/// Every key of every table.
pub(super) fn keys() -> Vec<Key> {
    let schema = json_schema();
    let mut keys = Vec::new();
    for (name, table) in properties(&schema, &schema) {
        let (title, table) = match (table.get("items"), named_entries(table)) {
            (Some(items), _) => (format!("[[{name}]]"), items),
            (_, Some(entry)) => (format!("[{name}.NAME]"), entry),
            _ => (format!("[{name}]"), table),
        };
        collect(&schema, table, &title, "", &mut keys);
    }
    keys
}

/// Where a key belongs, if there is exactly one such place: `` `[limits]` ``.
pub(super) fn home_of(key: &str) -> Option<String> {
    let mut homes = keys().into_iter().filter_map(|found| match found.path.rsplit_once('.') {
        None => (found.path == key).then(|| format!("`{}`", found.table)),
        Some((parent, last)) => (last == key).then(|| format!("`{parent}` of `{}`", found.table)),
    });
    let home = homes.next()?;
    homes.next().is_none().then_some(home)
}

fn collect(root: &Value, table: &Value, title: &str, prefix: &str, keys: &mut Vec<Key>) {
    for (name, property) in properties(root, table) {
        let path = format!("{prefix}{name}");
        let default = property.get("default").filter(|value| !value.is_object() && !value.is_null());
        keys.push(Key { table: title.to_owned(), path: path.clone(), default: default.cloned() });
        let inner = property.get("items").unwrap_or(property);
        collect(root, inner, title, &format!("{path}."), keys);
    }
}

/// The keys that a schema names, also behind references and in one of several forms.
fn properties<'s>(root: &'s Value, schema: &'s Value) -> Vec<(&'s String, &'s Value)> {
    let own = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    let referred = schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|reference| root.pointer(reference.trim_start_matches('#')));
    let forms = ["allOf", "anyOf"]
        .into_iter()
        .filter_map(|form| schema.get(form).and_then(Value::as_array))
        .flatten();
    own.chain(referred.into_iter().chain(forms).flat_map(|other| properties(root, other))).collect()
}

/// The schema of the entries of `[backend.NAME]` and the like.
fn named_entries(schema: &Value) -> Option<&Value> {
    schema.get("additionalProperties").filter(|entry| entry.is_object())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_nested_keys_and_defaults() {
        let keys = keys();
        let find = |table: &str, path: &str| {
            keys.iter()
                .find(|key| key.table == table && key.path == path)
                .unwrap_or_else(|| panic!("no {path} in {table}: {keys:#?}"))
        };
        assert_eq!(find("[[listener]]", "timeouts.head").default, Some("30s".into()));
        assert_eq!(find("[limits]", "header_size").default, Some("64KiB".into()));
        assert_eq!(find("[[route]]", "to.redirect.status").default, Some(308.into()));
        assert_eq!(find("[plugin.NAME]", "limits.instances").default, Some(64.into()));
        assert_eq!(find("[secret.NAME]", "env").default, None);
    }

    #[test]
    fn null_is_not_offered() {
        let schema = json_schema().to_string();
        assert!(!schema.contains("null"), "{schema}");
        assert!(schema.contains("vers-gateway configuration"));
    }

    #[test]
    fn a_misplaced_key_is_sent_home() {
        assert_eq!(home_of("workers").as_deref(), Some("`[gateway]`"));
        assert_eq!(home_of("tunnel").as_deref(), Some("`timeouts` of `[[route]]`"));
        assert_eq!(home_of("name"), None, "several tables have it");
        assert_eq!(home_of("nothing"), None);
    }
}
