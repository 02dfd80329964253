//! Requests to an authority: who carries them is somebody else.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use std::{pin::Pin, sync::Arc};

/// What becomes of a request: its answer, or in words why there is none.
pub type Answering = Pin<Box<dyn Future<Output = Result<Response<Bytes>, String>> + Send>>;

/// Sends requests. Each has a deadline and its answer a limit.
pub trait Transport: Send + Sync + 'static {
    /// Sends one.
    fn send(&self, request: Request<Bytes>) -> Answering;
}

/// As the library wants it.
pub(super) struct Carried(pub(super) Arc<dyn Transport>);

impl HttpClient for Carried {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let transport = Arc::clone(&self.0);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            // A body that is in memory cannot fail.
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let answer = transport.send(Request::from_parts(head, body)).await;
            answer
                .map(|answer| BytesResponse::from(answer.map(Full::new)))
                .map_err(|error| Error::Other(error.into()))
        })
    }
}
