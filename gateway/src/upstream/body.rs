//! Bodies on their way through: the client's to the backend, the backend's to the client.

use super::pool::Lease;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

/// A request's body: the client's, as it comes, or none.
#[derive(Debug)]
pub struct RequestBody(Option<Incoming>);

impl RequestBody {
    /// The client's body.
    pub fn new(incoming: Incoming) -> Self {
        Self((!incoming.is_end_stream()).then_some(incoming))
    }

    /// Whether its end is only marked in the stream itself (RFC 9112 §7.1).
    pub fn is_chunked(&self) -> bool {
        self.0.as_ref().is_some_and(|body| body.size_hint().exact().is_none())
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

/// An answer's body. It carries the connection that it comes from: reading the body drives the
/// connection, and the end of the body gives the connection back to its pool. Dropped before its
/// end, it takes the connection with it, because what is left on that connection is unknown.
#[derive(Debug)]
pub struct ResponseBody {
    incoming: Incoming,
    lease: Option<Lease>,
}

impl ResponseBody {
    pub(super) fn new(incoming: Incoming, lease: Lease, cx: &mut Context<'_>) -> Self {
        let mut body = Self { incoming, lease: Some(lease) };
        if body.incoming.is_end_stream() {
            body.release(cx);
        }
        body
    }

    /// The body has ended: the connection is used again, if both sides want it.
    fn release(&mut self, cx: &mut Context<'_>) {
        if let Some(lease) = self.lease.take() {
            lease.release(cx);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // The frame first: most bodies arrived together with their head.
        let mut frame = Pin::new(&mut self.incoming).poll_frame(cx);
        if frame.is_pending() {
            if let Some(lease) = &mut self.lease {
                lease.drive(cx);
            }
            frame = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        let frame = ready!(frame);
        match &frame {
            None => self.release(cx),
            Some(Ok(_)) if self.incoming.is_end_stream() => self.release(cx),
            Some(Ok(_)) => {}
            Some(Err(_)) => self.lease = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
