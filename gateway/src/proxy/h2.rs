//! A client's connection of HTTP/2: each of its streams is a request, and takes the same path as one
//! of HTTP/1.
//!
//! The connection and its streams are one task. What has woken any of them, all that can go on goes
//! on, and what they have to say leaves in one write.

use super::{
    answer::Error,
    client::{Client, Patience},
    conn::Connection,
    cut::Cut,
    http::{self, After},
    tunnel::Course,
};
use crate::{
    drain::Guard,
    http2::{Incoming, Server, Terms},
    io::{Stream, Timer},
    relay::Side,
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// How long a connection may take to say its last words, and a client to say that it has heard that
/// no more requests are taken; as long as one that is idle where it may be reading an answer still.
const FAREWELL: Duration = Duration::from_secs(2);

/// Requests that a client may give up in a row (CVE-2023-44487). Each that it does not earns one more.
const GIVEN_UP: u32 = 100;

/// Serves a connection up to its end. Bytes that were read from it already come first.
pub(super) async fn serve<I: Stream>(io: I, early: Bytes, connection: &Connection, mut guard: Guard) {
    let (heads, patience) = connection.terms();
    let terms = Terms { streams: connection.view().local.shared.http2_streams, heads };
    let buffers = Rc::clone(&connection.worker.buffers);
    let mut server = match timeout(patience.head, Server::greet(io, early, terms, buffers)).await {
        Ok(Ok(server)) => server,
        Ok(Err(error)) => return tracing::debug!(%error, "a client does not speak HTTP/2 after all"),
        Err(_) => return connection.worker.count_cut(Cut::Head),
    };
    let requests = guard.another();
    let mut streams = FuturesUnordered::new();
    let mut times = Times::new();
    let mut left = GIVEN_UP;
    let over = poll_fn(|cx| {
        loop {
            // Before the connection, which then sends what they say.
            while let Poll::Ready(Some(given_up)) = streams.poll_next_unpin(cx) {
                times.moved();
                left = if given_up { left.saturating_sub(1) } else { GIVEN_UP.min(left + 1) };
            }
            if left == 0 || server.is_flooded() {
                return Poll::Ready(Over::Calm);
            }
            match server.poll_next(cx, heads) {
                Poll::Ready(Some(Ok(incoming))) => streams.push(request(connection, incoming, &requests)),
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "a connection of HTTP/2 broke off");
                    return Poll::Ready(Over::Closed);
                }
                Poll::Ready(None) => return Poll::Ready(Over::Closed),
                Poll::Pending if server.is_flooded() => return Poll::Ready(Over::Calm),
                Poll::Pending if server.is_closing() => return Poll::Ready(Over::Closing),
                Poll::Pending => break,
            }
        }
        if !times.is_retiring && guard.poll_draining(cx).is_ready() {
            server.retire();
            times.retire(!streams.is_empty());
            cx.waker().wake_by_ref();
        }
        match ready!(times.poll(cx, &server, streams.is_empty(), patience)) {
            // What is on its way already is still served.
            Due::Retirement => {
                connection.worker.count_cut(Cut::KeepAlive);
                server.retire();
                times.retire(false);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Due::End => Poll::Ready(Over::Retired),
            Due::Cut(cut) => Poll::Ready(Over::Cut(cut)),
        }
    })
    .await;
    // Whoever still waits for an answer is not told more than that there is none.
    drop(streams);
    let farewell = if times.is_reading { patience.idle } else { FAREWELL.min(patience.idle) };
    part(server, over, farewell, connection).await;
}

/// Says the last words on a connection.
async fn part<I: Stream>(mut server: Server<I>, over: Over, farewell: Duration, connection: &Connection) {
    match over {
        Over::Closed => return,
        Over::Closing => {}
        // Its client sends no more of what it has begun, or takes nothing.
        Over::Cut(cut) => return connection.worker.count_cut(cut),
        Over::Calm => {
            connection.worker.count_cut(Cut::Flood);
            tracing::debug!(client = %connection.arrival.peer, "a connection of HTTP/2 asked too much");
            server.calm();
        }
        Over::Retired => server.end(),
    }
    let _ = timeout(farewell, poll_fn(|cx| server.poll_closed(cx))).await;
}

/// How a connection comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// It has.
    Closed,
    /// All is said, but for its client's last word.
    Closing,
    /// It takes no more requests, has none, and its client does not say that it has heard so.
    Retired,
    /// Its client asks too much.
    Calm,
    /// Its client does not go on.
    Cut(Cut),
}

/// What it is time for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// To say that no more requests are taken: it had none for all the time it had.
    Retirement,
    /// To end it: its client has had the time to hear that.
    End,
    /// To end it as it is.
    Cut(Cut),
}

/// When a connection ends, or one of its heads has taken too long.
struct Times {
    timer: Timer,
    /// When the last request ended, or the last byte of an answer left since.
    since: Instant,
    /// Bytes that had left then.
    sent: u64,
    is_retiring: bool,
    /// Whether its client may be reading an answer still when the connection ends.
    is_reading: bool,
}

impl Times {
    fn new() -> Self {
        Self { timer: Timer::new(), since: Instant::now(), sent: 0, is_retiring: false, is_reading: false }
    }

    fn moved(&mut self) {
        self.since = Instant::now();
    }

    fn retire(&mut self, has_requests: bool) {
        self.is_retiring = true;
        self.is_reading = has_requests || self.since.elapsed() < FAREWELL;
        self.moved();
    }

    fn poll<I: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        server: &Server<I>,
        is_empty: bool,
        patience: Patience,
    ) -> Poll<Due> {
        let late = server.head_since().map(|since| (since + patience.head, Due::Cut(Cut::Head)));
        let rest = is_empty.then(|| self.rest(server.sending(), patience.idle));
        // The earlier one.
        let next = late.into_iter().chain(rest).min_by_key(|(at, _)| *at);
        match next {
            Some((at, due)) => self.timer.poll(cx, at).map(|()| due),
            None => Poll::Pending,
        }
    }

    /// How it goes on with a connection that has no requests. What is left of their answers waits in
    /// h2, and then in the kernel, for a client that reads slowly. Behind it is the question whether the
    /// client has heard that this is the end.
    fn rest(&mut self, sending: Option<u64>, idle: Duration) -> (Instant, Due) {
        if let Some(sent) = sending {
            if self.sent != sent {
                self.sent = sent;
                self.moved();
            }
            self.is_reading |= self.is_retiring;
            return (self.since + idle, Due::Cut(Cut::Idle));
        }
        match (self.is_retiring, self.is_reading) {
            (false, _) => (self.since + idle, Due::Retirement),
            (true, false) => (self.since + FAREWELL.min(idle), Due::End),
            (true, true) => (self.since + idle, Due::End),
        }
    }
}

/// Serves one request. Returns whether its client gave it up.
async fn request(connection: &Connection, incoming: Incoming, guard: &Guard) -> bool {
    let Incoming { head, stream } = incoming;
    let worker = &connection.worker;
    let mut client = Client::new(stream, worker.timers.take());
    let after = match head {
        Ok(head) => http::serve(connection, &mut client, head, guard).await,
        Err(error) => http::reject(connection, &mut client, Error::Malformed(error), guard).await,
    };
    if let After::Tunnel(route, upstream, line) = after {
        let early = client.inbox.take(&worker.buffers);
        let side = Side { io: client.io, early };
        let course = Course::new(*upstream, &route, line, worker, guard.another());
        // It may live for days, and what it was opened by must not.
        drop(route);
        Box::pin(connection.while_current(course.run(side))).await;
        return false;
    }
    client.inbox.release(&worker.buffers);
    worker.timers.put(std::mem::take(&mut client.timer));
    let given_up = poll_fn(|cx| Poll::Ready(client.io.poll_reset(cx).is_ready())).await;
    if !client.io.has_ended() {
        // An answer that broke off must not look like one that ended; to a client that has left, it
        // says nothing.
        client.io.abort();
    }
    given_up
}
