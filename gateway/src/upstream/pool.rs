//! A worker's connections to one backend.
//!
//! A connection is no task of its own: whoever waits for its answer or reads its body polls it, and
//! an idle one is polled by nobody. So a request crosses no queue between tasks, and an idle
//! connection costs its memory only.

use super::{Backend, Balance, Cause, RequestBody, ResponseBody, Server, UpstreamError, connect};
use crate::metrics::{Counter, Gauge};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{net::TcpStream, time::Instant};

/// A worker's share of a backend's metrics.
#[derive(Debug)]
pub struct PoolMetrics {
    /// New connections.
    pub connected: Counter,
    /// Failed attempts at one.
    pub failed: Counter,
    /// Requests on a kept connection.
    pub reused: Counter,
    /// Connections kept now.
    pub idle: Gauge,
}

/// A worker's connections to one backend.
#[derive(Debug)]
pub struct Pool {
    backend: Arc<Backend>,
    next: Cell<usize>,
    /// For each server, the connections that nobody uses; the last one was used last.
    idle: Vec<RefCell<Vec<Idle>>>,
    metrics: PoolMetrics,
}

#[derive(Debug)]
struct Idle {
    link: Box<Link>,
    since: Instant,
}

/// One connection to a server. Boxed wherever it goes: it is large, and goes through many hands.
#[derive(Debug)]
struct Link {
    send: SendRequest<RequestBody>,
    connection: Connection<TokioIo<TcpStream>, RequestBody>,
}

/// A connection in use, and where it belongs.
#[derive(Debug)]
pub(super) struct Lease {
    link: Box<Link>,
    server: usize,
    pool: Rc<Pool>,
}

/// What a backend said to a request.
#[derive(Debug)]
pub enum Reply {
    /// An answer.
    Response(Response<ResponseBody>),
    /// 101: the connection speaks the protocol that the request asked for.
    Upgraded(Response<()>, Upgraded),
}

/// A connection after its upgrade.
#[derive(Debug)]
pub struct Upgraded {
    /// The socket.
    pub io: TcpStream,
    /// Bytes of the new protocol that came with the answer.
    pub read: Bytes,
}

impl Pool {
    /// No connections yet.
    pub fn new(backend: Arc<Backend>, metrics: PoolMetrics) -> Self {
        let idle = backend.servers.iter().map(|_| RefCell::default()).collect();
        Self { backend, next: Cell::new(0), idle, metrics }
    }

    /// What the pool connects to.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Sends a request, and waits for the head of the answer. `connect_deadline` bounds a new
    /// connection; the caller bounds the rest.
    ///
    /// A kept connection that turns out to be closed before anything of the request was sent is
    /// replaced; nothing else is repeated.
    ///
    /// # Errors
    /// Fails when there is no connection, and when it ends before the answer.
    pub async fn send(
        self: &Rc<Self>,
        mut request: Request<RequestBody>,
        connect_deadline: Duration,
    ) -> Result<Reply, UpstreamError> {
        let server = self.choose();
        loop {
            let kept = poll_fn(|cx| Poll::Ready(self.take_idle(server, cx))).await;
            let reused = kept.is_some();
            let link = match kept {
                Some(link) => link,
                None => {
                    self.open(server, connect_deadline).await.map_err(|cause| self.error(server, cause))?
                }
            };
            let lease = Lease { link, server, pool: Rc::clone(self) };
            match lease.exchange(request).await {
                Ok(reply) => return Ok(reply),
                Err(Failed { unsent: Some(unsent), .. }) if reused => request = *unsent,
                Err(failed) => return Err(self.error(server, failed.cause)),
            }
        }
    }

    /// Opens a connection of its own, for a tunnel.
    ///
    /// # Errors
    /// Fails as [`connect`] does.
    pub async fn tunnel(&self, deadline: Duration) -> Result<TcpStream, UpstreamError> {
        let server = self.choose();
        self.dial(server, deadline).await.map_err(|cause| self.error(server, cause))
    }

    /// Closes connections that were idle for too long, or that the server closed.
    pub fn sweep(&self) {
        let now = Instant::now();
        for idle in &self.idle {
            let before = idle.borrow().len();
            idle.borrow_mut().retain_mut(|idle| {
                let fresh = now.duration_since(idle.since) < self.backend.keep_for;
                fresh && idle.link.is_open(&mut Context::from_waker(Waker::noop()))
            });
            (idle.borrow().len()..before).for_each(|_| self.metrics.idle.dec());
        }
    }

    fn choose(&self) -> usize {
        let servers = self.backend.servers.len();
        if servers == 1 {
            return 0;
        }
        let next = match self.backend.balance {
            Balance::RoundRobin => self.next.get().wrapping_add(1),
            // xorshift: spreads well enough, and asks nobody for randomness.
            Balance::Random => {
                let mut x = self.next.get() | 1;
                x ^= x << 13;
                x ^= x >> 7;
                x ^ (x << 17)
            }
        };
        self.next.set(next);
        next % servers
    }

    fn server(&self, index: usize) -> Option<&Server> {
        self.backend.servers.get(index)
    }

    fn take_idle(&self, server: usize, cx: &mut Context<'_>) -> Option<Box<Link>> {
        let mut idle = self.idle.get(server)?.borrow_mut();
        loop {
            let Idle { mut link, since } = idle.pop()?;
            self.metrics.idle.dec();
            if since.elapsed() < self.backend.keep_for && link.is_open(cx) {
                self.metrics.reused.inc();
                return Some(link);
            }
        }
    }

    fn put_idle(&self, server: usize, link: Box<Link>) {
        if let Some(idle) = self.idle.get(server)
            && idle.borrow().len() < self.backend.keep
        {
            idle.borrow_mut().push(Idle { link, since: Instant::now() });
            self.metrics.idle.inc();
        }
    }

    async fn open(&self, server: usize, deadline: Duration) -> Result<Box<Link>, Cause> {
        let stream = self.dial(server, deadline).await?;
        let heads = self.backend.heads;
        let handshake = Builder::new()
            .max_headers(heads.headers)
            .max_header_size(heads.size)
            .handshake(TokioIo::new(stream))
            .await;
        let (send, connection) = handshake.map_err(Cause::Exchange)?;
        Ok(Box::new(Link { send, connection }))
    }

    async fn dial(&self, server: usize, deadline: Duration) -> Result<TcpStream, Cause> {
        let server = self.server(server).ok_or(Cause::Refused)?;
        let connected = connect(server, deadline).await;
        match &connected {
            Ok(_) => self.metrics.connected.inc(),
            Err(_) => self.metrics.failed.inc(),
        }
        connected
    }

    fn error(&self, server: usize, cause: Cause) -> UpstreamError {
        let server = self.server(server).map(Server::to_string).unwrap_or_default();
        UpstreamError { backend: self.backend.name.clone(), server, cause }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for idle in &self.idle {
            idle.borrow().iter().for_each(|_| self.metrics.idle.dec());
        }
    }
}

impl Link {
    fn is_open(&mut self, cx: &mut Context<'_>) -> bool {
        self.connection.poll_without_shutdown(cx).is_pending() && self.send.is_ready()
    }
}

struct Failed {
    cause: Cause,
    /// The request, where nothing of it was sent.
    unsent: Option<Box<Request<RequestBody>>>,
}

impl Lease {
    /// Sends the request and drives the connection until the head of the answer is there.
    async fn exchange(mut self, request: Request<RequestBody>) -> Result<Reply, Failed> {
        let mut response = pin!(self.link.send.try_send_request(request));
        let connection = &mut self.link.connection;
        let answered = poll_fn(|cx| {
            // The connection answers through a channel, so it is polled first. An end by error reaches
            // the channel too; a good one, before the request was taken, does not.
            let over = connection.poll_without_shutdown(cx).is_ready();
            match response.as_mut().poll(cx) {
                Poll::Pending if over => Poll::Ready(None),
                answer => answer.map(Some),
            }
        });
        let Some(answer) = answered.await else {
            return Err(Failed { cause: Cause::Closed, unsent: None });
        };
        match answer {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                self.upgrade(response).await
            }
            Ok(response) => {
                let (parts, incoming) = response.into_parts();
                let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
                let body = ResponseBody::new(incoming, self, &mut Context::from_waker(&waker));
                Ok(Reply::Response(Response::from_parts(parts, body)))
            }
            Err(mut error) => {
                let unsent = error.take_message().map(Box::new);
                Err(Failed { cause: Cause::Exchange(error.into_error()), unsent })
            }
        }
    }

    /// Takes the socket out of HTTP. Bytes that follow the answer belong to the new protocol.
    async fn upgrade(self, response: Response<hyper::body::Incoming>) -> Result<Reply, Failed> {
        let parts = self.link.connection.without_shutdown().await;
        let parts = parts.map_err(|error| Failed { cause: Cause::Exchange(error), unsent: None })?;
        let upgraded = Upgraded { io: parts.io.into_inner(), read: parts.read_buf };
        Ok(Reply::Upgraded(response.map(drop), upgraded))
    }

    /// Moves bytes on the connection.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        // Its end, good or bad, reaches the body through a channel.
        let _ = self.link.connection.poll_without_shutdown(cx);
    }

    /// Gives the connection back, unless either side is done with it.
    pub(super) fn release(mut self, cx: &mut Context<'_>) {
        if self.link.is_open(cx) {
            self.pool.put_idle(self.server, self.link);
        }
    }
}
