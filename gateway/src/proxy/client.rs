//! The client's side: of a connection, or of one request's stream.

use super::{answer::Error, carrier::Downstream};
use crate::{
    drain::Guard,
    http1::{HeadLimits, Malformed, parse_request},
    io::{Buffers, Inbox, Timer},
    message::RequestHead,
};
use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Instant;

/// How long a client that has closed its sending side may still want its answer. Some tools close it
/// right behind their request; everybody else who closes is gone.
const FAREWELL: Duration = Duration::from_secs(1);

/// The client's side of a connection of HTTP/1, or of a stream of HTTP/2.
#[derive(Debug)]
pub(super) struct Client<I> {
    pub(super) io: I,
    pub(super) inbox: Inbox,
    pub(super) timer: Timer,
    /// When the request that is served must be done, where its route says so.
    pub(super) due: Option<Instant>,
    /// When it closed its sending side.
    closed: Option<Instant>,
}

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a head, from its first byte on.
    pub(super) head: Duration,
    /// For the first byte of a head.
    pub(super) idle: Duration,
}

/// What came next on a connection.
#[derive(Debug)]
pub(super) enum Next {
    /// A request's head.
    Request(RequestHead),
    /// Something that is none.
    Malformed(Malformed),
    /// A head that was begun, and not finished in time.
    Late,
    /// Nothing, for all the time it had.
    Idle,
    /// Nothing: the client is gone.
    Nothing,
    /// Nothing yet, and the listener goes.
    Leaving,
}

impl<I: Downstream> Client<I> {
    pub(super) fn new(io: I, timer: Timer) -> Self {
        Self { io, inbox: Inbox::new(), timer, due: None, closed: None }
    }

    /// Another request is served.
    pub(super) fn begin(&mut self) {
        self.due = None;
        // One that was sent together with others may have its answer waited for as long as theirs.
        if let Some(closed) = &mut self.closed {
            *closed = Instant::now();
        }
    }

    /// Waits for the next request's head.
    pub(super) fn next<'a>(
        &'a mut self,
        (limits, patience): (HeadLimits, Patience),
        since: Instant,
        guard: &'a mut Guard,
        buffers: &'a Buffers,
    ) -> impl Future<Output = Next> {
        let mut begun = None;
        let mut seen = 0;
        poll_fn(move |cx| {
            loop {
                if self.inbox.bytes().len() > seen {
                    seen = self.inbox.bytes().len();
                    match parse_request(self.inbox.bytes(), limits) {
                        Ok(Some((head, length))) => {
                            self.inbox.consume(length, buffers);
                            return Poll::Ready(Next::Request(head));
                        }
                        Ok(None) => {}
                        Err(error) => return Poll::Ready(Next::Malformed(error)),
                    }
                }
                match self.inbox.poll_fill(cx, &mut self.io, buffers) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) => return Poll::Ready(Next::Nothing),
                    Poll::Pending => break,
                }
            }
            // After a look at the client: a request that is there already is served.
            if self.inbox.is_empty() {
                if guard.poll_draining(cx).is_ready() {
                    return Poll::Ready(Next::Leaving);
                }
                return self.timer.poll(cx, since + patience.idle).map(|()| Next::Idle);
            }
            let begun = *begun.get_or_insert_with(Instant::now);
            self.timer.poll(cx, begun + patience.head).map(|()| Next::Late)
        })
    }

    /// Reads what has come of a body that is framed apart from its bytes, so that it leaves together
    /// with its head, and can be sent once more. Returns whether that is all of it.
    ///
    /// # Errors
    /// Fails where it is malformed.
    pub(super) fn take_along(&mut self, buffers: &Buffers) -> Result<bool, Malformed> {
        if !self.io.frames() {
            return Ok(false);
        }
        if !self.io.is_at_end() && self.inbox.is_empty() {
            let mut cx = Context::from_waker(Waker::noop());
            // What else fails now will fail again for who waits for it.
            if let Poll::Ready(Err(_)) = self.inbox.poll_fill(&mut cx, &mut self.io, buffers)
                && let Some(malformed) = self.io.malformed()
            {
                return Err(malformed);
            }
        }
        Ok(self.io.is_at_end())
    }

    /// Waits for the future while the client does.
    ///
    /// # Errors
    /// Fails where the client goes away first, or its request's time is over.
    pub(super) fn while_waiting<'a, F: Future + Unpin>(
        &'a mut self,
        buffers: &'a Buffers,
        mut future: F,
    ) -> impl Future<Output = Result<F::Output, Error>> {
        poll_fn(move |cx| match Pin::new(&mut future).poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll_gone(cx, None, buffers).map(Err),
        })
    }

    /// Ready when nobody waits for an answer any more, or nobody may. `moved` is when something of the
    /// answer reached the client last: who reads is there.
    pub(super) fn poll_gone(
        &mut self,
        cx: &mut Context<'_>,
        moved: Option<Instant>,
        buffers: &Buffers,
    ) -> Poll<Error> {
        if self.io.frames() {
            // The end of a request says nothing here, and what comes of it waits in its window.
            return match self.io.poll_reset(cx) {
                Poll::Ready(()) => Poll::Ready(Error::ClientGone),
                Poll::Pending => self.poll_overdue(cx),
            };
        }
        // What it sends ahead waits in one buffer, and the rest in the kernel.
        while self.closed.is_none() && !self.inbox.is_full() {
            match self.inbox.poll_fill(cx, &mut self.io, buffers) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) => self.closed = Some(Instant::now()),
                Poll::Ready(Err(_)) => return Poll::Ready(Error::ClientGone),
                Poll::Pending => break,
            }
        }
        if let Some(closed) = self.closed
            && self.timer.poll(cx, closed.max(moved.unwrap_or(closed)) + FAREWELL).is_ready()
        {
            return Poll::Ready(Error::ClientGone);
        }
        self.poll_overdue(cx)
    }

    /// Ready when the time of the request is over.
    pub(super) fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        match self.due {
            Some(due) => self.timer.poll(cx, due).map(|()| Error::TotalTimeout),
            None => Poll::Pending,
        }
    }
}
