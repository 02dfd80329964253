//! Holds `docs/configuration.md` to what the types say.

use std::{fs, path::Path};

use super::{Source, interpolate, read, report::Report, schema, syntax};

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
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
    let page = page();
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

#[test]
fn every_example_can_be_read() {
    let page = page();
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
