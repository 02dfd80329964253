//! What plugins, and components that answer, may ask of the rest of the gateway: HTTP requests to elsewhere.

use crate::{
    plugins::{Body, FetchError, Fetching, Sending, Services},
    tls,
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::{Client, Error},
    rt::{TokioExecutor, TokioTimer},
};
use std::time::Duration;

/// Bytes of an answer's body; `wit/host.wit` promises them.
const ANSWER_LIMIT: usize = 1024 * 1024;
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const KEEP_FOR: Duration = Duration::from_secs(30);

/// Sends plugins' requests, over connections that it keeps. Each thread has its own.
#[derive(Debug, Clone)]
pub struct Outbound(Client<tls::Connector, Body>);

impl Default for Outbound {
    /// No connections yet.
    fn default() -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEEP_FOR)
            .build(tls::connector(CONNECT_DEADLINE));
        Self(client)
    }
}

impl Services for Outbound {
    fn fetch(&self, request: http::Request<Bytes>) -> Fetching {
        let sent = self
            .0
            .request(request.map(|body| Full::new(body).map_err(|never| match never {}).boxed_unsync()));
        Box::pin(async move {
            let (head, body) = sent.await.map_err(|error| failed(&error))?.into_parts();
            let body = Limited::new(body, ANSWER_LIMIT).collect().await.map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() {
                    FetchError::TooLarge
                } else {
                    FetchError::Protocol(error.to_string())
                }
            })?;
            Ok(http::Response::from_parts(head, body.to_bytes()))
        })
    }

    fn send(&self, request: http::Request<Body>) -> Sending {
        let sent = self.0.request(request);
        Box::pin(async move {
            let response = sent.await.map_err(|error| failed(&error))?;
            Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
        })
    }
}

fn failed(error: &Error) -> FetchError {
    // The causes say what happened; the error itself only that something did.
    let mut causes = vec![error.to_string()];
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    let text = causes.join(": ");
    if error.is_connect() { FetchError::Connect(text) } else { FetchError::Protocol(text) }
}
