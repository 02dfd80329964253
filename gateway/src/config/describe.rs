//! What is said of a fault in a table: which key, what was expected, what was probably meant.

use std::ops::Range;

use toml::{Spanned, de::DeValue};

use super::{
    diagnostic::Diagnostic,
    fault::{ARRAY, Fault, choice},
    nearest::nearest,
    schema,
    tree::{Step, value_at},
    vocabulary,
};

/// A table of the file, for messages.
pub(super) struct Place<'p> {
    /// Its kind, as in [`vocabulary`]: `listener`.
    pub(super) kind: &'p str,
    /// As it is written: `[[listener]]`, `[plugin.auth]`.
    pub(super) title: String,
}

/// Describes a fault found at `path` below `table`; `span` is the key's or the value's.
pub(super) fn describe(
    place: &Place<'_>,
    table: &Spanned<DeValue<'_>>,
    fault: &Fault<'_>,
    path: &[Step],
    span: Range<usize>,
) -> Diagnostic {
    match fault {
        Fault::UnknownKey { key, .. } if place.kind == "secret" => misplaced_secret(place, table.span(), key),
        Fault::UnknownKey { key, known } => unknown_key(place, path, span, key, known),
        Fault::MissingKey { key } => missing_key(place, path, span, key),
        Fault::WrongType { found, expected } => {
            let message = format!("{} cannot be {found}", value_name(place, path));
            let diagnostic = Diagnostic::error(span, message).label(format!("expected {expected}"));
            let written = value_at(table, path).and_then(|value| value.get_ref().as_str());
            match written {
                Some(text) if expected == ARRAY => diagnostic.help(format!("write `[{text:?}]`")),
                _ => diagnostic,
            }
        }
        Fault::UnknownWord { word, known } => unknown_word(place, path, span, word, known),
        Fault::Other { message, label, help } => {
            let diagnostic = Diagnostic::error(span, *message).label(*label);
            match help {
                Some(help) => diagnostic.help(*help),
                None => diagnostic,
            }
        }
    }
}

/// The key that an unknown one was most likely meant to be.
pub(super) fn meant<'k>(table: &str, key: &str, known: &[&'k str]) -> Option<&'k str> {
    let ours = vocabulary::ours(table, key);
    known.iter().copied().find(|known| Some(*known) == ours).or_else(|| nearest(key, known.iter().copied()))
}

/// The table a key stands in, as [`vocabulary`] names it: `plugin.grants`.
pub(super) fn table_of(place: &Place<'_>, path: &[Step]) -> String {
    table_at(place, path.split_last().map_or(path, |(_, parent)| parent))
}

/// For keys and words that later versions have.
pub(super) fn not_yet(span: Range<usize>, what: &str) -> Diagnostic {
    Diagnostic::error(span, format!("`{what}` is not supported by this version")).label("not in this version")
}

/// `` `a`, `b`, `c` ``
pub(super) fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn unknown_key(
    place: &Place<'_>,
    path: &[Step],
    span: Range<usize>,
    key: &str,
    known: &[&str],
) -> Diagnostic {
    let table = table_of(place, path);
    if vocabulary::is_later(&table, key) {
        return not_yet(span, key);
    }
    let parent = path.split_last().map_or(path, |(_, parent)| parent);
    let title = inside(place, parent);
    let diagnostic = Diagnostic::error(span, format!("unknown key `{key}` in {title}"));
    let label = match meant(&table, key, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => match schema::home_of(key) {
            Some(home) => format!("`{key}` is a key of {home}"),
            None => "no such key".to_owned(),
        },
    };
    diagnostic.label(label).help(format!("keys of {title}: {}", list(known)))
}

/// The key may hold the secret itself, so its line is not shown: the place is that of the table.
fn misplaced_secret(place: &Place<'_>, table: Range<usize>, key: &str) -> Diagnostic {
    Diagnostic::error(table, format!("unknown key `{key}` in `{}`", place.title))
        .label("expected either `env = \"VARIABLE\"` or `file = \"PATH\"`")
        .help("the value itself must not stand in this file")
}

fn missing_key(place: &Place<'_>, path: &[Step], span: Range<usize>, key: &str) -> Diagnostic {
    let message = format!("`{key}` is missing in {}", inside(place, path));
    let diagnostic = Diagnostic::error(span, message).label(format!("needs `{key}`"));
    match vocabulary::example(&table_at(place, path), key) {
        Some(example) => diagnostic.help(format!("for example `{key} = {example}`")),
        None => diagnostic,
    }
}

fn unknown_word(
    place: &Place<'_>,
    path: &[Step],
    span: Range<usize>,
    word: &str,
    known: &[&str],
) -> Diagnostic {
    let key = dotted(path);
    if vocabulary::is_later(&format!("{}.{key}", place.kind), word) {
        return not_yet(span, &format!("{key} = \"{word}\""));
    }
    let expected = format!("expected {}", choice(known.iter().copied()));
    let label = match nearest(word, known.iter().copied()) {
        Some(meant) => format!("{expected}; did you mean `{meant}`?"),
        None => expected,
    };
    Diagnostic::error(span, format!("{} cannot be `{word}`", value_name(place, path))).label(label)
}

/// `` `[[listener]]` `` or `` `timeouts` of `[[listener]]` ``
fn inside(place: &Place<'_>, path: &[Step]) -> String {
    match dotted(path).as_str() {
        "" => format!("`{}`", place.title),
        nested => format!("`{nested}` of `{}`", place.title),
    }
}

/// `` `timeouts.head` ``, `` an item of `methods` ``, `` `[[listener]]` ``
fn value_name(place: &Place<'_>, path: &[Step]) -> String {
    match path.last() {
        None => format!("`{}`", place.title),
        Some(Step::Item(_)) => format!("an item of `{}`", dotted(path)),
        Some(Step::Key(_)) => format!("`{}`", dotted(path)),
    }
}

fn table_at(place: &Place<'_>, path: &[Step]) -> String {
    match dotted(path).as_str() {
        "" => place.kind.to_owned(),
        nested => format!("{}.{nested}", place.kind),
    }
}

fn dotted(path: &[Step]) -> String {
    let keys = path.iter().filter_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Item(_) => None,
    });
    keys.collect::<Vec<_>>().join(".")
}
