//! The client's side of a connection: requests to a server, many at a time.

use super::{
    SEND_BUFFER, STREAM_WINDOW,
    body::Body,
    error::{Error, misused},
    head, list_size,
    ration::{Ration, Rationed},
};
use crate::{
    http1::{HeadLimits, Malformed},
    io::Stream,
    message::{Fields, RequestHead, ResponseHead},
};
use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason,
    client::{self, ResponseFuture, SendRequest},
};
use http::{Request, Version};
use std::{
    cell::{Cell, RefCell},
    fmt,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until},
};

/// Requests at a time on one connection, whatever more its server takes: one lost packet holds all of
/// them up.
const STREAMS: usize = 256;

/// Until the server has said how many it takes.
const STREAMS_AT_FIRST: usize = 100;

/// Bytes of answers that may come before they are read: each stream's window at once, so that slow
/// readers of some never hold up others.
const WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;

/// How often a server that owes answers is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(15);

/// How long it may take to say so.
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// The client's side of a connection, while somebody drives it.
#[derive(Clone)]
pub struct Client {
    send: SendRequest<Bytes>,
    state: Rc<State>,
}

struct State {
    /// Requests under way.
    active: Cell<usize>,
    /// When the last one ended.
    since: Cell<Instant>,
    /// Wakes the driver, which asks only servers that owe something.
    driver: RefCell<Option<Waker>>,
    /// Told when the last request has ended.
    unused: RefCell<Option<Box<dyn Fn()>>>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("active", &self.active).finish_non_exhaustive()
    }
}

/// What makes a connection go on: to be awaited in a task of its own.
pub struct Driver<I> {
    connection: client::Connection<Rationed<I>, Bytes>,
    ping: Option<PingPong>,
    ration: Ration,
    state: Rc<State>,
}

impl Client {
    /// Greets a server, which must speak HTTP/2 without being asked (RFC 9113 §3.3).
    ///
    /// # Errors
    /// Fails as the connection does.
    pub async fn greet<I: Stream>(io: I, heads: HeadLimits) -> Result<(Self, Driver<I>), Error> {
        let mut builder = client::Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(list_size(heads))
            .max_send_buffer_size(SEND_BUFFER)
            .initial_max_send_streams(STREAMS_AT_FIRST)
            .enable_push(false);
        let ration = Ration::default();
        let (send, mut connection) = builder.handshake(Rationed::new(io, ration.clone())).await?;
        let ping = connection.ping_pong();
        let state = Rc::new(State {
            active: Cell::new(0),
            since: Cell::new(Instant::now()),
            driver: RefCell::default(),
            unused: RefCell::default(),
        });
        Ok((Self { send, state: Rc::clone(&state) }, Driver { connection, ping, ration, state }))
    }

    /// Whether it takes requests: its server goes on, and has not as many as it may.
    pub fn has_room(&mut self) -> bool {
        let most = self.send.current_max_send_streams().min(STREAMS);
        self.state.active.get() < most && self.is_alive()
    }

    /// Whether its server takes requests now or later.
    pub fn is_alive(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !matches!(self.send.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// For how long it has carried nothing; none while it does.
    pub fn idle(&self) -> Option<Duration> {
        (self.state.active.get() == 0).then(|| self.state.since.get().elapsed())
    }

    /// Calls this each time that the last request has ended.
    pub fn when_unused(&self, tell: impl Fn() + 'static) {
        self.state.unused.replace(Some(Box::new(tell)));
    }

    /// A place for one request.
    pub fn call(&self) -> Call {
        let state = Rc::clone(&self.state);
        state.active.set(state.active.get() + 1);
        if let Some(driver) = state.driver.borrow_mut().take() {
            driver.wake();
        }
        Call { send: Some(self.send.clone()), response: None, body: Body::default(), _active: Active(state) }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("state", &self.state).finish_non_exhaustive()
    }
}

impl<I: Stream> Driver<I> {
    /// Carries what its streams have to say, until the connection ends, or its server says nothing
    /// for too long while it owes an answer.
    ///
    /// # Errors
    /// Fails as the connection does.
    pub async fn run(self) -> Result<(), Error> {
        let Self { mut connection, mut ping, ration, state } = self;
        let mut timer = pin!(sleep_until(Instant::now() + PING_EVERY));
        let mut is_asked = false;
        poll_fn(|cx| {
            ration.renew();
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(ended.map_err(Error::from));
            }
            let Some(ping) = &mut ping else { return Poll::Pending };
            loop {
                if is_asked && ping.poll_pong(cx)?.is_ready() {
                    is_asked = false;
                    timer.as_mut().reset(Instant::now() + PING_EVERY);
                }
                if state.active.get() == 0 && !is_asked {
                    state.driver.replace(Some(cx.waker().clone()));
                    timer.as_mut().reset(Instant::now() + PING_EVERY);
                    return Poll::Pending;
                }
                ready!(timer.as_mut().poll(cx));
                if is_asked {
                    // Dropped, its streams fail.
                    return Poll::Ready(Ok(()));
                }
                ping.send_ping(Ping::opaque())?;
                is_asked = true;
                timer.as_mut().reset(Instant::now() + PONG_WITHIN);
            }
        })
        .await
    }
}

impl<I> fmt::Debug for Driver<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("state", &self.state).finish_non_exhaustive()
    }
}

/// One request to a server: what is written is its body, and reading gives the body of its answer.
/// Dropped before its end, it is taken back.
pub struct Call {
    send: Option<SendRequest<Bytes>>,
    response: Option<ResponseFuture>,
    body: Body,
    _active: Active,
}

struct Active(Rc<State>);

impl Drop for Active {
    fn drop(&mut self) {
        let Self(state) = self;
        state.active.set(state.active.get() - 1);
        state.since.set(Instant::now());
        if state.active.get() == 0
            && let Some(tell) = &*state.unused.borrow()
        {
            tell();
        }
    }
}

/// What a server said.
#[derive(Debug)]
pub enum Said {
    /// The head of an answer, final or not.
    Head(ResponseHead),
    /// A head that is none.
    Malformed(Malformed),
}

impl Call {
    /// Sends the request's head.
    ///
    /// # Errors
    /// Fails where the connection takes no more of them, and where HTTP/2 has no such target.
    pub fn start(&mut self, head: &RequestHead, is_last: bool) -> Result<Result<(), Error>, Malformed> {
        let request = head::request(head)?;
        Ok(self.start_with(request, is_last))
    }

    fn start_with(&mut self, request: Request<()>, is_last: bool) -> Result<(), Error> {
        // Each call has one.
        let Some(mut send) = self.send.take() else { return Ok(()) };
        let (response, send) = send.send_request(request, is_last)?;
        self.response = Some(response);
        self.body = Body::sending(send, is_last);
        Ok(())
    }

    /// The bodies.
    pub fn body(&mut self) -> &mut Body {
        &mut self.body
    }

    /// Whether all of the answer has been read.
    pub fn is_at_end(&self) -> bool {
        self.response.is_none() && self.body.is_at_end()
    }

    /// The next head of an answer.
    ///
    /// # Errors
    /// Fails where the stream or the connection does.
    pub fn poll_head(&mut self, cx: &mut Context<'_>, heads: HeadLimits) -> Poll<Result<Said, Error>> {
        let Some(response) = &mut self.response else { return Poll::Pending };
        if let Some(interim) = ready!(response.poll_informational(cx)) {
            let parts = interim?.into_parts().0;
            return Poll::Ready(Ok(said(&parts, heads)));
        }
        let (parts, recv) = ready!(Pin::new(response).poll(cx))?.into_parts();
        self.response = None;
        self.body.receive_over(recv);
        Poll::Ready(Ok(said(&parts, heads)))
    }

    /// Takes the request back: the server need not go on.
    pub fn cancel(&mut self) {
        self.body.abort(Reason::CANCEL);
    }

    /// Ends the request.
    ///
    /// # Errors
    /// Fails where the stream is gone.
    pub fn end(&mut self, trailers: Option<&Fields>) -> io::Result<()> {
        self.body.end(trailers)
    }
}

fn said(parts: &http::response::Parts, heads: HeadLimits) -> Said {
    match head::response_head(parts.status, &parts.headers, heads) {
        Ok(head) => Said::Head(head),
        Err(error) => Said::Malformed(error),
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("body", &self.body).finish_non_exhaustive()
    }
}

impl Stream for Call {
    fn reset(&self) {
        // One that is dropped before its end is reset.
    }
}

impl AsyncRead for Call {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().body).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Call {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().body).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().body).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().body).poll_shutdown(cx)
    }
}

/// Asks a server for the head of one answer, for a check: the connection ends with it, and how long
/// it takes is for the caller to bound.
///
/// # Errors
/// Fails where there is none.
pub async fn get<I: Stream>(
    io: I,
    authority: &str,
    path: &str,
    heads: HeadLimits,
) -> io::Result<ResponseHead> {
    let (client, driver) = Client::greet(io, heads).await?;
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = format!("http://{authority}{path}").parse().map_err(misused)?;
    request
        .headers_mut()
        .insert(http::header::USER_AGENT, http::HeaderValue::from_static("vers-gateway (health check)"));
    let mut call = client.call();
    call.start_with(request, true)?;
    let mut driving = pin!(driver.run());
    poll_fn(|cx| {
        loop {
            match call.poll_head(cx, heads)? {
                Poll::Ready(Said::Head(head)) if head.status.is_informational() => {}
                Poll::Ready(Said::Head(head)) => return Poll::Ready(Ok(head)),
                Poll::Ready(Said::Malformed(error)) => return Poll::Ready(Err(misused(error))),
                Poll::Pending => break,
            }
        }
        match driving.as_mut().poll(cx) {
            // The stream knows more about it.
            Poll::Ready(_) => call.poll_head(cx, heads).map(|_| Err(io::ErrorKind::BrokenPipe.into())),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::Gone;
    use h2::server;
    use tokio::{
        io::{DuplexStream, duplex},
        task::{LocalSet, spawn_local},
    };

    const HEADS: HeadLimits = HeadLimits { size: 1024, headers: 16 };

    fn request() -> Request<()> {
        Request::builder().uri("http://a/").version(Version::HTTP_2).body(()).expect("a request")
    }

    async fn connected() -> (Client, DuplexStream, impl Future<Output = Result<(), Error>>) {
        let (near, far) = duplex(64 * 1024);
        let (client, driver) = Client::greet(near, HEADS).await.expect("a greeting");
        (client, far, driver.run())
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_owes_an_answer_and_says_nothing_is_given_up() {
        let (client, _silent, run) = connected().await;
        let mut call = client.call();
        call.start_with(request(), true).expect("a start");
        let begun = Instant::now();
        run.await.expect("an end without an error of its own");
        assert_eq!(begun.elapsed(), PING_EVERY + PONG_WITHIN);
        let said = poll_fn(|cx| call.poll_head(cx, HEADS)).await;
        assert_eq!(said.expect_err("no answer").gone(), Gone::Connection);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_pings_may_take_its_time() {
        LocalSet::new()
            .run_until(async {
                let (client, far, run) = connected().await;
                let driver = spawn_local(run);
                let server = spawn_local(async move {
                    let mut server = server::handshake(far).await.expect("a handshake");
                    let (_, mut respond) = server.accept().await.expect("a request").expect("a request");
                    let answering = spawn_local(async move {
                        tokio::time::sleep(20 * PING_EVERY).await;
                        respond.send_response(http::Response::new(()), true).expect("an answer");
                    });
                    while server.accept().await.is_some() {}
                    answering.await.expect("an answer");
                });
                let mut call = client.call();
                call.start_with(request(), true).expect("a start");
                let said = poll_fn(|cx| call.poll_head(cx, HEADS)).await.expect("an answer");
                assert!(matches!(said, Said::Head(head) if head.status == 200));
                assert!(call.is_at_end() && !driver.is_finished());
                drop((call, client));
                driver.await.expect("a task").expect("the end that was asked for");
                server.await.expect("a server");
            })
            .await;
    }
}
