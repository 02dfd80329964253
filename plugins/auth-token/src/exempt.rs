//! Paths that need no token: `/health` covers itself, `/assets/*` what lies below.

use serde::Deserialize;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Exempt {
    /// This path as sent, to the byte.
    Exact(String),
    /// What starts with this, which ends in `/`.
    Below(String),
}

impl Exempt {
    /// `path` is as sent. A backend may decode and normalise it, so below a prefix only paths count
    /// that mean the same to everybody.
    pub(crate) fn covers(&self, path: &str) -> bool {
        match self {
            Self::Exact(exempt) => path == exempt,
            Self::Below(prefix) => path.strip_prefix(prefix.as_str()).is_some_and(is_plain),
        }
    }
}

impl TryFrom<String> for Exempt {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if !text.starts_with('/') || text.contains(['?', '#']) {
            return Err("expected a path that starts with \"/\", without a query");
        }
        match text.strip_suffix('*') {
            Some("/") => Err("exempts every path; take the plugin off the route instead"),
            Some(prefix) if prefix.ends_with('/') && !prefix.contains('*') => Ok(Self::Below(prefix.into())),
            None if !text.contains('*') => Ok(Self::Exact(text)),
            _ => Err("\"*\" stands for the rest of a path; expected \"/prefix/*\""),
        }
    }
}

/// No dot segment, no second spelling of `/`, `\`, `.`, `;` or `%`, no broken escape.
fn is_plain(rest: &str) -> bool {
    let is_dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    !rest.contains('\\') && !rest.split('/').any(is_dots) && rest.split('%').skip(1).all(is_plain_escape)
}

fn is_plain_escape(text: &str) -> bool {
    let hex = text.get(..2).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
    byte.is_some_and(|byte| !matches!(byte, b'/' | b'\\' | b'.' | b';' | b'%' | 0))
}
