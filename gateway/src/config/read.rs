//! Tree to tables: finds each table of the file and has it read into its type.

use std::{collections::BTreeMap, ops::Range};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{
    Config, backend::Backend, certificate::Certificate, describe, describe::Place, diagnostic::Diagnostic,
    origin::Origin, plugin::Plugin, recover, registry::Registry, report::Report, schema, secret::Secret,
    vms::Vms, vocabulary,
};

type Entry<'t> = (Spanned<DeString<'t>>, Spanned<DeValue<'t>>);

/// The names a file gives, also to tables that could not be read: a reference to one of those is not
/// reported on top. `None` where names cannot be told from what is written.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) listeners: Option<Vec<String>>,
    pub(super) backends: Option<Vec<String>>,
    pub(super) plugins: Option<Vec<String>>,
    pub(super) origins: Option<Vec<String>>,
    pub(super) secrets: Option<Vec<String>>,
    /// Tables that were written, read or not.
    pub(super) listener_count: usize,
    pub(super) route_count: usize,
    pub(super) certificate_count: usize,
}

/// Reads all tables. What is wrong with them is reported; the result has what could be read.
pub(super) fn read(tree: DeTable<'_>, report: &mut Report) -> (Config, Names) {
    let mut config = Config::default();
    let mut names = Names::none();
    for entry in tree {
        let key = entry.0.get_ref().clone().into_owned();
        names.collect(meant(&key).unwrap_or(&key), &entry.1);
        read_table(&key, entry, &mut config, report);
    }
    (config, names)
}

/// The keys of the file, in the order of the reference page.
const TABLES: [&str; 13] = [
    "gateway",
    "log",
    "admin",
    "limits",
    "listener",
    "route",
    "backend",
    "vms",
    "registry",
    "plugin",
    "origin",
    "certificate",
    "secret",
];

fn read_table(key: &str, entry: Entry<'_>, config: &mut Config, report: &mut Report) {
    match key {
        "gateway" => config.gateway = single(entry, report).unwrap_or_default(),
        "log" => config.log = single(entry, report).unwrap_or_default(),
        "admin" => config.admin = single(entry, report).unwrap_or_default(),
        "limits" => config.limits = single(entry, report).unwrap_or_default(),
        "listener" => config.listeners = several(entry, report),
        "route" => config.routes = several(entry, report),
        "backend" => config.backends = named(entry, report),
        "vms" => {
            let name = Spanned::new(entry.0.span(), key.to_owned());
            config.vms = single(entry, report).map(|vms| Vms { name, ..vms });
        }
        "registry" => {
            let name = Spanned::new(entry.0.span(), key.to_owned());
            config.registry = single(entry, report).map(|registry| Registry { name, ..registry });
        }
        "plugin" => config.plugins = named(entry, report),
        "origin" => config.origins = named(entry, report),
        "certificate" => config.certificates = named(entry, report),
        "secret" => config.secrets = named(entry, report),
        _ => report.add(unknown(key, &entry.0)),
    }
}

/// `[gateway]`
fn single<T: DeserializeOwned>((key, value): Entry<'_>, report: &mut Report) -> Option<T> {
    let place = Place { kind: key.get_ref(), title: format!("[{key}]") };
    recover::read(&place, value, report)
}

/// `[[listener]]`
fn several<T: DeserializeOwned>((key, value): Entry<'_>, report: &mut Report) -> Vec<T> {
    let kind = key.get_ref();
    let place = Place { kind, title: format!("[[{kind}]]") };
    let span = value.span();
    match value.into_inner() {
        DeValue::Array(items) => {
            items.into_iter().filter_map(|item| recover::read(&place, item, report)).collect()
        }
        other => {
            report.add(one_bracket(kind, span, &other));
            Vec::new()
        }
    }
}

/// `[backend.NAME]`
fn named<T: Named>((key, value): Entry<'_>, report: &mut Report) -> BTreeMap<String, T> {
    let kind = key.get_ref();
    let span = value.span();
    let table = match value.into_inner() {
        DeValue::Table(table) => table,
        other => {
            let first = other.as_array().and_then(|items| items.first());
            report.add(nameless(kind, span, first.and_then(|item| inner_name(item.get_ref()))));
            return BTreeMap::new();
        }
    };
    if table.values().any(|value| !value.get_ref().is_table()) {
        let name = table.get("name").and_then(|name| name.get_ref().as_str());
        report.add(nameless(kind, span, name.map(str::to_owned)));
    }
    let mut entries = BTreeMap::new();
    for (name, value) in table.into_iter().filter(|(_, value)| value.get_ref().is_table()) {
        let place = Place { kind, title: format!("[{kind}.{name}]") };
        if let Some(entry) = recover::read::<T>(&place, value, report) {
            let name = Spanned::new(name.span(), name.into_inner().into_owned());
            entries.insert(name.get_ref().clone(), entry.with_name(name));
        }
    }
    entries
}

/// A table whose name stands in its header.
trait Named: DeserializeOwned {
    fn with_name(self, name: Spanned<String>) -> Self;
}

impl Named for Backend {
    fn with_name(self, name: Spanned<String>) -> Self {
        Self { name, ..self }
    }
}

impl Named for Plugin {
    fn with_name(self, name: Spanned<String>) -> Self {
        Self { name, ..self }
    }
}

impl Named for Origin {
    fn with_name(self, name: Spanned<String>) -> Self {
        Self { name, ..self }
    }
}

impl Named for Certificate {
    fn with_name(self, name: Spanned<String>) -> Self {
        Self { name, ..self }
    }
}

impl Named for Secret {
    fn with_name(self, name: Spanned<String>) -> Self {
        Self { name, ..self }
    }
}

impl Names {
    fn none() -> Self {
        let none = || Some(Vec::new());
        Self {
            listeners: none(),
            backends: none(),
            plugins: none(),
            origins: none(),
            secrets: none(),
            listener_count: 0,
            route_count: 0,
            certificate_count: 0,
        }
    }

    fn collect(&mut self, kind: &str, value: &Spanned<DeValue<'_>>) {
        let (names, found) = match kind {
            "listener" => {
                self.listener_count += count(value);
                (&mut self.listeners, inner_names(value))
            }
            "route" => {
                self.route_count += count(value);
                return;
            }
            "certificate" => {
                self.certificate_count += count(value);
                return;
            }
            "backend" => (&mut self.backends, header_names(value)),
            "plugin" => (&mut self.plugins, header_names(value)),
            "origin" => (&mut self.origins, header_names(value)),
            "secret" => (&mut self.secrets, header_names(value)),
            _ => return,
        };
        // A misspelt `[[listeners]]` may stand beside `[[listener]]`.
        *names = names.take().zip(found).map(|(known, found)| [known, found].concat());
    }
}

fn count(value: &Spanned<DeValue<'_>>) -> usize {
    value.get_ref().as_array().map_or(1, |items| items.len())
}

/// The names in headers: `[plugin.auth]`.
fn header_names(value: &Spanned<DeValue<'_>>) -> Option<Vec<String>> {
    let table = value.get_ref().as_table()?;
    let is_named = table.values().all(|value| value.get_ref().is_table());
    is_named.then(|| table.keys().map(|key| key.get_ref().to_string()).collect())
}

/// The names inside tables: `[[listener]]`, `name = …`.
fn inner_names(value: &Spanned<DeValue<'_>>) -> Option<Vec<String>> {
    let items = value.get_ref().as_array()?;
    Some(items.iter().filter_map(|item| inner_name(item.get_ref())).collect())
}

fn inner_name(value: &DeValue<'_>) -> Option<String> {
    value.as_table()?.get("name")?.get_ref().as_str().map(str::to_owned)
}

/// The table that an unknown one was most likely meant to be.
fn meant(key: &str) -> Option<&'static str> {
    if TABLES.contains(&key) { None } else { describe::meant("", key, &TABLES) }
}

fn unknown(key: &str, name: &Spanned<DeString<'_>>) -> Diagnostic {
    if vocabulary::is_later("", key) {
        return describe::not_yet(name.span(), key);
    }
    let label = match meant(key) {
        Some(meant) => format!("did you mean `{}`?", header(meant)),
        None => match schema::home_of(key) {
            Some(home) => format!("`{key}` is a key of {home}"),
            None => "no such table".to_owned(),
        },
    };
    let tables = TABLES.map(header);
    let known = describe::list(&tables.each_ref().map(String::as_str));
    Diagnostic::error(name.span(), format!("unknown table `{key}`"))
        .label(label)
        .help(format!("tables: {known}"))
}

/// For a `[route]` that should be a `[[route]]`, or a `[route.app]`.
fn one_bracket(kind: &str, span: Range<usize>, value: &DeValue<'_>) -> Diagnostic {
    let mut children = value.as_table().into_iter().flatten();
    let named = children.find(|(_, value)| value.get_ref().is_table());
    let help = match named {
        Some((name, _)) => format!("write `[[{kind}]]`; the name goes inside: `name = \"{name}\"`"),
        None => format!("write `[[{kind}]]`"),
    };
    Diagnostic::error(span, format!("`{kind}` needs two brackets: there can be several"))
        .label(format!("expected `[[{kind}]]`"))
        .help(help)
}

/// For a `[plugin]` that should be a `[plugin.auth]`.
fn nameless(kind: &str, span: Range<usize>, name: Option<String>) -> Diagnostic {
    let diagnostic = Diagnostic::error(span, format!("a {kind} has its name in the brackets"))
        .label(format!("expected `[{kind}.NAME]`"));
    match name {
        Some(name) => diagnostic.help(format!("write `[{kind}.{name}]`, and no key `name`")),
        None => diagnostic.help(format!("write `[{kind}.NAME]` with a name of your choice")),
    }
}

/// How a table is written.
fn header(table: &str) -> String {
    match table {
        "listener" | "route" => format!("[[{table}]]"),
        "backend" | "plugin" | "origin" | "certificate" | "secret" => format!("[{table}.NAME]"),
        _ => format!("[{table}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_the_same_tables() {
        let schema = schema::json_schema();
        let mut tables: Vec<&str> =
            schema["properties"].as_object().expect("an object").keys().map(String::as_str).collect();
        tables.sort_unstable();
        let mut expected = TABLES;
        expected.sort_unstable();
        assert_eq!(tables, expected);
    }
}
