//! One request to a registry.

use super::super::{chain, trust::Trust};
use crate::tls::Connector;
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use std::time::Duration;

/// For a connection.
const CONNECTING: Duration = Duration::from_secs(10);

/// For a whole request: a question for changes waits for 25 s.
const DEADLINE: Duration = Duration::from_secs(60);

/// Twenty thousand entries of the largest kind are more; nobody has those.
const MOST_BYTES: usize = 256 * 1024 * 1024;

/// A registry, and the token for it.
pub(super) struct Place {
    base: String,
    token: Option<String>,
    /// The variable that has it.
    token_env: String,
    client: Client<Connector, Full<Bytes>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("{0}")]
    Message(String),
    /// Changes are asked for that are not known any more.
    #[error("changes up to {0} are not known any more")]
    Behind(u64),
}

impl Place {
    /// With the token in a variable of the environment, where that has one.
    pub(super) fn new(url: &str, token_env: &str, trust: &Trust) -> Result<Self, String> {
        let base = url.trim_end_matches('/');
        let is_url = base.parse::<Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some());
        if !is_url {
            return Err(format!("`{url}` is not a URL such as https://infra.vm.example.com:3000"));
        }
        let client = Client::builder(TokioExecutor::new()).build(trust.roots()?.connector(CONNECTING));
        let token = std::env::var(token_env).ok().filter(|token| !token.is_empty());
        Ok(Self { base: base.to_owned(), token, token_env: token_env.to_owned(), client })
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, Failed> {
        self.send(Method::GET, path, Bytes::new()).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failed> {
        self.send(Method::POST, path, body.to_string().into()).await
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Value, Failed> {
        let sending = tokio::time::timeout(DEADLINE, self.try_send(method, path, body)).await;
        sending.unwrap_or_else(|_| Err(Failed::Message(format!("no answer within {DEADLINE:?}"))))
    }

    async fn try_send(&self, method: Method, path: &str, body: Bytes) -> Result<Value, Failed> {
        let failed = |error: &dyn std::error::Error| Failed::Message(chain(error));
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body)).map_err(|error| failed(&error))?;
        let answer = self.client.request(request).await.map_err(|error| Failed::Message(in_words(&error)))?;
        let status = answer.status();
        let of_gateway = answer.headers().get("x-gateway-error").and_then(|code| code.to_str().ok());
        let of_gateway = of_gateway.map(|code| format!(" ({code})")).unwrap_or_default();
        let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
        let body = body.map_err(|error| failed(&*error))?.to_bytes();
        let value = serde_json::from_slice::<Value>(&body);
        if status.is_success() {
            return value.map_err(|error| Failed::Message(format!("no registry answers there: {error}")));
        }
        let value = value.unwrap_or_default();
        if status == StatusCode::GONE
            && let Some(revision) = value.get("revision").and_then(Value::as_u64)
        {
            return Err(Failed::Behind(revision));
        }
        Err(Failed::Message(match value.get("error").and_then(Value::as_str) {
            _ if status == StatusCode::UNAUTHORIZED && self.token.is_some() => {
                format!("{status}: the token in {} is not one of this registry", self.token_env)
            }
            _ if status == StatusCode::UNAUTHORIZED => {
                format!("{status}: it asks for a token, and {} has none", self.token_env)
            }
            Some(why) => format!("{status}: {why}"),
            None => format!("{status}: no registry answers there{of_gateway}"),
        }))
    }
}

/// Why there is no connection, and what may help.
fn in_words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if kind == Some(std::io::ErrorKind::ConnectionRefused) {
            return "nobody listens there: connection refused".to_owned();
        }
        cause = error.source();
    }
    let text = chain(error);
    if text.contains("InvalidContentType") {
        return format!("what listens there speaks no TLS: is it http:// and not https://? {text}");
    }
    text
}
