//! The server's side of a connection: requests of a client, each with a stream of its own.

use super::{
    CLIENT_WINDOW, SEND_BUFFER, STREAM_WINDOW,
    body::Body,
    error::{Error, misused},
    head, list_size,
    watch::Shared,
};
use crate::{
    http1::{HeadLimits, Malformed},
    io::{Buffers, Stream},
    message::{Fields, RequestHead, ResponseHead},
};
use bytes::Bytes;
use data_encoding::BASE64;
use h2::{Reason, RecvStream, ext::Protocol, server};
use http::{Method, Request};
use std::{
    fmt, io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// Streams that a client may reset before the gateway has looked at them (CVE-2023-44487).
const RESETS_UNSEEN: usize = 64;

/// Streams that a client may make h2 reset by what it sends on them (CVE-2025-8671).
const RESETS_PROVOKED: usize = 64;

/// Requests that may be looked at, one after the other, before answers that are ready leave: each may take a
/// plugin's time.
const GATHERED: u32 = 16;

/// What a client may do with its connection.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Requests at a time.
    pub streams: u32,
    /// What their heads may have.
    pub heads: HeadLimits,
}

/// The server's side of a connection.
pub struct Server<I> {
    connection: server::Connection<Shared<I>, Bytes>,
    /// The same, beneath.
    io: Shared<I>,
    /// Requests since what was said left last.
    gathered: u32,
}

/// A request that has come.
#[derive(Debug)]
pub struct Incoming {
    /// Its head, or what is wrong with it.
    pub head: Result<RequestHead, Malformed>,
    /// The stream that its answer goes to.
    pub stream: ServerStream,
}

/// A request's stream: reading gives its body, and what is written is the body of its answer.
pub struct ServerStream {
    respond: Option<server::SendResponse<Bytes>>,
    body: Body,
    opens_tunnel: bool,
}

impl<I: Stream> Server<I> {
    /// Greets a client, whose connection begins with bytes that were read already.
    ///
    /// # Errors
    /// Fails where the client speaks something else.
    pub async fn greet(io: I, early: Bytes, terms: Terms, buffers: Rc<Buffers>) -> Result<Self, Error> {
        let io = Shared::new(io, early, buffers);
        let mut builder = server::Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CLIENT_WINDOW)
            .max_concurrent_streams(terms.streams)
            .max_header_list_size(list_size(terms.heads))
            .max_send_buffer_size(SEND_BUFFER)
            .max_pending_accept_reset_streams(RESETS_UNSEEN)
            .max_local_error_reset_streams(Some(RESETS_PROVOKED))
            .enable_connect_protocol();
        let connection = builder.handshake(io.clone()).await?;
        io.gather();
        Ok(Self { connection, io, gathered: 0 })
    }

    /// The next request; none once the connection has ended. What streams have to say leaves, in one
    /// write, where there is none yet.
    ///
    /// # Errors
    /// Fails where the client broke the protocol, or went away within it.
    pub fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        heads: HeadLimits,
    ) -> Poll<Option<Result<Incoming, Error>>> {
        let Poll::Ready(next) = self.connection.poll_accept(cx) else {
            self.gathered = 0;
            return match self.io.poll_drain(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error.into()))),
                _ => Poll::Pending,
            };
        };
        self.gathered += 1;
        if self.gathered >= GATHERED {
            self.gathered = 0;
            // Where the socket takes no more, what comes next notices it.
            let _ = self.io.poll_drain(cx);
        }
        let Some(next) = next else { return Poll::Ready(None) };
        let incoming = next.map_err(Error::from).map(|(request, respond)| incoming(request, respond, heads));
        Poll::Ready(Some(incoming))
    }

    /// Whether the client sent too much that is of no use.
    pub fn is_flooded(&self) -> bool {
        self.io.is_flood()
    }

    /// Since when a head has been on its way: until its end nothing else can come (RFC 9113 §4.3).
    pub fn head_since(&self) -> Option<Instant> {
        self.io.head_since()
    }

    /// How many bytes have left so far, while there is something that has not.
    pub fn sending(&self) -> Option<u64> {
        (self.connection.has_streams() || self.io.is_holding()).then(|| self.io.written())
    }

    /// Takes no further requests, and ends once those that run have (RFC 9113 §6.8).
    pub fn retire(&mut self) {
        self.connection.graceful_shutdown();
    }

    /// Whether the last word has been said, and the client's is waited for.
    pub fn is_closing(&self) -> bool {
        self.io.is_closing()
    }

    /// Ends the connection, and says which requests were taken: others may be made again.
    pub fn end(&mut self) {
        self.connection.abrupt_shutdown(Reason::NO_ERROR);
    }

    /// Ends the connection for a client that asks too much (RFC 9113 §7).
    pub fn calm(&mut self) {
        self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    }

    /// Ready once the connection has ended; what it has to say leaves meanwhile. A client that goes on
    /// sending keeps it from that.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let closed = self.connection.poll_closed(cx).map(|_| ());
        if closed.is_pending() && matches!(self.io.poll_drain(cx), Poll::Ready(Err(_))) {
            return Poll::Ready(());
        }
        closed
    }
}

impl<I> fmt::Debug for Server<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

fn incoming(
    request: Request<RecvStream>,
    respond: server::SendResponse<Bytes>,
    heads: HeadLimits,
) -> Incoming {
    let (parts, recv) = request.into_parts();
    let protocol = parts.extensions.get::<Protocol>().map(Protocol::as_str);
    let opens_tunnel = parts.method == Method::CONNECT && protocol == Some("websocket");
    let key = opens_tunnel.then(websocket_key);
    let head = head::request_head(&parts, key.as_deref(), heads);
    Incoming {
        head,
        stream: ServerStream { respond: Some(respond), body: Body::receiving(recv), opens_tunnel },
    }
}

/// RFC 6455 §4.1: sixteen bytes of chance, which HTTP/2 does not need (RFC 8441 §5.1) and HTTP/1 does.
fn websocket_key() -> String {
    let mut bytes = [0; 16];
    // Its purpose is that no cache answers; one that could be guessed does as well.
    let _ = getrandom::fill(&mut bytes);
    BASE64.encode(&bytes)
}

impl ServerStream {
    /// The bodies.
    pub fn body(&mut self) -> &mut Body {
        &mut self.body
    }

    /// Whether all of the request has been read.
    pub fn is_at_end(&self) -> bool {
        self.body.is_at_end()
    }

    /// What is wrong with the request's end, where that has been read.
    pub fn malformed(&self) -> Option<Malformed> {
        self.body.malformed()
    }

    /// Whether the request is a CONNECT to a protocol (RFC 8441): what follows its head is that.
    pub fn opens_tunnel(&self) -> bool {
        self.opens_tunnel
    }

    /// Whether an answer has been sent to its end.
    pub fn has_ended(&self) -> bool {
        self.body.has_ended()
    }

    /// Sends an answer before the answer (1xx).
    ///
    /// # Errors
    /// Fails where the stream is gone.
    pub fn send_interim(&mut self, head: &ResponseHead) -> io::Result<()> {
        let response = head::response(head).map_err(misused)?;
        let Some(respond) = &mut self.respond else { return Err(misused("the answer was sent")) };
        Ok(respond.send_informational(response).map_err(Error::from)?)
    }

    /// Sends the answer's head.
    ///
    /// # Errors
    /// Fails where the stream is gone.
    pub fn send_head(&mut self, head: &ResponseHead, is_last: bool) -> io::Result<()> {
        let response = head::response(head).map_err(misused)?;
        let Some(mut respond) = self.respond.take() else { return Err(misused("the answer was sent")) };
        let send = respond.send_response(response, is_last).map_err(Error::from)?;
        self.body.send_over(send, is_last);
        Ok(())
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// Fails where the stream is gone.
    pub fn end(&mut self, trailers: Option<&Fields>) -> io::Result<()> {
        self.body.end(trailers)
    }

    /// Ready when the client has given the request up, or the connection is gone.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.respond {
            Some(respond) => respond.poll_reset(cx).map(|_| ()),
            None => self.body.poll_reset(cx),
        }
    }

    /// Ends the stream so that its client cannot take the answer for whole.
    pub fn abort(&mut self) {
        match &mut self.respond {
            Some(respond) => respond.send_reset(Reason::INTERNAL_ERROR),
            None => self.body.abort(Reason::INTERNAL_ERROR),
        }
    }
}

impl fmt::Debug for ServerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerStream").field("opens_tunnel", &self.opens_tunnel).finish_non_exhaustive()
    }
}

impl Stream for ServerStream {
    fn reset(&self) {
        // One that is dropped before its end is reset.
    }
}

impl AsyncRead for ServerStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().body).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ServerStream {
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

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use std::{cell::Cell, future::poll_fn, io::IoSlice};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    /// Counts the writes that reach the other side.
    struct Counting {
        io: DuplexStream,
        writes: Rc<Cell<usize>>,
        /// Whether none can any more.
        is_broken: Rc<Cell<bool>>,
    }

    impl Counting {
        fn count(&self) -> io::Result<()> {
            self.writes.set(self.writes.get() + 1);
            if self.is_broken.get() { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
        }
    }

    impl Stream for Counting {
        fn reset(&self) {}
    }

    impl AsyncRead for Counting {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Counting {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.count()?;
            Pin::new(&mut self.io).poll_write(cx, data)
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.count()?;
            Pin::new(&mut self.io).poll_write_vectored(cx, slices)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_shutdown(cx)
        }
    }

    const HEADS: HeadLimits = HeadLimits { size: 8192, headers: 64 };
    const TERMS: Terms = Terms { streams: 100, heads: HEADS };

    #[tokio::test]
    async fn a_client_that_waits_for_the_greeting_gets_it() {
        let (near, mut far) = duplex(1 << 16);
        let io = Counting { io: near, writes: Rc::default(), is_broken: Rc::default() };
        let greeting = Server::greet(io, Bytes::new(), TERMS, Rc::default());
        let mut settings = [0; 9];
        tokio::select! {
            _ = greeting => panic!("it has said nothing"),
            read = far.read_exact(&mut settings) => drop(read.expect("a frame")),
        }
        assert_eq!(settings[3], 0x4, "RFC 9113 §6.5");
    }

    #[tokio::test]
    async fn where_nothing_can_be_written_the_connection_has_failed() {
        let (near, far) = duplex(1 << 16);
        let io = Counting { io: near, writes: Rc::default(), is_broken: Rc::default() };
        let is_broken = Rc::clone(&io.is_broken);
        let serving = async {
            let mut server = Server::greet(io, Bytes::new(), TERMS, Rc::default()).await.expect("a greeting");
            let incoming = poll_fn(|cx| server.poll_next(cx, HEADS)).await.expect("a request");
            let mut stream = incoming.expect("a request").stream;
            is_broken.set(true);
            stream.send_head(&ResponseHead::new(StatusCode::OK, Fields::new()), true).expect("a stream");
            poll_fn(|cx| server.poll_next(cx, HEADS)).await
        };
        let asking = async {
            let (mut send, connection) = h2::client::handshake(far).await.expect("a greeting");
            let request = Request::get("http://a/").body(()).expect("a request");
            let _answer = send.send_request(request, true).expect("a stream");
            connection.await
        };
        let next = tokio::select! {
            end = asking => panic!("it waits for its answer: {end:?}"),
            next = serving => next,
        };
        assert!(matches!(next, Some(Err(Error::Io(_)))), "{next:?}");
    }

    #[tokio::test]
    async fn answers_that_are_ready_together_leave_in_one_write() {
        const REQUESTS: usize = 5;
        let (near, far) = duplex(1 << 20);
        let writes = Rc::new(Cell::new(0));
        let io = Counting { io: near, writes: Rc::clone(&writes), is_broken: Rc::default() };
        let serving = async {
            let mut server = Server::greet(io, Bytes::new(), TERMS, Rc::default()).await.expect("a greeting");
            let mut streams = Vec::new();
            while streams.len() < REQUESTS {
                let incoming = poll_fn(|cx| server.poll_next(cx, HEADS)).await.expect("a request");
                streams.push(incoming.expect("a request").stream);
            }
            // What is said about the connection itself leaves first.
            poll_fn(|cx| Poll::Ready(server.poll_next(cx, HEADS).is_pending())).await;
            for stream in &mut streams {
                let head = ResponseHead::new(StatusCode::OK, Fields::new());
                stream.send_head(&head, false).expect("a stream");
                stream.write_all(&[b'x'; 1000]).await.expect("room");
                stream.end(None).expect("an end");
            }
            let before = writes.get();
            poll_fn(|cx| Poll::Ready(server.poll_next(cx, HEADS).is_pending())).await;
            let after = writes.get();
            poll_fn(|cx| server.poll_closed(cx)).await;
            after - before
        };
        let asking = async {
            let (send, connection) = h2::client::handshake(far).await.expect("a greeting");
            let all = async {
                let mut send = send.ready().await.expect("a connection");
                let answers: Vec<_> = (0..REQUESTS)
                    .map(|_| {
                        let request = Request::get("http://a/").body(()).expect("a request");
                        send.send_request(request, true).expect("a stream").0
                    })
                    .collect();
                drop(send);
                for answer in answers {
                    let mut body = answer.await.expect("an answer").into_body();
                    let mut length = 0;
                    while let Some(part) = body.data().await {
                        length += part.expect("a part").len();
                    }
                    assert_eq!(length, 1000);
                }
            };
            let (_, closed) = tokio::join!(all, connection);
            closed.expect("an end");
        };
        let (written, ()) = tokio::join!(serving, asking);
        assert_eq!(written, 1, "for {REQUESTS} answers");
    }
}
