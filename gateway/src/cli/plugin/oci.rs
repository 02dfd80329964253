//! What is asked of a registry of container images (OCI distribution specification): a manifest and a blob, and a
//! token where it wants one.

use super::{
    super::chain,
    login::{Challenge, Logins},
};
use crate::{
    config::OciReference,
    snapshot::Layer,
    tls::{Connector, Roots},
};
use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::time::Duration;
use url::{Host, Url};

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
    /// What is asked of it is below this.
    base: Url,
    by: String,
    client: Client<Connector, Empty<Bytes>>,
    /// `name:password`, where the environment has them for this registry.
    login: Option<String>,
    /// What the registry lets in.
    authorization: Option<String>,
}

/// An answer, and who has given it.
struct Answered {
    by: Url,
    answer: Response<Incoming>,
}

impl Registry {
    pub(super) fn new(reference: &OciReference, logins: &Logins, roots: &Roots) -> Result<Self, String> {
        let at = |scheme: &str| Url::parse(&format!("{scheme}://{}/v2/{}/", reference.host, reference.name));
        let no_host = |_| "no registry has such a name".to_owned();
        let base = at("https").map_err(no_host)?;
        let base = if is_here(&base) { at("http").map_err(no_host)? } else { base };
        let login = logins.of(&reference.host).map(str::to_owned);
        let client = Client::builder(TokioExecutor::new()).build(roots.connector(CONNECTING));
        Ok(Self { base, by: reference.by(), client, login, authorization: None })
    }

    /// The bytes of the manifest.
    pub(super) async fn manifest(&mut self) -> Result<Bytes, String> {
        self.get(&format!("manifests/{}", self.by), Some(ACCEPT), MANIFEST).await
    }

    /// The bytes of a component.
    pub(super) async fn blob(&mut self, layer: &Layer) -> Result<Bytes, String> {
        let size = usize::try_from(layer.size).ok().filter(|_| layer.size <= COMPONENT);
        let size = size.ok_or_else(|| format!("the component has {} bytes", layer.size))?;
        self.get(&format!("blobs/sha256:{}", layer.digest), None, size).await
    }

    async fn get(&mut self, what: &str, accept: Option<&str>, most: usize) -> Result<Bytes, String> {
        // Never by `join`: what has a colon in it could be taken for a URL of its own.
        let url = Url::parse(&format!("{}{what}", self.base)).map_err(|error| error.to_string())?;
        let getting = tokio::time::timeout(DEADLINE, self.try_get(&url, accept, most)).await;
        getting.unwrap_or_else(|_| Err(format!("no answer within {DEADLINE:?}")))
    }

    async fn try_get(&mut self, url: &Url, accept: Option<&str>, most: usize) -> Result<Bytes, String> {
        let mut answered = self.follow(url, accept).await?;
        // Nobody else may ask for what lets in.
        let is_its = answered.by.origin() == self.base.origin();
        if answered.answer.status() == StatusCode::UNAUTHORIZED && is_its && self.authorization.is_none() {
            self.authorization = Some(self.log_in(answered.answer.headers()).await?);
            answered = self.follow(url, accept).await?;
        }
        let Answered { by, answer } = answered;
        match answer.status() {
            StatusCode::OK => body(answer, most).await,
            StatusCode::NOT_FOUND => Err("the registry does not have it".to_owned()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if by.origin() != self.base.origin() => {
                Err(format!("{}, where the registry leads, does not let it out", origin(&by)))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(format!("the registry does not let it out; {}", self.how_to_log_in()))
            }
            status => Err(format!("the registry answers {status}")),
        }
    }

    fn how_to_log_in(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        let port = self.base.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("VERS_OCI_LOGIN={host}{port}=NAME:PASSWORD logs in")
    }

    /// Asks, and follows to where the registry keeps it: without what lets in, at anybody else's.
    async fn follow(&self, url: &Url, accept: Option<&str>) -> Result<Answered, String> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTIONS {
            let is_its = url.origin() == self.base.origin() && url.path().starts_with(self.base.path());
            let own = self.authorization.as_deref().filter(|_| is_its);
            let answer = self.ask(&url, accept, own).await?;
            if !answer.status().is_redirection() {
                return Ok(Answered { by: url, answer });
            }
            let to = answer.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
            let to = to.and_then(|to| url.join(to).ok());
            url = to.ok_or("the registry leads elsewhere, and does not say where")?;
            if !self.may_be_asked(&url) {
                return Err(format!(
                    "the registry leads to {}, where everybody could read along",
                    origin(&url)
                ));
            }
        }
        Err("the registry leads in a circle".to_owned())
    }

    /// Without TLS only what is on this machine, as the registry itself is then.
    fn may_be_asked(&self, url: &Url) -> bool {
        url.scheme() == "https" || (url.scheme() == "http" && self.base.scheme() == "http" && is_here(url))
    }

    async fn ask(
        &self,
        url: &Url,
        accept: Option<&str>,
        authorization: Option<&str>,
    ) -> Result<Response<Incoming>, String> {
        let mut request = Request::get(url.as_str());
        if let Some(accept) = accept {
            request = request.header(header::ACCEPT, accept);
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::new()).map_err(|error| format!("{}: {error}", origin(url)))?;
        self.client.request(request).await.map_err(|error| format!("{}: {}", origin(url), chain(&error)))
    }

    /// What lets in, by the registry's challenge: a token of its, or name and password.
    async fn log_in(&self, headers: &HeaderMap) -> Result<String, String> {
        let basic = self.login.as_ref().map(|login| format!("Basic {}", BASE64.encode(login.as_bytes())));
        let lines = headers.get_all(header::WWW_AUTHENTICATE);
        let challenges = lines.iter().filter_map(|line| line.to_str().ok()).flat_map(Challenge::all);
        let Some(bearer) = challenges.into_iter().find(|challenge| challenge.is_of("Bearer")) else {
            return basic.ok_or_else(|| format!("the registry wants a login: {}", self.how_to_log_in()));
        };
        let realm = bearer.parameter("realm").and_then(|realm| Url::parse(realm).ok());
        let mut realm = realm.ok_or("the registry does not say where tokens are")?;
        if !self.may_be_asked(&realm) {
            return Err(format!(
                "the registry has tokens at {}, where everybody could read along",
                origin(&realm)
            ));
        }
        for name in ["service", "scope"] {
            if let Some(value) = bearer.parameter(name) {
                realm.query_pairs_mut().append_pair(name, value);
            }
        }
        let answer = self.ask(&realm, None, basic.as_deref()).await?;
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

/// Whether it is on this machine, where TLS would protect nothing.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// What may be told of a URL: there may be a signature in the rest.
fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let url = Url::parse(&format!("https://{host}/v2/")).expect(host);
            assert_eq!(is_here(&url), here, "{host}");
        }
    }
}
