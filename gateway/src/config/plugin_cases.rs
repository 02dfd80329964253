//! The cases of `vers-gateway plugin test`: what a plugin is asked, and what it should make of it.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, de::DeserializeOwned};
use toml::Spanned;

use super::{diagnostic::Diagnostic, plugin_config::PluginConfig, source::Source};

/// A file of cases.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PluginCases {
    /// The plugin's settings, in all cases that have none of their own.
    pub config: Option<PluginConfig>,
    /// The secrets that it is granted, with their values.
    pub secrets: BTreeMap<String, String>,
    /// The origins that it may send requests to.
    pub http: Vec<Spanned<String>>,
    /// The backends that it may send requests to.
    pub backends: Vec<String>,
    /// The id of the VM.
    pub vm_id: Option<String>,
    /// The cases.
    #[serde(rename = "case")]
    pub cases: Vec<Spanned<PluginCase>>,
}

/// A request, maybe an answer of the backend, and what should come of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginCase {
    /// What should hold.
    pub name: String,
    /// The plugin's settings in this case.
    pub config: Option<PluginConfig>,
    /// What is asked.
    #[serde(default)]
    pub request: CaseRequest,
    /// A connection of a TCP route, instead of a request.
    pub connection: Option<CaseConnection>,
    /// What the backend answers, where the plugin looks at answers.
    #[serde(default)]
    pub response: CaseResponse,
    /// What the plugin's own requests are answered with, in order.
    #[serde(default)]
    pub replies: Vec<CaseReply>,
    /// What should come of it.
    pub expect: CaseExpected,
}

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaseRequest {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The `Host` header.
    pub host: String,
    /// The other headers.
    pub headers: BTreeMap<String, CaseValues>,
    /// The body, in one piece or several, for plugins that ask for it or transform it.
    pub body: CaseValues,
    /// The client's address.
    pub client: IpAddr,
    /// The port that it connected to.
    pub port: u16,
    /// What the route's patterns captured.
    pub captures: BTreeMap<String, String>,
}

/// A connection of a TCP route.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaseConnection {
    /// The client's address.
    pub client: IpAddr,
    /// The port of it.
    pub client_port: u16,
    /// The port that it connected to.
    pub port: u16,
    /// The name in its TLS handshake.
    pub server_name: Option<String>,
    /// Whether TLS ends at the gateway.
    pub tls: bool,
    /// The certificate that it showed, as `x-forwarded-client-cert` has it.
    pub client_certificate: Option<String>,
    /// Whether a proxy told who it is.
    pub proxied: bool,
    /// What it sends first, and then no more.
    pub bytes: String,
    /// What the route's host captured.
    pub captures: BTreeMap<String, String>,
}

/// What the backend answers.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaseResponse {
    /// The body, in one piece or several, for plugins that transform it.
    pub body: CaseValues,
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: BTreeMap<String, CaseValues>,
}

/// What a request of the plugin is answered with.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaseReply {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: BTreeMap<String, CaseValues>,
    /// The body.
    pub body: String,
}

/// What should come of it; what is not said is not looked at.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseExpected {
    /// What the plugin decides about the request.
    pub verdict: Option<CaseVerdict>,
    /// The backend that a request goes to instead of its route's own.
    pub to: Option<String>,
    /// Why a connection is refused.
    pub reason: Option<String>,
    /// Whether a connection that is refused is reset.
    pub reset: Option<bool>,
    /// The request, as the next plugin or the backend sees it.
    #[serde(default)]
    pub request: ExpectedRequest,
    /// The answer, as the client sees it.
    #[serde(default)]
    pub response: ExpectedResponse,
    /// What the plugin has sent elsewhere: `POST https://…`.
    pub sent: Option<Vec<String>>,
}

/// What a plugin decides about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaseVerdict {
    /// It goes on.
    Next,
    /// It is answered.
    Respond,
    /// It goes on, to another backend.
    RouteTo,
    /// The connection is ended.
    Refuse,
    /// The call failed.
    Fault,
}

/// The request afterwards.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExpectedRequest {
    /// Path and query.
    pub path: Option<String>,
    /// The `Host` header.
    pub host: Option<String>,
    /// The whole body.
    pub body: Option<String>,
    /// Headers that it has with these values and no others, or, with `false`, does not have.
    pub headers: BTreeMap<String, ExpectedValues>,
}

/// The answer afterwards.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExpectedResponse {
    /// Status code.
    pub status: Option<u16>,
    /// As for requests.
    pub headers: BTreeMap<String, ExpectedValues>,
    /// The whole body, where a plugin answers or transforms it.
    pub body: Option<String>,
    /// Why a plugin answers.
    pub reason: Option<String>,
}

/// One value of a header, or several.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a text, or a list of texts")]
pub enum CaseValues {
    /// One.
    One(String),
    /// Several, in order.
    Several(Vec<String>),
}

/// What a header should be.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text, a list of texts, or false for a header that is not there")]
pub enum ExpectedValues {
    /// It has these values.
    Values(CaseValues),
    /// It is there, or not.
    IsThere(bool),
}

impl CaseValues {
    /// The values, in order.
    pub fn list(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Several(values) => values,
        }
    }
}

impl CaseValues {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.list().iter().all(String::is_empty)
    }
}

impl Default for CaseRequest {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            host: "test.example".to_owned(),
            headers: BTreeMap::new(),
            body: CaseValues::One(String::new()),
            client: IpAddr::from([192, 0, 2, 1]),
            port: 8080,
            captures: BTreeMap::new(),
        }
    }
}

impl Default for CaseConnection {
    fn default() -> Self {
        Self {
            client: IpAddr::from([192, 0, 2, 1]),
            client_port: 50_000,
            port: 8080,
            server_name: None,
            tls: false,
            client_certificate: None,
            proxied: false,
            bytes: String::new(),
            captures: BTreeMap::new(),
        }
    }
}

impl Default for CaseResponse {
    fn default() -> Self {
        Self { body: CaseValues::Several(Vec::new()), status: 200, headers: BTreeMap::new() }
    }
}

impl Default for CaseReply {
    fn default() -> Self {
        Self { status: 200, headers: BTreeMap::new(), body: String::new() }
    }
}

/// Reads a file of cases.
///
/// # Errors
/// Fails with what is wrong first, and where.
pub fn plugin_cases(source: &Source) -> Result<PluginCases, Box<Diagnostic>> {
    read(source)
}

/// Reads a file that is a plugin's `config` table.
///
/// # Errors
/// Fails with what is wrong first, and where.
pub fn plugin_table(source: &Source) -> Result<PluginConfig, Box<Diagnostic>> {
    read(source)
}

fn read<T: DeserializeOwned>(source: &Source) -> Result<T, Box<Diagnostic>> {
    toml::from_str(&source.text).map_err(|error| {
        let words = error.message().lines().next().unwrap_or_default();
        Box::new(Diagnostic::error(error.span().unwrap_or_default(), words).label("cannot be read"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_read_and_mistakes_have_their_place() {
        let text = "[[case]]\nname = \"a\"\nrequest = { headers = { a = \"1\", b = [\"2\", \"3\"] } }\n\
                    expect = { verdict = \"next\", request = { headers = { c = false } } }\n";
        let cases = plugin_cases(&Source::new("cases.toml", text)).expect("a case").cases;
        let case = cases.first().expect("a case").get_ref();
        let values: Vec<_> = case.request.headers.values().flat_map(CaseValues::list).collect();
        assert_eq!(values, ["1", "2", "3"]);
        assert_eq!(case.expect.verdict, Some(CaseVerdict::Next));
        for (bad, place) in [
            ("[[case]]\nname = \"a\"\nexpect = { verdikt = \"next\" }\n", "verdikt"),
            ("[[case]]\nname = \"a\"\nexpect = { verdict = \"maybe\" }\n", "\"maybe\""),
            ("config = 3\n", "3"),
        ] {
            let error = plugin_cases(&Source::new("cases.toml", bad)).expect_err("a mistake");
            assert_eq!(bad.get(error.span.clone()), Some(place), "{}", error.message);
        }
    }
}
