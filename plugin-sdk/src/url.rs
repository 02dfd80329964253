//! Where a service answers.

use crate::ParseError;
use serde::Deserialize;
use std::{fmt, str::FromStr};

/// What the URLs of a service begin with: scheme, host, maybe a port and a path.
///
/// It shows itself without a slash at the end, however it was written, so that the URL of a resource
/// is the two put together. It has no query, and no user name either: credentials would end up in
/// logs, and the gateway sends nothing to such a URL.
///
/// ```
/// use vers_plugin::{http, testing::MockHost, url::BaseUrl};
///
/// let registry: BaseUrl = "https://infra.example.com:3000/".parse()?;
/// assert_eq!(registry.host(), "infra.example.com");
///
/// let host = MockHost::new().reply(200, "");
/// http::get(&format!("{registry}/vms/a1")).send()?;
/// assert_eq!(host.sent()[0].url, "https://infra.example.com:3000/vms/a1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct BaseUrl(String);

impl BaseUrl {
    /// The host as written, without port; an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        host(self.0.split('/').nth(2).unwrap_or_default())
    }

    /// The text itself, without a slash at the end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// # Errors
/// Where the scheme is neither `http` nor `https`, where there is no host, or where there is a user
/// name, a query, a fragment or a space.
impl FromStr for BaseUrl {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let authority = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
        if host(authority).is_empty() || authority.contains('@') || text.contains(['?', '#', ' ']) {
            return Err(ParseError::new("expected a URL such as \"https://infra.vm.example.com:3000\""));
        }
        Ok(Self(text.trim_end_matches('/').into()))
    }
}

impl TryFrom<String> for BaseUrl {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

fn host(authority: &str) -> &str {
    let host = match authority.strip_prefix('[') {
        Some(address) => address.split(']').next(),
        None => authority.split(':').next(),
    };
    host.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_read_and_slashes_at_the_end_are_none() {
        let check = |text: &str, shown: &str, host: &str| {
            let url: BaseUrl = text.parse().expect(text);
            assert_eq!((url.as_str(), url.host()), (shown, host), "{text}");
            assert_eq!(url.to_string(), shown);
        };
        check("http://localhost", "http://localhost", "localhost");
        check("https://a.example.com:3000/", "https://a.example.com:3000", "a.example.com");
        check("http://a.example.com/base//", "http://a.example.com/base", "a.example.com");
        check("http://127.0.0.1:80", "http://127.0.0.1:80", "127.0.0.1");
        check("http://[2001:db8::1]:80/v1", "http://[2001:db8::1]:80/v1", "2001:db8::1");
        check("http://[::1]", "http://[::1]", "::1");
    }

    #[test]
    fn what_is_no_base_url() {
        for text in [
            "",
            "infra:3000",
            "//infra",
            "ftp://infra",
            "http:/infra",
            "http://",
            "http:///x",
            "http://:80",
            "http://[]:80",
            "https://a?b",
            "https://a/#b",
            "https://a b",
            "https://user:password@a",
        ] {
            let error = text.parse::<BaseUrl>().expect_err(text);
            assert!(error.to_string().starts_with("expected a URL such as"), "{text}: {error}");
        }
    }
}
