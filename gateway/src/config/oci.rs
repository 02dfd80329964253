//! `oci://HOST/NAME@sha256:…`: a component in a registry of container images.

use std::{fmt, str::FromStr};

/// What stands in front of such a reference.
pub(super) const SCHEME: &str = "oci://";

/// A component in a registry: by its digest, or by a tag that somebody may move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciReference {
    /// `HOST` or `HOST:PORT`.
    pub host: String,
    /// `team/plugin`.
    pub name: String,
    /// The tag, where one is named.
    pub tag: Option<String>,
    /// SHA-256 of the manifest, in hexadecimal, where it is pinned.
    pub digest: Option<String>,
}

/// Why a text is no such reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OciReferenceError(&'static str);

impl OciReference {
    /// Whether a text wants to be one.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// The same, pinned to this digest.
    #[must_use]
    pub fn pinned(&self, digest: &str) -> Self {
        Self { tag: None, digest: Some(digest.to_owned()), ..self.clone() }
    }

    /// What a registry knows the manifest by.
    pub fn by(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("sha256:{digest}"),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
}

impl FromStr for OciReference {
    type Err = OciReferenceError;

    fn from_str(text: &str) -> Result<Self, OciReferenceError> {
        let shape = OciReferenceError("expected `oci://HOST/NAME@sha256:…`, or a tag: `oci://HOST/NAME:TAG`");
        let rest = text.strip_prefix(SCHEME).ok_or(shape.clone())?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
            None => (rest, None),
        };
        let (host, path) = rest.split_once('/').ok_or(shape.clone())?;
        let (name, tag) = match path.rsplit_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (path, None),
        };
        let is_of = |bytes: &str, more: &[u8]| {
            !bytes.is_empty()
                && bytes.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
        };
        // As the distribution specification has names: no part of a path is empty, or leads elsewhere.
        let is_name = name.split('/').all(|part| {
            part.starts_with(|first: char| first.is_ascii_alphanumeric())
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte))
        });
        let is_tag = tag.is_none_or(|tag| tag.len() <= 128 && is_of(tag, b"._-"));
        if !is_of(host, b".-:[]") || !is_name || !is_tag {
            return Err(shape);
        }
        Ok(Self { host: host.to_owned(), name: name.to_owned(), tag: tag.map(str::to_owned), digest })
    }
}

/// The hexadecimal digits of `sha256:…`.
pub fn sha256_digest(text: &str) -> Option<&str> {
    text.strip_prefix("sha256:").filter(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

fn parse_digest(text: &str) -> Result<String, OciReferenceError> {
    sha256_digest(text)
        .map(str::to_owned)
        .ok_or(OciReferenceError("expected `@sha256:` and 64 hexadecimal digits in lower case"))
}

impl fmt::Display for OciReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.host, self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@sha256:{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let digest = "0123456789abcdef".repeat(4);
        for (text, host, name, by) in [
            ("oci://ghcr.io/team/auth:1.2".to_owned(), "ghcr.io", "team/auth", "1.2".to_owned()),
            ("oci://localhost:5000/auth".to_owned(), "localhost:5000", "auth", "latest".to_owned()),
            ("oci://[::1]:5000/a/b/c".to_owned(), "[::1]:5000", "a/b/c", "latest".to_owned()),
            (format!("oci://r/a:1@sha256:{digest}"), "r", "a", format!("sha256:{digest}")),
            (format!("oci://r/a@sha256:{digest}"), "r", "a", format!("sha256:{digest}")),
        ] {
            let reference: OciReference = text.parse().expect(&text);
            assert_eq!((reference.host.as_str(), reference.name.as_str()), (host, name), "{text}");
            assert_eq!((reference.by(), reference.to_string()), (by, text));
        }
        for text in [
            "a.wasm",
            "oci://",
            "oci://host",
            "oci://host/",
            "oci:///name",
            "oci://host/../name",
            "oci://host/a//b",
            "oci://host/Name",
            "oci://host/a?b",
            "oci://ho st/a",
            "oci://host/a:",
            "oci://host/a@sha256:12",
            "oci://host/a@md5:12",
        ] {
            assert!(text.parse::<OciReference>().is_err(), "{text}");
        }
    }
}
