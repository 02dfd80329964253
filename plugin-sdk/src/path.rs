//! Paths that mean the same to everybody: to a plugin, which sees them as sent, and to a backend,
//! which may decode and normalise them.
//!
//! A plugin that lets `/assets/` pass, and a backend that reads `/assets/%2e%2e/admin` as `/admin`,
//! make a hole together. [`PathPattern`] leaves such paths out, and a [`PathSegment`] cannot make one.

use crate::ParseError;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Which paths are meant: `/health` stands for itself, `/assets/*` for what lies below `/assets/`.
///
/// A pattern without `*` covers this path as sent, to the byte. Below a prefix, a path is covered
/// unless a backend might read it as another one: not if what follows the prefix has a dot segment,
/// a backslash, an encoded `/`, `\`, `.`, `;` or `%`, or a broken escape.
///
/// So a pattern is for what may pass. To refuse by it would be no protection: a path that it does not
/// cover may lead to the same place in the backend.
///
/// ```
/// use vers_plugin::path::PathPattern;
///
/// let assets: PathPattern = "/assets/*".parse()?;
/// assert!(assets.covers("/assets/app.js"));
/// assert!(!assets.covers("/assets/%2e%2e/admin"));
/// assert!(!assets.covers("/assets"));
/// # Ok::<(), vers_plugin::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PathPattern(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// This path.
    Exact(String),
    /// What starts with this, which ends in `/`.
    Below(String),
}

impl PathPattern {
    /// Covers this path and no other; a `*` in it is a character like any other.
    ///
    /// ```
    /// use vers_plugin::path::PathPattern;
    ///
    /// assert!(PathPattern::exact("/health").covers("/health"));
    /// assert!(!PathPattern::exact("/health").covers("/health/"));
    /// ```
    pub fn exact(path: impl Into<String>) -> Self {
        Self(Kind::Exact(path.into()))
    }

    /// Whether this path, as [`Request::path`](crate::Request::path) gives it, is meant.
    pub fn covers(&self, path: &str) -> bool {
        match &self.0 {
            Kind::Exact(exact) => path == exact,
            Kind::Below(prefix) => path.strip_prefix(prefix.as_str()).is_some_and(is_plain),
        }
    }

    /// Whether this is `/*`: for plugins to which that must be a mistake.
    ///
    /// ```
    /// use vers_plugin::path::PathPattern;
    ///
    /// assert!("/*".parse::<PathPattern>()?.covers_all());
    /// assert!(!"/a/*".parse::<PathPattern>()?.covers_all());
    /// # Ok::<(), vers_plugin::ParseError>(())
    /// ```
    pub fn covers_all(&self) -> bool {
        matches!(&self.0, Kind::Below(prefix) if prefix == "/")
    }
}

/// # Errors
/// Where the text does not start with `/`, has a query, or a `*` elsewhere than as its last segment.
impl FromStr for PathPattern {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if !text.starts_with('/') || text.contains(['?', '#']) {
            return Err(ParseError::new("expected a path that starts with \"/\", without a query"));
        }
        match text.strip_suffix('*') {
            Some(prefix) if prefix.ends_with('/') && !prefix.contains('*') => {
                Ok(Self(Kind::Below(prefix.into())))
            }
            None if !text.contains('*') => Ok(Self::exact(text)),
            _ => Err(ParseError::new("\"*\" stands for the rest of a path; expected \"/prefix/*\"")),
        }
    }
}

impl TryFrom<String> for PathPattern {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

/// An id or a name that can stand in a path as one segment: letters, digits, `-`, `.` and `_`, and
/// not dots alone.
///
/// It needs no escape, and whoever chose it cannot leave its place: worth asking of everything that a
/// URL is put together from, captures and header values above all.
///
/// ```
/// use vers_plugin::path::PathSegment;
///
/// let id: PathSegment = "vm-7".parse()?;
/// assert_eq!(format!("/vms/{id}/heartbeat"), "/vms/vm-7/heartbeat");
/// assert!("..".parse::<PathSegment>().is_err());
/// assert!("a/b".parse::<PathSegment>().is_err());
/// # Ok::<(), vers_plugin::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct PathSegment(String);

impl PathSegment {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PathSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// # Errors
/// Where the text is empty, has other characters, or nothing but dots.
impl FromStr for PathSegment {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        // Dots alone lead elsewhere, and nothing is no segment.
        if !text.bytes().all(is_allowed) || text.bytes().all(|b| b == b'.') {
            return Err(ParseError::new("expected letters, digits, \"-\", \".\" and \"_\""));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for PathSegment {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, path: &str, expected: bool) {
        let pattern: PathPattern = pattern.parse().expect("a pattern");
        assert_eq!(pattern.covers(path), expected, "{pattern:?} {path}");
    }

    #[test]
    fn a_path_covers_itself_to_the_byte() {
        check("/health", "/health", true);
        check("/assets/", "/assets/", true);
        for other in
            ["/", "/health/", "/Health", "/healthz", "//health", "/./health", "/%68ealth", "/health;x"]
        {
            check("/health", other, false);
        }
        check("/assets/", "/assets/app.js", false);
    }

    #[test]
    fn a_prefix_covers_what_is_below_it_by_any_reading() {
        for path in ["", "app.js", "a/b%20c..d", ".well-known", "...", "/x", "a;v=1", "%c3%a9"] {
            check("/assets/*", &format!("/assets/{path}"), true);
            check("/*", &format!("/{path}"), true);
        }
        for path in [
            "../admin",
            "..",
            "a/./b",
            "..;/admin",
            ".;x",
            "%2e%2e/admin",
            "%2E./admin",
            "..%2fadmin",
            "%5c..",
            "..\\admin",
            "%252e%252e/",
            "a%3b/b",
            "%",
            "%2",
            "%zz",
            "%+1",
            "%00",
            "%é",
        ] {
            check("/assets/*", &format!("/assets/{path}"), false);
            check("/*", &format!("/{path}"), false);
        }
        for elsewhere in ["/assets", "/assetsx", "/health", "/", "*", "//assets/x"] {
            check("/assets/*", elsewhere, false);
        }
    }

    #[test]
    fn what_is_no_pattern() {
        let check = |text: &str, message: &str| {
            let error = text.parse::<PathPattern>().expect_err(text).to_string();
            assert!(error.contains(message), "{text}: {error}");
        };
        for text in ["", "b", "*", "a/*", "/a?b", "/a#b"] {
            check(text, "starts with \"/\", without a query");
        }
        for text in ["/a*", "/a/*/b", "/*/*", "/**"] {
            check(text, "expected \"/prefix/*\"");
        }
    }

    #[test]
    fn segments() {
        for text in ["a", "a1", "vm-7_b.c", "..a", "...a..."] {
            assert_eq!(text.parse::<PathSegment>().expect(text).as_str(), text);
        }
        for text in ["", ".", "..", "...", "a/b", "a b", "a%2fb", "a?b", "é", "a\n"] {
            assert!(text.parse::<PathSegment>().is_err(), "{text:?}");
        }
    }
}
