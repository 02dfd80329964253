//! Requests that a component sends: only to where it is granted, by the client that sends plugins' requests.

use super::{
    super::{BodyError, FetchError, Services},
    Handler,
};
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

/// Bytes that a guest writes at a time: of an answer, two of these are on their way at most.
const PIECE: usize = 64 * 1024;

/// How long the head of an answer may take where the component does not say; what it answers itself is bounded by
/// its route.
const PATIENCE: Duration = Duration::from_secs(600);

/// What a component may send.
pub(super) struct Outgoing {
    handler: Arc<Handler>,
    services: Arc<dyn Services>,
}

/// What is to be done so that an answer goes on: nothing here, the client does.
type Rest = Box<dyn Future<Output = Result<(), Error>> + Send>;

type Answering = Box<dyn Future<Output = Result<(Response<WasiBody>, Rest), Error>> + Send>;

impl Outgoing {
    pub(super) fn new(handler: &Arc<Handler>, services: &Arc<dyn Services>) -> Self {
        Self { handler: Arc::clone(handler), services: Arc::clone(services) }
    }

    fn is_granted(&self, request: &Request<WasiBody>) -> bool {
        // A tunnel leads to anywhere.
        *request.method() != Method::CONNECT
            && self.handler.grants.http.iter().any(|origin| origin.covers(request.uri()))
    }
}

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Answering {
        if !self.is_granted(&request) {
            let (origin, uri) = (&*self.handler.name, request.uri());
            tracing::debug!(origin, %uri, "a component's request was refused: it is not granted");
            return Box::new(std::future::ready(Err(Error::HttpRequestDenied)));
        }
        let patience = options.and_then(|options| options.first_byte_timeout).unwrap_or(PATIENCE);
        let sent =
            request.map(|body| body.map_err(|error| BodyError::from(error.to_string())).boxed_unsync());
        let sending = self.services.send(sent);
        Box::new(async move {
            let answered = timeout(patience, sending).await.map_err(|_| Error::ConnectionReadTimeout)?;
            let response = answered.map_err(|error| told(&error))?;
            let broken = |error: BodyError| Error::InternalError(Some(error.to_string()));
            let rest: Rest = Box::new(std::future::ready(Ok(())));
            Ok((response.map(|body| body.map_err(broken).boxed_unsync()), rest))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        PIECE
    }
}

/// What a component is told of why there is no answer.
fn told(error: &FetchError) -> Error {
    match error {
        FetchError::Connect(_) => Error::ConnectionRefused,
        FetchError::TooLarge => Error::HttpResponseBodySize(None),
        FetchError::Protocol(_) => Error::HttpProtocolError,
    }
}
