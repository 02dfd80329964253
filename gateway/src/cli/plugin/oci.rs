//! What is asked of a registry of container images (OCI distribution specification): a manifest and a blob, and a
//! token where it wants one.

use super::super::chain;
use crate::{
    config::OciReference,
    snapshot::Layer,
    tls::{Connector, Roots},
};
use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::{net::IpAddr, time::Duration};

/// For a connection.
const CONNECTING: Duration = Duration::from_secs(10);

/// For an answer as a whole.
const DEADLINE: Duration = Duration::from_secs(120);

/// Bytes of a manifest: the specification's least that a registry must take.
const MANIFEST: usize = 4 * 1024 * 1024;

/// Bytes of a component.
const COMPONENT: u64 = 256 * 1024 * 1024;

/// Redirections that are followed: registries keep their blobs elsewhere.
const REDIRECTIONS: usize = 5;

const ACCEPT: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// One component's place in a registry.
pub(super) struct Registry {
    base: String,
    by: String,
    client: Client<Connector, Empty<Bytes>>,
    /// `name:password`, where the environment has them.
    login: Option<String>,
    /// What the registry lets in.
    authorization: Option<String>,
}

impl Registry {
    pub(super) fn new(reference: &OciReference, roots: &Roots) -> Result<Self, String> {
        let scheme = if is_here(&reference.host) { "http" } else { "https" };
        let base = format!("{scheme}://{}/v2/{}", reference.host, reference.name);
        base.parse::<Uri>().map_err(|_| "no registry has such a name".to_owned())?;
        let login = std::env::var("VERS_OCI_LOGIN").ok().filter(|login| !login.is_empty());
        let client = Client::builder(TokioExecutor::new()).build(roots.connector(CONNECTING));
        Ok(Self { base, by: reference.by(), client, login, authorization: None })
    }

    /// The bytes of the manifest.
    pub(super) async fn manifest(&mut self) -> Result<Bytes, String> {
        let url = format!("{}/manifests/{}", self.base, self.by);
        self.get(&url, Some(ACCEPT), MANIFEST).await
    }

    /// The bytes of a component.
    pub(super) async fn blob(&mut self, layer: &Layer) -> Result<Bytes, String> {
        let size = usize::try_from(layer.size).ok().filter(|_| layer.size <= COMPONENT);
        let size = size.ok_or_else(|| format!("the component has {} bytes", layer.size))?;
        let url = format!("{}/blobs/sha256:{}", self.base, layer.digest);
        self.get(&url, None, size).await
    }

    async fn get(&mut self, url: &str, accept: Option<&str>, most: usize) -> Result<Bytes, String> {
        let getting = tokio::time::timeout(DEADLINE, self.try_get(url, accept, most)).await;
        getting.unwrap_or_else(|_| Err(format!("no answer within {DEADLINE:?}")))
    }

    async fn try_get(&mut self, url: &str, accept: Option<&str>, most: usize) -> Result<Bytes, String> {
        let mut answer = self.follow(url, accept).await?;
        if answer.status() == StatusCode::UNAUTHORIZED && self.authorization.is_none() {
            let challenge = answer.headers().get(header::WWW_AUTHENTICATE).cloned();
            self.authorization = Some(self.log_in(challenge.as_ref()).await?);
            answer = self.follow(url, accept).await?;
        }
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err("the registry does not have it".to_owned()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(
                    "the registry does not let it out; VERS_OCI_LOGIN=NAME:PASSWORD logs in".to_owned()
                );
            }
            status => return Err(format!("the registry answers {status}")),
        }
        body(answer, most).await
    }

    /// Asks, and follows to where the registry keeps it: without what lets in, at anybody else's.
    async fn follow(&self, url: &str, accept: Option<&str>) -> Result<Response<Incoming>, String> {
        let mut url = url.to_owned();
        for _ in 0..=REDIRECTIONS {
            let own = url.starts_with(&self.base).then_some(self.authorization.as_deref()).flatten();
            let answer = self.ask(&url, accept, own).await?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            let to = answer.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
            let to = to.ok_or("the registry leads elsewhere, and does not say where")?;
            url = if to.starts_with('/') { format!("{}{to}", origin(&url)) } else { to.to_owned() };
            let is_secret = url.starts_with("https://") || self.base.starts_with("http://");
            if !is_secret {
                return Err(format!("the registry leads to {url}, where everybody could read along"));
            }
        }
        Err("the registry leads in a circle".to_owned())
    }

    async fn ask(
        &self,
        url: &str,
        accept: Option<&str>,
        authorization: Option<&str>,
    ) -> Result<Response<Incoming>, String> {
        let mut request = Request::get(url);
        if let Some(accept) = accept {
            request = request.header(header::ACCEPT, accept);
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::new()).map_err(|error| format!("{url}: {error}"))?;
        self.client.request(request).await.map_err(|error| format!("{}: {}", origin(url), chain(&error)))
    }

    /// What lets in, by the registry's challenge: a token of its, or name and password.
    async fn log_in(&self, challenge: Option<&HeaderValue>) -> Result<String, String> {
        let challenge = challenge.and_then(|challenge| challenge.to_str().ok()).unwrap_or_default();
        let basic = self.login.as_ref().map(|login| format!("Basic {}", BASE64.encode(login.as_bytes())));
        let Some(bearer) = challenge.strip_prefix("Bearer ") else {
            return basic
                .ok_or_else(|| "the registry wants a login: VERS_OCI_LOGIN=NAME:PASSWORD".to_owned());
        };
        let realm = parameter(bearer, "realm").ok_or("the registry does not say where tokens are")?;
        let is_private = realm.starts_with("https://") || self.base.starts_with("http://");
        if !is_private {
            return Err(format!("the registry has tokens at {realm}, where everybody could read along"));
        }
        let mut query = form_urlencoded(&[
            ("service", parameter(bearer, "service")),
            ("scope", parameter(bearer, "scope")),
        ]);
        if !query.is_empty() {
            query.insert(0, if realm.contains('?') { '&' } else { '?' });
        }
        let answer = self.ask(&format!("{realm}{query}"), None, basic.as_deref()).await?;
        if answer.status() != StatusCode::OK {
            return Err(format!("the registry gives no token: {}", answer.status()));
        }
        let body = body(answer, MANIFEST).await?;
        let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let token = said.get("token").or_else(|| said.get("access_token")).and_then(|token| token.as_str());
        token.map(|token| format!("Bearer {token}")).ok_or_else(|| "the registry gives no token".to_owned())
    }
}

async fn body(answer: Response<Incoming>, most: usize) -> Result<Bytes, String> {
    let body = Limited::new(answer.into_body(), most).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| format!("the answer breaks off: {error}"))
}

/// Whether a registry is on this machine, where TLS would protect nothing.
fn is_here(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// `https://host:port` of a URL.
fn origin(url: &str) -> &str {
    let from = url.find("://").map_or(0, |at| at + 3);
    let rest = url.get(from..).unwrap_or_default();
    let length = rest.find(['/', '?']).unwrap_or(rest.len());
    url.get(..from + length).unwrap_or(url)
}

/// The value of a parameter of a challenge (RFC 9110 §11.2), in quotes.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let mut rest = challenge;
    while let Some((key, after)) = rest.split_once("=\"") {
        let (value, next) = after.split_once('"')?;
        if key.trim_start_matches([',', ' ']).eq_ignore_ascii_case(name) {
            return Some(value.to_owned());
        }
        rest = next;
    }
    None
}

/// `a=b&c=d` of those that are there.
fn form_urlencoded(pairs: &[(&str, Option<String>)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        let Some(value) = value else { continue };
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(byte.into()),
                _ => text.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_and_answered() {
        let challenge = r#"realm="https://auth.example.com/token",service="r.example.com",scope="repository:team/auth:pull""#;
        assert_eq!(parameter(challenge, "realm").as_deref(), Some("https://auth.example.com/token"));
        let scope = parameter(challenge, "scope");
        assert_eq!(scope.as_deref(), Some("repository:team/auth:pull"));
        assert_eq!(parameter(challenge, "error"), None);
        assert_eq!(
            form_urlencoded(&[("service", None), ("scope", scope)]),
            "scope=repository%3Ateam%2Fauth%3Apull"
        );
    }

    #[test]
    fn only_what_is_here_goes_without_tls() {
        for (host, here) in [
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("ghcr.io", false),
            ("localhost.example.com", false),
            ("192.0.2.1:5000", false),
        ] {
            assert_eq!(is_here(host), here, "{host}");
        }
        assert_eq!(origin("https://a.example.com:1/x/y?z"), "https://a.example.com:1");
    }
}
