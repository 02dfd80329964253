//! The body of an answer on its way to the client, and what happens when it has ended.

use super::{access::Entry, deadlines::Deadlines};
use crate::upstream::ResponseBody;
use bytes::Bytes;
use http::Method;
use http_body::{Frame, SizeHint};
use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

/// What an answer's body consists of.
#[derive(Debug)]
pub(super) enum Content {
    /// The backend's, as it comes.
    Upstream(ResponseBody),
    /// The gateway's or a plugin's.
    Whole(Option<Bytes>),
}

/// An answer's body. When it ends, or is dropped, the request is over.
#[derive(Debug)]
pub(super) struct Body {
    content: Content,
    deadlines: Rc<Deadlines>,
    entry: Option<Box<Entry>>,
}

impl Body {
    pub(super) fn new(content: Content, deadlines: Rc<Deadlines>, entry: Option<Box<Entry>>) -> Self {
        Self { content, deadlines, entry }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = match &mut self.content {
            Content::Upstream(body) => Pin::new(body).poll_frame(cx),
            Content::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
        };
        if let Some(entry) = &mut self.entry {
            match &frame {
                Poll::Ready(Some(Ok(frame))) => entry.sent(frame.data_ref().map_or(0, Bytes::len)),
                Poll::Ready(Some(Err(_))) => entry.broke_off(),
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Upstream(body) => body.is_end_stream(),
            Content::Whole(body) => body.as_ref().is_none_or(Bytes::is_empty),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Upstream(body) => body.size_hint(),
            Content::Whole(body) => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.deadlines.request_over();
        let ended = http_body::Body::is_end_stream(self);
        if let Some(entry) = &mut self.entry
            && !ended
            && entry.method != Method::HEAD
        {
            entry.broke_off();
        }
    }
}
