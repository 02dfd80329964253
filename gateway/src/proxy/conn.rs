//! The spine: what happens to a connection, from accept to its end.

use super::{
    body::Body,
    deadlines::{Deadlines, Late},
    http, tcp,
    tunnel::Tunnel,
    worker::Worker,
};
use crate::{
    drain::Guard,
    headers::Forwarding,
    ids::ClientAddr,
    io::Watched,
    relay::Side,
    snapshot::{Listener, Local, Mode},
};
use ::http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    cell::RefCell,
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

/// Serves a connection that was accepted on the listener with this configured address.
pub async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    listener: SocketAddr,
    worker: Rc<Worker>,
    guard: Guard,
) {
    let Some(view) = View::of(worker.local(), listener) else { return };
    let peer = ClientAddr::from(peer);
    let port = stream.local_addr().map_or(0, |address| address.port());
    match view.listener.mode {
        Mode::Http(_) => serve_http(stream, Connection::new(worker, view, peer, port), guard).await,
        Mode::Tcp(route) => {
            if let Some(route) = view.local.routes.get(route).cloned() {
                drop(view);
                tcp::serve(stream, peer, route, &worker).await;
            }
        }
    }
}

/// What a connection runs on: the worker's snapshot, and its listener in that.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) local: Rc<Local>,
    pub(super) listener: Arc<Listener>,
}

impl View {
    fn of(local: Rc<Local>, listener: SocketAddr) -> Option<Self> {
        let listener = Arc::clone(local.shared.listeners.iter().find(|known| known.address == listener)?);
        Some(Self { local, listener })
    }
}

/// One client's HTTP connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) worker: Rc<Worker>,
    pub(super) peer: ClientAddr,
    pub(super) port: u16,
    pub(super) state: RefCell<State>,
}

/// What changes while a connection lives.
#[derive(Debug)]
pub(super) struct State {
    pub(super) view: View,
    pub(super) forwarding: Rc<Forwarding>,
    /// Set by a request whose backend agreed to change the protocol.
    pub(super) tunnel: Option<Tunnel<TcpStream>>,
}

impl Connection {
    fn new(worker: Rc<Worker>, view: View, peer: ClientAddr, port: u16) -> Self {
        let forwarding = Rc::new(forwarding(&view, peer, port));
        Self { worker, peer, port, state: RefCell::new(State { view, forwarding, tunnel: None }) }
    }

    /// What the next request runs on. A connection whose listener is gone keeps what it had.
    pub(super) fn view(&self) -> (View, Rc<Forwarding>) {
        let mut state = self.state.borrow_mut();
        let current = self.worker.local();
        if !Rc::ptr_eq(&current, &state.view.local)
            && let Some(view) = View::of(current, state.view.listener.address)
        {
            state.forwarding = Rc::new(forwarding(&view, self.peer, self.port));
            state.view = view;
        }
        (state.view.clone(), Rc::clone(&state.forwarding))
    }
}

fn forwarding(view: &View, peer: ClientAddr, port: u16) -> Forwarding {
    Forwarding::new(peer, "http", port, &view.listener.trusted_proxies)
}

type Http<S> = http1::Connection<TokioIo<Watched<TcpStream>>, S>;

/// How the HTTP part of a connection ended.
enum End {
    Done(hyper::Result<()>),
    Late(Late),
}

async fn serve_http(stream: TcpStream, connection: Connection, mut guard: Guard) {
    let connection = Rc::new(connection);
    let stream = Watched::new(stream);
    let (limits, deadlines) = {
        let view = &connection.state.borrow().view;
        let deadlines =
            Deadlines::new(stream.activity(), view.listener.head_deadline, view.listener.idle_deadline);
        (view.local.shared.heads, Rc::new(deadlines))
    };
    let service = {
        let (connection, deadlines) = (Rc::clone(&connection), Rc::clone(&deadlines));
        service_fn(move |request: Request<Incoming>| {
            respond(Rc::clone(&connection), Rc::clone(&deadlines), request)
        })
    };
    let mut http = http1::Builder::new()
        .max_headers(limits.headers)
        .max_header_size(limits.size)
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(stream), service);
    let end = poll_fn(|cx| poll_http(&mut http, &deadlines, &mut guard, cx)).await;
    let tunnel = connection.state.borrow_mut().tunnel.take();
    match (end, tunnel) {
        (End::Done(Ok(())), Some(tunnel)) => {
            let parts = http.into_parts();
            let client = Side { io: parts.io.into_inner().into_inner(), early: parts.read_buf };
            tunnel.run(client, &connection.worker).await;
        }
        (End::Done(Ok(())), None) => {}
        // Clients that go away, or speak something else: the client's side knows what it did.
        (End::Done(Err(error)), _) => tracing::debug!(peer = %connection.peer, %error, "a connection ended"),
        (End::Late(Late::Head), _) => {
            tracing::debug!(peer = %connection.peer, "a request's head was not finished in time");
            let mut stream = http.into_parts().io.into_inner();
            // Best effort: the socket's buffer is empty, and nobody waits for a client that is slow.
            let _ = stream.write_all(REQUEST_TIMEOUT).await;
        }
        (End::Late(late), _) => tracing::debug!(peer = %connection.peer, ?late, "a connection was closed"),
    }
}

/// RFC 9110 §15.5.9.
const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

fn poll_http<S>(
    http: &mut Http<S>,
    deadlines: &Deadlines,
    guard: &mut Guard,
    cx: &mut Context<'_>,
) -> Poll<End>
where
    S: hyper::service::HttpService<Incoming, ResBody = Body> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if guard.poll_draining(cx).is_ready() {
        Pin::new(&mut *http).graceful_shutdown();
    }
    loop {
        if let Poll::Ready(done) = Pin::new(&mut *http).poll(cx) {
            return Poll::Ready(End::Done(done));
        }
        match deadlines.poll_late(cx) {
            // The request sees it when the connection is polled again, and answers.
            Poll::Ready(Late::Answer) => {}
            Poll::Ready(late) => return Poll::Ready(End::Late(late)),
            Poll::Pending => return Poll::Pending,
        }
    }
}

async fn respond(
    connection: Rc<Connection>,
    deadlines: Rc<Deadlines>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    Ok(http::respond(&connection, deadlines, request).await)
}

/// What a client over the listener's limit is told; one that speaks no HTTP is closed all the same.
pub const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nx-gateway-error: too-many-connections\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
