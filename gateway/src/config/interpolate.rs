//! `${VARIABLE}` and `${VARIABLE:-default}` in strings; `$${` stands for `${`.

use std::{borrow::Cow, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{diagnostic::Diagnostic, report::Report};

/// The environment, as a function from a name to its value.
pub(super) type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Puts values in place of the variables in every string below `table`. Keys are left alone.
pub(super) fn expand(table: &mut DeTable<'_>, text: &str, env: Env<'_>, report: &mut Report) {
    for (_, value) in table.iter_mut() {
        expand_value(value, text, env, report);
    }
}

fn expand_value(value: &mut Spanned<DeValue<'_>>, text: &str, env: Env<'_>, report: &mut Report) {
    let span = value.span();
    match value.get_mut() {
        DeValue::Table(table) => expand(table, text, env, report),
        DeValue::Array(items) => {
            for item in items.iter_mut() {
                expand_value(item, text, env, report);
            }
        }
        DeValue::String(string) if string.contains("${") && !report.is_spoiled(&span) => {
            match expanded(string, env) {
                Ok(new) => *string = Cow::Owned(new),
                Err(mistake) => {
                    let place = place_of(mistake.written(), text, &span);
                    report.spoil(span, mistake.diagnostic(place));
                }
            }
        }
        _ => {}
    }
}

/// Why a string cannot be expanded.
#[derive(Debug, PartialEq, Eq)]
enum Mistake<'s> {
    Unset { written: &'s str, name: &'s str },
    NotAName { written: &'s str },
    NotClosed { written: &'s str },
}

fn expanded<'s>(string: &'s str, env: Env<'_>) -> Result<String, Mistake<'s>> {
    let mut result = String::with_capacity(string.len());
    let mut rest = string;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            result.push_str(before);
            result.push_str("${");
            rest = after;
            continue;
        }
        result.push_str(before);
        // Both are parts of `rest`, so this is where `${` stands.
        let written = rest.get(before.len()..).unwrap_or_default();
        let Some((inside, after)) = after.split_once('}') else {
            return Err(Mistake::NotClosed { written });
        };
        let written = written.get(..inside.len() + "${}".len()).unwrap_or_default();
        result.push_str(&variable(inside, written, env)?);
        rest = after;
    }
    result.push_str(rest);
    Ok(result)
}

/// The value of what stands between the braces. As in a shell, `:-` also covers an empty value.
fn variable<'s>(inside: &'s str, written: &'s str, env: Env<'_>) -> Result<String, Mistake<'s>> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    if !is_name(name) {
        return Err(Mistake::NotAName { written });
    }
    match (env(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Mistake::Unset { written, name }),
    }
}

fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && !name.starts_with(|first: char| first.is_ascii_digit()) && name.bytes().all(is_plain)
}

/// Where in a value something stands; the whole value if escapes make it look different there.
fn place_of(written: &str, text: &str, value: &Range<usize>) -> Range<usize> {
    match text.get(value.clone()).and_then(|raw| raw.find(written)) {
        Some(offset) => value.start + offset..value.start + offset + written.len(),
        None => value.clone(),
    }
}

impl<'s> Mistake<'s> {
    fn written(&self) -> &'s str {
        match self {
            Self::Unset { written, .. } | Self::NotAName { written } | Self::NotClosed { written } => written,
        }
    }

    fn diagnostic(&self, place: Range<usize>) -> Diagnostic {
        match self {
            Self::Unset { name, .. } => {
                Diagnostic::error(place, format!("environment variable `{name}` is not set"))
                    .label("needed here")
                    .help(format!("set it, or give a default: `${{{name}:-…}}`"))
            }
            Self::NotAName { .. } => {
                Diagnostic::error(place, "`${…}` holds the name of an environment variable")
                    .label("expected letters, digits and `_`")
                    .help("if `${` is meant as it stands, write `$${`")
            }
            Self::NotClosed { .. } => Diagnostic::error(place, "`${` without `}`")
                .label("expected `${NAME}`")
                .help("if `${` is meant as it stands, write `$${`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "PORT" => Some("3000".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${PORT}".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn expands() {
        for (string, expected) in [
            ("127.0.0.1:${PORT}", "127.0.0.1:3000"),
            ("${PORT}${PORT}", "30003000"),
            ("${NONE:-80}", "80"),
            ("${NONE:-}", ""),
            ("${PORT:-80}", "3000"),
            ("${EMPTY}", ""),
            ("${EMPTY:-80}", "80"),
            ("$${PORT}", "${PORT}"),
            ("$$${PORT}", "$${PORT}"),
            ("${NESTED}", "${PORT}"),
            ("$PORT costs $5", "$PORT costs $5"),
            ("é${PORT}é", "é3000é"),
        ] {
            assert_eq!(expanded(string, &env).as_deref(), Ok(expected), "for {string:?}");
        }
    }

    #[test]
    fn says_why_not() {
        assert_eq!(expanded("a${NONE}b", &env), Err(Mistake::Unset { written: "${NONE}", name: "NONE" }));
        assert_eq!(expanded("a${1x}", &env), Err(Mistake::NotAName { written: "${1x}" }));
        assert_eq!(expanded("a${}", &env), Err(Mistake::NotAName { written: "${}" }));
        assert_eq!(expanded("a${PORT", &env), Err(Mistake::NotClosed { written: "${PORT" }));
    }
}
