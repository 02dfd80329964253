//! The patterns of `host` and `path`, and how specific one is.

use std::sync::Arc;

/// A pattern that does not mean anything; the text says what would.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Not a host name.
    #[error("`{0}` is not a host name; write a name, `*.name` or `{{capture}}.name`, without port")]
    Host(String),
    /// A path must start with a slash.
    #[error("a path starts with `/`; `{0}` does not")]
    NoSlash(String),
    /// A star that is not the last segment.
    #[error("`*` stands only as the last segment, as in `/api/*`")]
    Star,
    /// Braces that do not enclose a whole label or segment.
    #[error("`{{name}}` stands for a whole {0}, and its name is made of letters, digits and `_`")]
    Capture(&'static str),
    /// The same capture name twice in one route.
    #[error("the capture `{0}` appears twice")]
    Twice(String),
}

/// What `host` matches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Exactly this name, in lower case.
    Exact(Box<str>),
    /// Any name below this suffix, at any depth: `*.example.com` (the suffix has no leading dot).
    Below(Box<str>),
    /// Exactly one label before this suffix, captured: `{vm}.example.com`.
    Label {
        /// Name of the capture.
        capture: Arc<str>,
        /// What follows the label, without leading dot.
        suffix: Box<str>,
    },
}

impl HostPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Fails on anything that no Host header could match.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_suffix('.').unwrap_or(&lower);
        if let Some(suffix) = name.strip_prefix("*.") {
            return Ok(Self::Below(host_name(suffix, text)?));
        }
        if let Some((label, suffix)) = name.strip_prefix('{').and_then(|rest| rest.split_once("}.")) {
            // The name keeps its case: it is the user's, not DNS's.
            let capture = text.get(1..=label.len()).unwrap_or(label);
            return Ok(Self::Label {
                capture: capture_name(capture, "label")?,
                suffix: host_name(suffix, text)?,
            });
        }
        Ok(Self::Exact(host_name(name, text)?))
    }

    /// Whether it matches a host name in lower case, without port.
    pub fn matches(&self, name: &str) -> bool {
        let before = |suffix: &str| name.strip_suffix(suffix)?.strip_suffix('.');
        match self {
            Self::Exact(exact) => **exact == *name,
            Self::Below(suffix) => before(suffix).is_some_and(|rest| !rest.is_empty()),
            Self::Label { suffix, .. } => {
                before(suffix).is_some_and(|rest| !rest.is_empty() && !rest.contains('.'))
            }
        }
    }

    /// Name of the capture, where there is one.
    pub fn capture(&self) -> Option<&Arc<str>> {
        match self {
            Self::Label { capture, .. } => Some(capture),
            Self::Exact(_) | Self::Below(_) => None,
        }
    }
}

fn host_name(name: &str, whole: &str) -> Result<Box<str>, PatternError> {
    let is_v6 = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok());
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if is_v6 || (name.len() <= 253 && name.split('.').all(is_label)) {
        Ok(name.into())
    } else {
        Err(PatternError::Host(whole.to_owned()))
    }
}

fn capture_name(name: &str, of: &'static str) -> Result<Arc<str>, PatternError> {
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        Ok(name.into())
    } else {
        Err(PatternError::Capture(of))
    }
}

/// What `path` matches: segment by segment, as sent (no decoding, no dot segments removed).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern {
    segments: Vec<Segment>,
    /// Ends in `/*`: anything may follow.
    open: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Segment {
    Literal(Box<str>),
    Capture(Arc<str>),
}

impl PathPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Fails on a missing slash, a star in the middle and braces around part of a segment.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let rest = text.strip_prefix('/').ok_or_else(|| PatternError::NoSlash(text.to_owned()))?;
        let (rest, open) = match rest.strip_suffix('*') {
            Some("") => return Ok(Self { segments: Vec::new(), open: true }),
            Some(before) => (before.strip_suffix('/').ok_or(PatternError::Star)?, true),
            None => (rest, false),
        };
        let segments = rest.split('/').map(segment).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { segments, open })
    }

    /// Names of the captures, in order.
    pub fn captures(&self) -> impl Iterator<Item = &Arc<str>> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Capture(name) => Some(name),
            Segment::Literal(_) => None,
        })
    }

    /// Whether the path matches; `found` gets what was captured.
    pub(super) fn matches(&self, path: &str, mut found: impl FnMut(&Arc<str>, &str)) -> bool {
        let Some(mut rest) = path.strip_prefix('/') else { return false };
        let mut more = true;
        for (index, segment) in self.segments.iter().enumerate() {
            if index > 0 && !more {
                return false;
            }
            let (head, tail) = match rest.split_once('/') {
                Some((head, tail)) => (head, Some(tail)),
                None => (rest, None),
            };
            match segment {
                Segment::Literal(literal) if **literal != *head => return false,
                Segment::Capture(_) if head.is_empty() => return false,
                Segment::Capture(name) => found(name, head),
                Segment::Literal(_) => {}
            }
            more = tail.is_some();
            rest = tail.unwrap_or("");
        }
        // Open: `/api/*` wants the slash after `api`, and `/*` takes everything.
        if self.open { self.segments.is_empty() || more } else { !more }
    }

    /// Greater is more specific: exact before open, then the number of segments, then literals
    /// before captures.
    pub(super) fn rank(&self) -> (bool, usize, usize) {
        let literals = self.segments.iter().filter(|s| matches!(s, Segment::Literal(_))).count();
        (!self.open, self.segments.len(), literals)
    }

    /// The same pattern with capture names taken out: two routes that differ only in those match
    /// the same requests.
    pub(super) fn shape(&self) -> String {
        let mut shape = String::new();
        for segment in &self.segments {
            shape.push('/');
            shape.push_str(match segment {
                Segment::Literal(literal) => literal,
                Segment::Capture(_) => "{}",
            });
        }
        if self.open { shape + "/*" } else { shape }
    }
}

fn segment(text: &str) -> Result<Segment, PatternError> {
    match text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        Some(name) => capture_name(name, "segment").map(Segment::Capture),
        None if text.contains(['{', '}']) => Err(PatternError::Capture("segment")),
        None if text.contains('*') => Err(PatternError::Star),
        None => Ok(Segment::Literal(text.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn path(pattern: &str, path: &str, expected: Option<&[(&str, &str)]>) {
        let parsed = PathPattern::parse(pattern).expect("a pattern");
        let mut found = Vec::new();
        let matched = parsed.matches(path, |name, value| found.push((name.to_string(), value.to_owned())));
        let got = matched.then(|| found.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<Vec<_>>());
        assert_eq!(got.as_deref(), expected, "{pattern} on {path}");
    }

    #[test]
    fn paths() {
        path("/", "/", Some(&[]));
        path("/", "/x", None);
        path("/*", "/", Some(&[]));
        path("/*", "/a/b", Some(&[]));
        path("/*", "*", None);
        path("/health", "/health", Some(&[]));
        path("/health", "/health/", None);
        path("/health", "/healthy", None);
        path("/api/*", "/api/", Some(&[]));
        path("/api/*", "/api/v1/x", Some(&[]));
        path("/api/*", "/api", None);
        path("/api/*", "/apix/y", None);
        path("/users/{id}", "/users/7", Some(&[("id", "7")]));
        path("/users/{id}", "/users/", None);
        path("/users/{id}", "/users/7/x", None);
        path("/users/{id}/*", "/users/7/x/y", Some(&[("id", "7")]));
        path("/a/b/", "/a/b/", Some(&[]));
        path("/a/b/", "/a/b", None);
    }

    #[test]
    fn bad_paths() {
        let parse = |text| PathPattern::parse(text).map(|_| ()).expect_err(text);
        assert_eq!(parse("api"), PatternError::NoSlash("api".to_owned()));
        assert_eq!(parse("/a/*/b"), PatternError::Star);
        assert_eq!(parse("/a*"), PatternError::Star);
        assert_eq!(parse("/a/x{id}"), PatternError::Capture("segment"));
        assert_eq!(parse("/a/{i d}"), PatternError::Capture("segment"));
    }

    #[test]
    fn hosts() {
        let parse = |text| HostPattern::parse(text);
        assert_eq!(parse("Example.COM."), Ok(HostPattern::Exact("example.com".into())));
        assert_eq!(parse("*.vm.example.com"), Ok(HostPattern::Below("vm.example.com".into())));
        assert_eq!(
            parse("{vmId}.vm.example.com"),
            Ok(HostPattern::Label { capture: "vmId".into(), suffix: "vm.example.com".into() })
        );
        assert_eq!(parse("[::1]"), Ok(HostPattern::Exact("[::1]".into())));
        for bad in ["", "a b", "a:80", "*", "a.*.b", "x{vm}.b", "a..b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse("{v m}.b"), Err(PatternError::Capture("label")));
    }
}
