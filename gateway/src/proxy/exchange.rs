//! One request to a backend: its head and body there, the head of the answer back, and then both
//! bodies at the same time.

mod piecewise;

use super::{
    answer::Error,
    carrier::{Carrier as _, Downstream},
    client::Client,
    cut::Cut,
    flow::{Flow, FlowError},
};
use crate::{
    http1::{BodyLength, Decoder, HeadLimits, Malformed, parse_response, response_body},
    http2::{self, Gone},
    io::{Buffers, Inbox},
    message::{Known, RequestHead, ResponseHead},
    proxy_protocol::Ends,
    relay::Side,
    snapshot::Timeouts,
    upstream::{Budget, Cause, Failure, Io, Lease, Pool, Seat, Tries},
};
use http::{Method, StatusCode};
use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::Instant;

pub(super) use piecewise::Towards;

/// Answers before the answer (1xx) that a backend may send; none sends more than two.
const INTERIM: usize = 16;

/// How a request is to be sent.
pub(super) struct Order<'a> {
    pub(super) pool: &'a Rc<Pool>,
    pub(super) head: &'a RequestHead,
    /// Whether it goes over HTTP/2.
    pub(super) over_http2: bool,
    pub(super) heads: HeadLimits,
    pub(super) timeouts: &'a Timeouts,
    /// Attempts, each on another server.
    pub(super) attempts: u32,
    /// How many requests of the route may be repeated.
    pub(super) budget: &'a Budget,
    /// What requests for the same server have in common.
    pub(super) key: Option<u64>,
    /// Whose request it is, where servers are told in front of the connection.
    pub(super) client: Option<&'a Ends>,
    pub(super) buffers: &'a Buffers,
}

impl Order<'_> {
    fn may_repeat(&self, lease: &Lease, tries: &Tries<'_>) -> bool {
        if !lease.has_alternative(tries) {
            return false;
        }
        let may = self.budget.withdraw(Instant::now());
        if !may {
            self.pool.over_budget();
        }
        may
    }
}

/// A request that a backend has, or is getting.
#[derive(Debug)]
pub(super) struct Exchange {
    lease: Lease,
    inbox: Inbox,
    upload: Box<Flow>,
    progress: Upload,
    /// What the backend said while something else was passed on.
    ahead: VecDeque<Result<Said, Failed>>,
    /// Interim answers so far.
    interim: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upload {
    Running,
    Done,
    /// The backend takes no more of it. It may have answered before it closed.
    Refused,
}

/// What a backend said so far.
#[derive(Debug)]
pub(super) enum Said {
    /// An answer before the answer; call again for more.
    Interim(ResponseHead),
    /// The answer's head.
    Answer(ResponseHead, BodyLength),
    /// The protocol changes.
    Switching(ResponseHead),
}

impl Said {
    /// Of a stream of HTTP/2: whether there is a body, its end says and not its head.
    fn framed(self, is_at_end: bool) -> Self {
        match self {
            Self::Answer(head, _) if is_at_end => Self::Answer(head, BodyLength::None),
            Self::Answer(head, BodyLength::UntilClose) => Self::Answer(head, BodyLength::Chunked),
            said => said,
        }
    }
}

/// Why there is no answer on this connection.
#[derive(Debug)]
enum Failed {
    /// The kept connection was closed before it answered anything.
    Stale(Cause),
    /// The new connection was.
    Unanswered(Cause),
    /// The server has done nothing about it, and the connection takes no more.
    Retired(Cause),
    /// The server says that it has done nothing about it.
    Refused(Cause),
    Other(Error),
}

impl Exchange {
    /// Sends a request, and waits for what the backend says first.
    ///
    /// A kept connection may have been closed by its server at this very moment. The request is
    /// repeated on a new one then, where nothing of it is lost, and where it may be received twice
    /// without harm (RFC 9110 §9.2.2) or cannot have been received. One that a server has received and
    /// not answered by a single byte is repeated elsewhere where it may be received twice, and as long
    /// as not too many are.
    pub(super) async fn begin<I: Downstream>(
        client: &mut Client<I>,
        order: &Order<'_>,
        upload: Box<Flow>,
    ) -> Result<(Box<Self>, Said), Error> {
        order.budget.deposit();
        let mut tries = Tries::of_request(order.attempts, order.key).of_client(order.client);
        if order.over_http2 {
            tries = tries.over_http2(order.heads);
        }
        let connect = order.timeouts.connect;
        let lease = client.while_waiting(order.buffers, pin!(order.pool.lease(&mut tries, connect))).await?;
        let mut exchange = Self::of(lease.map_err(Error::Upstream)?, upload);
        loop {
            let failed = match exchange.start(order) {
                Ok(()) => match exchange.advance(client, order).await {
                    Ok(said) => return Ok((exchange, said)),
                    Err(failed) => failed,
                },
                Err(failed) => failed,
            };
            // In a place of its own: mostly, it is done.
            exchange = Box::pin(exchange.again(client, order, &mut tries, failed)).await?;
        }
    }

    /// Gives a request to what answers inside of this process, and waits for the head of the answer. It has had the
    /// request then, whatever it did with it: nothing is repeated.
    pub(super) async fn ask<I: Downstream>(
        client: &mut Client<I>,
        order: &Order<'_>,
        (lease, upload): (Lease, Box<Flow>),
    ) -> Result<(Box<Self>, ResponseHead, BodyLength), Error> {
        let mut exchange = Self::of(lease, upload);
        exchange.start(order).map_err(|failed| exchange.error(failed))?;
        match exchange.next(client, order).await? {
            Said::Answer(head, length) => Ok((exchange, head, length)),
            Said::Interim(_) => Err(Error::EndlessInterim),
            Said::Switching(_) => Err(Error::WrongUpgrade),
        }
    }

    /// It is handed on from here to the end of the answer, and large: so it is in a box.
    fn of(lease: Lease, upload: Box<Flow>) -> Box<Self> {
        let (ahead, interim) = (VecDeque::new(), 0);
        Box::new(Self { lease, inbox: Inbox::new(), upload, progress: Upload::Running, ahead, interim })
    }

    /// What the backend says next, after an interim answer.
    pub(super) async fn next<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        order: &Order<'_>,
    ) -> Result<Said, Error> {
        let said = match self.ahead.pop_front() {
            Some(said) => said,
            None => self.advance(client, order).await,
        };
        said.map_err(|failed| self.error(failed))
    }

    fn error(&self, failed: Failed) -> Error {
        match failed {
            Failed::Other(error) => error,
            Failed::Stale(cause)
            | Failed::Unanswered(cause)
            | Failed::Retired(cause)
            | Failed::Refused(cause) => Error::Upstream(self.lease.error(cause)),
        }
    }

    /// Waits for an interim answer to be passed on. What the backend says meanwhile over HTTP/2 is
    /// looked at: nothing else bounds the interim answers that nobody looks at.
    pub(super) async fn while_passing<T>(
        &mut self,
        order: &Order<'_>,
        mut passing: impl Future<Output = T> + Unpin,
    ) -> T {
        poll_fn(|cx| {
            if let Poll::Ready(passed) = Pin::new(&mut passing).poll(cx) {
                return Poll::Ready(passed);
            }
            while self.frames() && self.ahead.back().is_none_or(|said| matches!(said, Ok(Said::Interim(_)))) {
                let said = ready!(self.poll_said(cx, order, &mut 0));
                if said.is_err()
                    && let Io::Http2(call) = &mut self.lease.io
                {
                    // The client hears of it behind what is being passed on, the backend at once.
                    call.cancel();
                }
                self.ahead.push_back(said);
            }
            Poll::Pending
        })
        .await
    }

    /// Sends the request's head, where that is not among the bytes of the upload; where it is, it asks for the host
    /// that this server is asked for.
    fn start(&mut self, order: &Order<'_>) -> Result<(), Failed> {
        if let Io::Local(call) = &mut self.lease.io {
            let started = call.start(order.head, self.upload.is_empty());
            return started.map_err(|error| Failed::Other(Error::Malformed(error)));
        }
        // Mostly, servers are asked for what the client asked for.
        let own = self.lease.host().map(|host| {
            let mut head = order.head.clone();
            head.fields.set_known(Known::Host, host.as_bytes());
            head
        });
        let Io::Http2(call) = &mut self.lease.io else {
            if let Some(head) = &own {
                self.upload.go_on_with(head);
            }
            return Ok(());
        };
        match call.start(own.as_ref().unwrap_or(order.head), self.upload.is_empty()) {
            Ok(Ok(())) => Ok(()),
            // Its connection ended just now, and nothing has left.
            Ok(Err(error)) => Err(Failed::Retired(Cause::Exchange(error.into()))),
            Err(error) => Err(Failed::Other(Error::Malformed(error))),
        }
    }

    /// The same on another connection, where there was no answer on this one, and it may be repeated.
    async fn again<I: Downstream>(
        self: Box<Self>,
        client: &mut Client<I>,
        order: &Order<'_>,
        tries: &mut Tries<'_>,
        failed: Failed,
    ) -> Result<Box<Self>, Error> {
        let Self { lease, mut upload, .. } = *self;
        let nothing_left = upload.moved() == 0 && !lease.io.frames();
        let is_unprocessed = matches!(failed, Failed::Retired(_) | Failed::Refused(_));
        let is_harmless =
            (is_unprocessed || nothing_left || order.head.method.is_idempotent()) && upload.rewind();
        let next = match failed {
            Failed::Other(error) => return Err(error),
            Failed::Stale(_) | Failed::Retired(_) if is_harmless && lease.may_be_replaced(tries) => {
                client
                    .while_waiting(order.buffers, pin!(lease.replace(tries, order.timeouts.connect)))
                    .await?
            }
            Failed::Unanswered(_) | Failed::Retired(_) | Failed::Refused(_)
                if is_harmless && order.may_repeat(&lease, tries) =>
            {
                client
                    .while_waiting(order.buffers, pin!(lease.elsewhere(tries, order.timeouts.connect)))
                    .await?
            }
            Failed::Stale(cause)
            | Failed::Unanswered(cause)
            | Failed::Retired(cause)
            | Failed::Refused(cause) => return Err(Error::Upstream(lease.error(cause))),
        };
        Ok(Self::of(next.map_err(Error::Upstream)?, upload))
    }

    fn advance<'a, 'o, I: Downstream>(
        &'a mut self,
        client: &'a mut Client<I>,
        order: &'a Order<'o>,
    ) -> impl Future<Output = Result<Said, Failed>> {
        // The clock is read once there is something to wait for: mostly, all has left at the first try.
        let mut since = None;
        let mut seen = 0;
        poll_fn(move |cx| {
            let moved = self.upload.moved();
            if let Poll::Ready(error) = self.poll_upload(cx, client, order.buffers) {
                return Poll::Ready(Err(Failed::Other(sender_failed(error))));
            }
            if self.upload.moved() != moved || self.upload.waits_for_plugin() {
                since = None;
            }
            if let Poll::Ready(said) = self.poll_said(cx, order, &mut seen) {
                return Poll::Ready(said);
            }
            if let Poll::Ready(over) = self.poll_over(cx, client, None, order.buffers) {
                return Poll::Ready(Err(Failed::Other(over)));
            }
            // Who is waited for: the client's body, or the backend.
            let (patience, late) = if self.progress == Upload::Running && !self.upload.is_blocked() {
                (order.timeouts.idle, Error::BodyTimeout)
            } else {
                (order.timeouts.response, Error::ResponseTimeout)
            };
            let since = *since.get_or_insert_with(Instant::now);
            client.timer.poll(cx, since + patience).map(|()| Err(self.late(late)))
        })
    }

    /// The head of its answer is there: it will not be sent once more.
    pub(super) fn answered(&mut self) {
        self.upload.answered();
    }

    /// Bytes of the request's body that are for the backend, as far as they have come.
    pub(super) fn uploaded(&self) -> u64 {
        self.upload.body()
    }

    /// Whether the answer's end is told apart from its bytes.
    pub(super) fn frames(&self) -> bool {
        self.lease.io.frames()
    }

    /// Whether the request has left as a whole: what follows on the client's connection is another.
    pub(super) fn is_sent(&self) -> bool {
        self.progress == Upload::Done
    }

    /// Sends the answer to the client, and what is left of the request to the backend. `answer` has
    /// been loaded from [`Self::inbox`].
    pub(super) async fn transfer<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        answer: &mut Flow,
        idle: Duration,
        buffers: &Buffers,
    ) -> Result<(), TransferError> {
        let mut since = None;
        poll_fn(|cx| {
            let moved = self.upload.moved() + answer.moved();
            if let Poll::Ready(error) = self.poll_upload(cx, client, buffers) {
                return Poll::Ready(Err(TransferError::of_upload(error)));
            }
            match answer.poll(cx, &mut self.lease.io, &mut self.inbox, &mut client.io, buffers) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(FlowError::Sink)) => return Poll::Ready(Err(TransferError::Client)),
                Poll::Ready(Err(_)) => {
                    self.lease.failed();
                    return Poll::Ready(Err(TransferError::Backend));
                }
                Poll::Pending => {}
            }
            if self.upload.moved() + answer.moved() != moved || self.upload.waits_for_plugin() {
                since = None;
            }
            let since = *since.get_or_insert_with(Instant::now);
            if let Poll::Ready(over) = self.poll_over(cx, client, Some(since), buffers) {
                return Poll::Ready(Err(TransferError::of_waiting(&over)));
            }
            client.timer.poll(cx, since + idle).map(|()| Err(TransferError::Idle))
        })
        .await
    }

    /// Moves the rest of the request to the backend. Ready when the client can send no more of it.
    fn poll_upload<I: Downstream>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client<I>,
        buffers: &Buffers,
    ) -> Poll<FlowError> {
        if self.progress != Upload::Running {
            return Poll::Pending;
        }
        match self.upload.poll(cx, &mut client.io, &mut client.inbox, &mut self.lease.io, buffers) {
            Poll::Ready(Ok(())) => self.progress = Upload::Done,
            Poll::Ready(Err(FlowError::Sink)) => self.progress = Upload::Refused,
            Poll::Ready(Err(error)) => return Poll::Ready(error),
            Poll::Pending => {}
        }
        Poll::Pending
    }

    /// Reads up to the end of a head. `seen` is how much of it has been looked at.
    fn poll_said(
        &mut self,
        cx: &mut Context<'_>,
        order: &Order<'_>,
        seen: &mut usize,
    ) -> Poll<Result<Said, Failed>> {
        match &mut self.lease.io {
            Io::Tcp(_) | Io::Tls(_) => {}
            Io::Http2(call) => {
                return match ready!(call.poll_head(cx, order.heads)) {
                    Ok(http2::Said::Head(head)) => {
                        let is_at_end = call.is_at_end();
                        let said = self.judge(order, head);
                        Poll::Ready(said.map(|said| said.framed(is_at_end)))
                    }
                    Ok(http2::Said::Malformed(error)) => Poll::Ready(Err(self.broken(error))),
                    Err(error) => Poll::Ready(Err(self.refused(error))),
                };
            }
            Io::Local(call) => {
                return match ready!(call.poll_head(cx, order.heads)) {
                    Ok(head) => {
                        let is_at_end = call.is_at_end();
                        let said = self.judge(order, head);
                        Poll::Ready(said.map(|said| said.framed(is_at_end)))
                    }
                    Err(failure) => {
                        let cause = match failure {
                            Failure::Malformed(error) => return Poll::Ready(Err(self.broken(error))),
                            Failure::Full => Cause::QueueFull,
                            Failure::Failed(why) => Cause::Component(why),
                        };
                        Poll::Ready(Err(Failed::Other(Error::Upstream(self.lease.error(cause)))))
                    }
                };
            }
        }
        loop {
            if self.inbox.bytes().len() > *seen {
                *seen = self.inbox.bytes().len();
                match parse_response(self.inbox.bytes(), order.heads) {
                    Ok(Some((head, length))) => {
                        self.inbox.consume(length, order.buffers);
                        return Poll::Ready(self.judge(order, head));
                    }
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Err(self.broken(error))),
                }
            }
            match ready!(self.inbox.poll_fill(cx, &mut self.lease.io, order.buffers)) {
                Ok(1..) => {}
                Ok(_) if *seen > 0 => return Poll::Ready(Err(self.broken(Malformed::Truncated))),
                Ok(_) => return Poll::Ready(Err(self.closed(Cause::Closed))),
                Err(_) if *seen > 0 => return Poll::Ready(Err(self.broken(Malformed::Truncated))),
                Err(error) => return Poll::Ready(Err(self.closed(Cause::Exchange(error)))),
            }
        }
    }

    fn judge(&mut self, order: &Order<'_>, head: ResponseHead) -> Result<Said, Failed> {
        let said = said(&order.head.method, head).map_err(|error| self.broken(error))?;
        self.interim += usize::from(matches!(said, Said::Interim(_)));
        if self.interim > INTERIM { Err(Failed::Other(Error::EndlessInterim)) } else { Ok(said) }
    }

    /// Ready when the client is gone, or the request's time. While its body comes, whoever reads that
    /// finds out whether it is there.
    fn poll_over<I: Downstream>(
        &self,
        cx: &mut Context<'_>,
        client: &mut Client<I>,
        moved: Option<Instant>,
        buffers: &Buffers,
    ) -> Poll<Error> {
        match self.progress {
            Upload::Running if !client.io.frames() => client.poll_overdue(cx),
            _ => client.poll_gone(cx, moved, buffers),
        }
    }

    /// The bytes of the answer that have been read.
    pub(super) fn inbox(&mut self) -> &mut Inbox {
        &mut self.inbox
    }

    /// The exchange is over; the connection is used again where that is `wanted` and safe. Returns
    /// whether the client's connection can go on as well.
    pub(super) fn finish(self, client: &mut Inbox, wanted: bool, buffers: &Buffers) -> bool {
        let Self { lease, mut inbox, mut upload, progress, .. } = self;
        let is_sent = progress == Upload::Done;
        lease.answered();
        if is_sent {
            buffers.put_text(upload.finish(client, buffers));
        }
        // What a backend sends behind its answer belongs to no request: the next one must not get it.
        if wanted && is_sent && inbox.is_empty() {
            lease.keep();
        } else {
            inbox.release(buffers);
            lease.leave();
        }
        is_sent
    }

    /// The backend's side of a tunnel, and its place there: what follows its 101 is the new
    /// protocol's.
    pub(super) fn into_tunnel(self, client: &mut Inbox, buffers: &Buffers) -> Option<(Side<Io>, Seat)> {
        let Self { lease, mut inbox, mut upload, .. } = self;
        lease.answered();
        buffers.put_text(upload.finish(client, buffers));
        let (io, seat) = lease.into_parts();
        let early = inbox.take(buffers);
        // A stream of HTTP/2 is asked for no other protocol.
        if matches!(io, Io::Http2(_) | Io::Local(_)) { None } else { Some((Side { io, early }, seat)) }
    }

    fn broken(&self, error: Malformed) -> Failed {
        self.lease.failed();
        Failed::Other(Error::Upstream(self.lease.error(Cause::Malformed(error))))
    }

    fn late(&self, error: Error) -> Failed {
        if matches!(error, Error::ResponseTimeout) {
            self.lease.failed();
        }
        Failed::Other(error)
    }

    /// A stream of HTTP/2 failed before there was an answer.
    fn refused(&self, error: http2::Error) -> Failed {
        let gone = error.gone();
        let cause = Cause::Exchange(error.into());
        match gone {
            Gone::Retired => Failed::Retired(cause),
            Gone::Refused => Failed::Refused(cause),
            Gone::Connection => self.closed(cause),
            Gone::Reset => {
                self.lease.failed();
                Failed::Other(Error::Upstream(self.lease.error(cause)))
            }
        }
    }

    fn closed(&self, cause: Cause) -> Failed {
        if self.lease.is_reused() {
            Failed::Stale(cause)
        } else {
            self.lease.failed();
            Failed::Unanswered(cause)
        }
    }
}

/// Why an answer that was begun did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransferError {
    /// The client is gone.
    Client,
    /// The rest of the request's body is malformed, or too large.
    Body,
    /// The backend is gone, or sends nonsense.
    Backend,
    /// A plugin that transforms the rest of the request failed.
    Plugin,
    /// Neither moves.
    Idle,
    /// The time of the request is over.
    Total,
}

impl TransferError {
    /// The rest of the request is at fault, or who sends it.
    fn of_upload(error: FlowError) -> Self {
        match sender_failed(error) {
            Error::Malformed(_) => Self::Body,
            Error::Plugin { .. } => Self::Plugin,
            _ => Self::Client,
        }
    }

    /// Nobody waits any more, or nobody may.
    fn of_waiting(error: &Error) -> Self {
        match error {
            Error::TotalTimeout => Self::Total,
            _ => Self::Client,
        }
    }

    /// What it is to the operator; a client that left was not cut.
    pub(super) fn cut(self) -> Option<Cut> {
        match self {
            Self::Client => None,
            Self::Body => Some(Cut::Body),
            Self::Backend => Some(Cut::Upstream),
            Self::Plugin => Some(Cut::Plugin),
            Self::Idle => Some(Cut::Idle),
            Self::Total => Some(Cut::Total),
        }
    }
}

fn said(method: &Method, head: ResponseHead) -> Result<Said, Malformed> {
    let length = response_body(method, &head)?;
    Ok(match head.status {
        StatusCode::SWITCHING_PROTOCOLS => Said::Switching(head),
        status if status.is_informational() => Said::Interim(head),
        _ => Said::Answer(head, length),
    })
}

fn sender_failed(error: FlowError) -> Error {
    match error {
        FlowError::Malformed(Malformed::Truncated) | FlowError::Source | FlowError::Sink => Error::ClientGone,
        FlowError::Malformed(error) => Error::Malformed(error),
        FlowError::Plugin(failed) => {
            let (kind, plugin) = *failed;
            Error::Plugin { plugin, kind }
        }
    }
}

/// A body of which nothing is read but what came with its head.
pub(super) fn is_whole(length: BodyLength, inbox: &mut Inbox, buffers: &Buffers) -> bool {
    let mut decoder = Decoder::new(length);
    match decoder.decode(inbox.bytes_mut()) {
        Ok(decoded) if decoder.is_ended() => {
            inbox.consume(decoded.consumed, buffers);
            true
        }
        _ => false,
    }
}
