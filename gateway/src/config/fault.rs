//! What went wrong in one table, said again in the words of someone who writes TOML.
//!
//! Serde reports an error as one English sentence. This file is the only one that reads such
//! sentences; golden files in `tests/config` hold them still.

/// What is expected where a list is.
pub(super) const ARRAY: &str = "an array: `[…]`";

/// An error of deserialization, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault<'a> {
    /// A key that the table does not have.
    UnknownKey { key: &'a str, known: Vec<&'a str> },
    /// A required key is not there.
    MissingKey { key: &'a str },
    /// A value of the wrong type, or out of range.
    WrongType { found: String, expected: String },
    /// A word that is none of those allowed.
    UnknownWord { word: &'a str, known: Vec<&'a str> },
    /// One of our own, made by [`custom`], or one we have no better words for.
    Other { message: &'a str, label: &'a str, help: Option<&'a str> },
}

impl<'a> Fault<'a> {
    /// Reads serde's sentence.
    pub(super) fn parse(text: &'a str) -> Self {
        unknown(text, "unknown field `")
            .map(|(key, known)| Self::UnknownKey { key, known })
            .or_else(|| {
                unknown(text, "unknown variant `").map(|(word, known)| Self::UnknownWord { word, known })
            })
            .or_else(|| missing(text))
            .or_else(|| wrong_type(text))
            .unwrap_or_else(|| other(text))
    }
}

/// The text of an error raised by a `Deserialize` of ours, for [`Fault::parse`] to take apart.
pub(super) fn custom(message: &str, label: &str, help: Option<&str>) -> String {
    let help = help.unwrap_or_default();
    format!("{message}\n{label}\n{help}")
}

/// `auth`, `headers` or `register`.
pub(super) fn choice<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}

fn unknown<'a>(text: &'a str, prefix: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let rest = text.strip_prefix(prefix)?;
    // From the right: a key may hold a backtick, the list after it does not.
    let (name, known) = match rest.rsplit_once("`, expected ") {
        Some((name, known)) => (name, known),
        None => rest.rsplit_once("`, there are no ")?,
    };
    // Names stand at the odd places between backticks.
    Some((name, known.split('`').skip(1).step_by(2).collect()))
}

fn missing(text: &str) -> Option<Fault<'_>> {
    let key = text.strip_prefix("missing field `")?.strip_suffix('`')?;
    Some(Fault::MissingKey { key })
}

fn wrong_type(text: &str) -> Option<Fault<'_>> {
    let rest = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "))?;
    let (found, expected) = rest.rsplit_once(", expected ")?;
    Some(Fault::WrongType { found: found_words(found), expected: expected_words(expected) })
}

fn other(text: &str) -> Fault<'_> {
    let mut lines = text.splitn(3, '\n');
    let message = lines.next().unwrap_or_default();
    let label = lines.next().unwrap_or_default();
    Fault::Other { message, label, help: lines.next().filter(|help| !help.is_empty()) }
}

fn found_words(found: &str) -> String {
    match found {
        "map" => "a table".to_owned(),
        "sequence" => "an array".to_owned(),
        "string \"\"" => "an empty string".to_owned(),
        _ => {
            let (kind, value) = found.split_once(' ').unwrap_or((found, ""));
            match kind {
                "string" => "a string".to_owned(),
                "integer" => value.to_owned(),
                "floating" => "a number with a fraction".to_owned(),
                "boolean" => value.to_owned(),
                _ => found.to_owned(),
            }
        }
    }
}

fn expected_words(expected: &str) -> String {
    match expected {
        "a string" => "a string in quotes",
        "a boolean" => "`true` or `false`",
        "a sequence" => ARRAY,
        "a map" => "a table: `{…}`",
        "u16" => "a whole number from 0 to 65535",
        _ if expected.starts_with("struct ") => "a table: `{…}`",
        _ => expected,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_serdes_sentences_apart() {
        let known = vec!["a", "b"];
        assert_eq!(
            Fault::parse("unknown field `x`, expected `a` or `b`"),
            Fault::UnknownKey { key: "x", known: known.clone() }
        );
        assert_eq!(
            Fault::parse("unknown variant `x`, expected one of `a`, `b`, `c`"),
            Fault::UnknownWord { word: "x", known: vec!["a", "b", "c"] }
        );
        assert_eq!(
            Fault::parse("unknown field `x`, there are no fields"),
            Fault::UnknownKey { key: "x", known: vec![] }
        );
        assert_eq!(Fault::parse("missing field `to`"), Fault::MissingKey { key: "to" });
        assert_eq!(
            Fault::parse("invalid type: integer `3`, expected a string"),
            Fault::WrongType { found: "`3`".to_owned(), expected: "a string in quotes".to_owned() }
        );
    }

    #[test]
    fn takes_our_own_apart() {
        assert_eq!(
            Fault::parse(&custom("what", "where", Some("how"))),
            Fault::Other { message: "what", label: "where", help: Some("how") }
        );
        assert_eq!(
            Fault::parse("anything else"),
            Fault::Other { message: "anything else", label: "", help: None }
        );
    }

    #[test]
    fn lists_choices() {
        assert_eq!(choice([]), "nothing");
        assert_eq!(choice(["a"]), "`a`");
        assert_eq!(choice(["a", "b", "c"]), "`a`, `b` or `c`");
    }
}
