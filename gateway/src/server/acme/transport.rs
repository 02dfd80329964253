//! Requests to authorities.

use crate::{
    acme::{Answering, Transport},
    tls::{Connector, Roots},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use std::{error::Error, time::Duration};
use tokio::time::timeout;

const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_secs(60);
const KEEP_FOR: Duration = Duration::from_secs(30);
const ANSWER_LIMIT: usize = 1024 * 1024;

/// Sends requests to one authority.
pub(super) struct Requests(Client<Connector, Full<Bytes>>);

impl Requests {
    pub(super) fn new(roots: &Roots) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEEP_FOR)
            .build(roots.connector(CONNECT_DEADLINE));
        Self(client)
    }
}

impl Transport for Requests {
    fn send(&self, request: http::Request<Bytes>) -> Answering {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let sent = self.0.request(request.map(Full::new));
        let answering = async move {
            let answer = sent.await.map_err(|error| format!("{host}: {}", in_words(&error)))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_LIMIT).collect().await;
            let body = body.map_err(|error| format!("{host}: {}", in_words(&*error)))?;
            Ok(http::Response::from_parts(head, body.to_bytes()))
        };
        Box::pin(async move {
            match timeout(DEADLINE, answering).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("no answer within {DEADLINE:?}")),
            }
        })
    }
}

/// An error with all of its causes.
fn in_words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words.push_str(": ");
        words.push_str(&cause.to_string());
        source = cause.source();
    }
    words
}
