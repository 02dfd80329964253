//! Text to tree: every syntax error of a file, and what can be read in spite of them.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue, Error},
};

use super::{diagnostic::Diagnostic, report::Report};

/// What the parser says when a value is wrong in itself and the rest of the line is not: a string
/// without quotes, most often. Any other error may have shifted the meaning of what follows it.
const IN_VALUES: [&str; 16] = [
    "`_`",
    "integers with",
    "invalid basic string",
    "invalid binary",
    "invalid boolean",
    "invalid exponent",
    "invalid float",
    "invalid hexadecimal",
    "invalid integer",
    "invalid literal string",
    "invalid octal",
    "invalid value",
    "missing escaped",
    "missing value",
    "string values",
    "unexpected leading",
];

/// Parses a file. `None` if the tree cannot be relied on: a bracket that is not closed makes nonsense
/// of what follows it. There is an error in the report then.
pub(super) fn parse<'t>(text: &'t str, report: &mut Report) -> Option<DeTable<'t>> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let tree = tree.into_inner();
    let mut found: Vec<Found<'_>> = errors.iter().map(|error| Found::new(text, &tree, error)).collect();
    let reliable = found.iter().all(|found| found.value.is_some());
    // Of several errors in a line, one caused the others: the one in a value, or else the first.
    found.sort_by_key(|found| (found.line, found.value.is_none(), span(found.error).start));
    found.dedup_by_key(|found| found.line);
    let count = found.iter().position(|found| swallows(found.error)).map_or(found.len(), |first| first + 1);
    for Found { error, value, .. } in found.into_iter().take(count) {
        match value {
            Some(value) => report.spoil(value.clone(), in_value(text, error, &value)),
            None => report.add(between_values(text, error)),
        }
    }
    reliable.then_some(tree)
}

/// A syntax error.
struct Found<'e> {
    error: &'e Error,
    line: usize,
    /// The value it is in, if nothing else is affected.
    value: Option<Range<usize>>,
}

impl<'e> Found<'e> {
    fn new(text: &str, tree: &DeTable<'_>, error: &'e Error) -> Self {
        let span = span(error);
        let line = text.get(..span.start).unwrap_or_default().matches('\n').count();
        let in_line = |value: &Range<usize>| !text.get(value.clone()).unwrap_or("\n").contains('\n');
        let value = IN_VALUES
            .iter()
            .any(|words| error.message().starts_with(words))
            .then(|| tree.values().find_map(|value| scalar_at(value, &span)))
            .flatten()
            .filter(in_line);
        Self { error, line, value }
    }
}

/// Whether what follows was read as part of an array or table that should have ended, so that errors
/// in it mean nothing.
fn swallows(error: &Error) -> bool {
    let message = error.message();
    ["missing comma", "unclosed array,", "unclosed inline"].iter().any(|words| message.starts_with(words))
}

fn span(error: &Error) -> Range<usize> {
    error.span().unwrap_or(0..0)
}

/// The string, number, boolean or date that holds or touches a place.
fn scalar_at(value: &Spanned<DeValue<'_>>, place: &Range<usize>) -> Option<Range<usize>> {
    match value.get_ref() {
        DeValue::Table(table) => table.values().find_map(|value| scalar_at(value, place)),
        DeValue::Array(items) => items.iter().find_map(|value| scalar_at(value, place)),
        _ => {
            let span = value.span();
            (span.start <= place.start && place.end <= span.end).then_some(span)
        }
    }
}

/// An error inside a value: most often a string without quotes.
fn in_value(text: &str, error: &Error, value: &Range<usize>) -> Diagnostic {
    let (start, word) = written(text, value.start);
    if word.is_empty() {
        return Diagnostic::error(value.clone(), "a value is missing").label("expected a value");
    }
    let whole = start..start + word.len();
    let expected = expected(error);
    if word.starts_with(['"', '\'']) {
        return match expected.as_str() {
            "expected `\"`" | "expected `'`" => {
                Diagnostic::error(whole, "this string has no end").label(expected)
            }
            _ => translated(error),
        };
    }
    let diagnostic = Diagnostic::error(whole, format!("`{word}` is not a value"));
    match word.to_lowercase().as_str() {
        "true" | "tru" | "yes" | "on" => diagnostic.label("expected `true` or `false`").help("write `true`"),
        "false" | "no" | "off" => diagnostic.label("expected `true` or `false`").help("write `false`"),
        _ => diagnostic.label("a string stands in quotes").help(format!("write \"{word}\"")),
    }
}

/// What the user meant as one value, and where it starts.
fn written(text: &str, start: usize) -> (usize, &str) {
    let line_start = text.get(..start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let before = text.get(line_start..start).unwrap_or_default();
    // `[::]:8080` without quotes looks like the start of an array.
    let start = match before.strip_suffix('[') {
        Some(key) if text.get(start..).unwrap_or_default().starts_with(':') => line_start + key.len(),
        _ => start,
    };
    let rest = text.get(start..).unwrap_or_default();
    let ends: &[char] =
        if rest.starts_with('[') { &['\r', '\n', '#'] } else { &['\r', '\n', '#', ',', ']', '}'] };
    (start, rest.split(ends).next().unwrap_or_default().trim_end())
}

/// An error in the structure around values.
fn between_values(text: &str, error: &Error) -> Diagnostic {
    let span = span(error);
    let written = text.get(span.clone()).unwrap_or_default();
    match error.message() {
        "duplicate key" => {
            let message = format!("`{written}` is already there");
            let diagnostic = Diagnostic::error(span, message).label("second time");
            match written {
                "listener" | "route" => {
                    diagnostic.help(format!("for one more {written}, write `[[{written}]]` each time"))
                }
                _ => diagnostic,
            }
        }
        message if message.starts_with("key with no value") => {
            Diagnostic::error(span, "a key needs a value").label("expected `=` and a value")
        }
        message if message.starts_with("unexpected key or value") => {
            Diagnostic::error(span, "one key stands on each line").label("expected the end of the line")
        }
        message if message.starts_with("missing comma between array") => {
            Diagnostic::error(span, "the array before this has no end, or lacks a comma")
                .label("expected `,` or `]`")
        }
        message if message.starts_with("unclosed") && message.contains("table,") => {
            Diagnostic::error(span, "this header has no end").label(expected(error))
        }
        _ if written == ":" => {
            Diagnostic::error(span, "between a key and its value stands `=`").label("expected `=`")
        }
        _ => translated(error),
    }
}

/// An error in the parser's own words.
fn translated(error: &Error) -> Diagnostic {
    let message = error.message().split(", expected ").next().unwrap_or_default();
    Diagnostic::error(span(error), message).label(expected(error))
}

fn expected(error: &Error) -> String {
    match error.message().split_once(", expected ") {
        None | Some((_, "nothing")) => String::new(),
        Some((_, expected)) => format!("expected {expected}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> (bool, Vec<String>) {
        let mut report = Report::default();
        let usable = parse(text, &mut report).is_some();
        let found = report.finish().err().unwrap_or_default();
        (usable, found.into_iter().map(|error| error.message).collect())
    }

    #[test]
    fn an_error_in_a_value_leaves_the_rest_readable() {
        let (usable, found) = errors("a = 127.0.0.1:3000\nb = 30s # x\nc = tru\nd = \"x\ne = \n");
        assert!(usable);
        assert_eq!(
            found,
            [
                "`127.0.0.1:3000` is not a value",
                "`30s` is not a value",
                "`tru` is not a value",
                "this string has no end",
                "a value is missing"
            ]
        );
    }

    #[test]
    fn an_error_around_values_ends_the_reading() {
        for text in [
            "a = \"b\", c = 1\n",
            "a = [\"b]\n",
            "a = \"\"\"b\n",
            "[x\na = 1\n",
            "a = [1, 2\nb = 3\n",
            "a: 1\n",
            "a = 1\na = 2\n",
            "key value\n",
        ] {
            let (usable, found) = errors(text);
            assert!(!usable && !found.is_empty(), "{text:?} gave {found:?}");
        }
    }
}
