//! What a plugin may be granted: places to send requests to, and secrets.

use http::Uri;
use std::{fmt, str::FromStr};

/// Where HTTP requests may go: scheme, host and port (RFC 6454 §4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    https: bool,
    host: String,
    port: u16,
}

/// Not an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an origin; write `http://host:port` or `https://host`")]
pub struct OriginError;

impl Origin {
    /// Whether a request to this address may be sent.
    pub(super) fn covers(&self, uri: &Uri) -> bool {
        Self::of(uri).is_some_and(|origin| origin == *self)
    }

    fn of(uri: &Uri) -> Option<Self> {
        let https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        // `user@host` reads as one host to people and as another to machines.
        if authority.as_str().contains('@') {
            return None;
        }
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        Some(Self { https, host: authority.host().to_ascii_lowercase(), port })
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let uri: Uri = text.parse().map_err(|_| OriginError)?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        Self::of(&uri).filter(|_| bare).ok_or(OriginError)
    }
}

/// The value of a secret; it shows itself to nobody who does not ask by name.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Option<String>);

impl Secret {
    /// A secret that may have no value; an empty one is none.
    pub fn new(value: Option<String>) -> Self {
        Self(value.filter(|value| !value.is_empty()))
    }

    /// The value itself.
    pub fn reveal(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "***" } else { "unset" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(grant: &str, url: &str, expected: bool) {
        let origin: Origin = grant.parse().expect("an origin");
        assert_eq!(origin.covers(&url.parse().expect("a URL")), expected, "{grant} covers {url}");
    }

    #[test]
    fn origins() {
        check("https://a.example", "https://a.example/x?y", true);
        check("https://a.example", "https://A.example:443/x", true);
        check("https://a.example", "http://a.example/x", false);
        check("https://a.example", "https://a.example:8443/", false);
        check("https://a.example", "https://a.example.evil/", false);
        check("https://a.example", "https://a.example@evil/", false);
        check("https://a.example", "https://evil@a.example/", false);
        check("http://[::1]:80/", "http://[::1]/", true);
        for bad in ["a.example", "ftp://a", "https://a/path", "https://u@a", ""] {
            assert_eq!(bad.parse::<Origin>(), Err(OriginError), "{bad}");
        }
    }

    #[test]
    fn a_secret_does_not_print() {
        let secret = Secret::new(Some("hunter2".to_owned()));
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(Secret::new(Some(String::new())).reveal(), None, "an empty secret is none");
    }
}
