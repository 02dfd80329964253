//! Holds `docs/configuration.md` and `docs/limits.md` to what the types say.

use std::{fs, path::Path};

use super::{Source, interpolate, read, report::Report, schema, syntax};

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The part of the page below the heading that names a table.
fn section<'p>(page: &'p str, table: &str) -> &'p str {
    let heading = format!("\n## `{table}`");
    let start = page.find(&heading).unwrap_or_else(|| panic!("no heading for {table}"));
    let body = &page[start + heading.len()..];
    body.split("\n## ").next().unwrap_or(body)
}

/// The cells of the row that explains a key.
fn row<'s>(section: &'s str, key: &str) -> Option<Vec<&'s str>> {
    let start = format!("| `{key}` |");
    let line = section.lines().find(|line| line.starts_with(&start))?;
    Some(line.trim_matches('|').split('|').map(str::trim).collect())
}

#[test]
fn every_key_has_a_row_with_its_default() {
    let page = page("configuration.md");
    let mut wrong = Vec::new();
    for key in schema::keys() {
        let Some(cells) = row(section(&page, &key.table), &key.path) else {
            wrong.push(format!("{}: no row for `{}`", key.table, key.path));
            continue;
        };
        let default = key.default.map(|default| match default {
            serde_json::Value::Array(items) if items.is_empty() => "none".to_owned(),
            serde_json::Value::String(text) if text.is_empty() => "empty".to_owned(),
            other => format!("`{other}`"),
        });
        let stated = cells.get(2).copied().unwrap_or_default();
        match default {
            Some(default) if stated != default => {
                wrong.push(format!("{}: the default of `{}` is {default}, not {stated}", key.table, key.path))
            }
            None if stated.is_empty() => {
                wrong.push(format!("{}: `{}` has an empty cell for its default", key.table, key.path));
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Keys that bound something stand on the page of limits too, and say there what else is so.
#[test]
fn every_limit_is_on_its_page_with_its_default() {
    let page = page("limits.md");
    let is_bound = |key: &schema::Key| {
        let first = key.path.split('.').next().unwrap_or_default();
        let is_table =
            key.default.is_none() && matches!(key.path.as_str(), "limits" | "timeouts" | "keepalive");
        let is_of_limits = key.table == "[limits]" || matches!(first, "limits" | "timeouts" | "keepalive");
        !is_table && (is_of_limits || key.path.starts_with("connections") || key.path == "shutdown_grace")
    };
    let bounds: Vec<schema::Key> = schema::keys().into_iter().filter(is_bound).collect();
    assert!(bounds.len() > 15, "these are all: {bounds:#?}");
    let mut wrong = Vec::new();
    for key in bounds {
        let start = format!("| `{}` `{}` | ", key.table, key.path);
        let Some(rest) = page.lines().find_map(|line| line.strip_prefix(&start)) else {
            wrong.push(format!("no row that begins with {start}"));
            continue;
        };
        let stated = rest.split(" |").next().unwrap_or_default();
        if let Some(default) = &key.default {
            let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
            if stated != format!("`{default}`") {
                wrong.push(format!("{start}: the default is `{default}`, not {stated}"));
            }
        }
    }
    assert!(wrong.is_empty(), "docs/limits.md: {wrong:#?}");
}

#[test]
fn every_example_can_be_read() {
    let page = page("configuration.md");
    let blocks: Vec<&str> =
        page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() > 5, "the page has examples");
    for block in blocks {
        let source = Source::new("docs/configuration.md", block);
        let mut report = Report::default();
        // An example shows one table, so what it refers to may be elsewhere.
        if let Some(mut tree) = syntax::parse(&source.text, &mut report) {
            interpolate::expand(&mut tree, &source.text, &|_| None, &mut report);
            read::read(tree, &mut report);
        }
        if let Err(errors) = report.finish() {
            panic!("{}", super::render(&source, &errors, false));
        }
    }
}
