//! Serving HTTP on loopback: what the demo's application and its registry share.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited, combinators::BoxBody};
use hyper::{
    Request, Response, body::Incoming, header::CONTENT_TYPE, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;

pub(crate) type Reply = Response<BoxBody<Bytes, Infallible>>;

/// Answers requests with `answer` until the runtime ends.
pub(crate) async fn serve<A, F>(listener: TcpListener, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let reply = answer(request);
                async move { Ok::<_, Infallible>(reply.await) }
            });
            // A client that goes away is its own affair.
            let _ =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
    }
}

/// The body of a request, up to 1 MiB.
pub(crate) async fn body(request: Request<Incoming>) -> Option<Bytes> {
    Some(Limited::new(request.into_body(), 1 << 20).collect().await.ok()?.to_bytes())
}

pub(crate) fn json(status: u16, value: &Value) -> Reply {
    reply(status, "application/json", value.to_string())
}

pub(crate) fn reply(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()).boxed());
    *reply.status_mut() = status.try_into().unwrap_or_default();
    reply.headers_mut().insert(CONTENT_TYPE, content_type.parse().expect("a constant of this program"));
    reply
}
