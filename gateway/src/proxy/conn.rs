//! The spine: what happens to a connection, from accept to its end.

use super::{
    answer,
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
    cell::{Cell, RefCell},
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

/// Serves a connection that was accepted on the listener with this configured address, and begins
/// with `local`, where that listener is.
pub async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    local: Rc<Local>,
    listener: SocketAddr,
    worker: Rc<Worker>,
    guard: Guard,
) {
    let peer = ClientAddr::from(peer);
    let port = stream.local_addr().map_or(0, |address| address.port());
    let Some(view) = View::of(local, listener, peer, port) else { return };
    match view.listener.mode {
        Mode::Http(_) => {
            let (view, tunnel) = (RefCell::new(view), RefCell::new(None));
            let connection = Connection { worker, peer, port, view, tunnel, unread: Cell::new(false) };
            serve_http(stream, connection, guard).await;
        }
        Mode::Tcp(route) => {
            if let Some(route) = view.local.routes.get(route).cloned() {
                drop(view);
                tcp::serve(stream, peer, route, &worker).await;
            }
        }
    }
}

/// What a connection runs on: the worker's snapshot, its listener in that, and what follows from both.
#[derive(Debug)]
pub(super) struct View {
    pub(super) local: Rc<Local>,
    pub(super) listener: Arc<Listener>,
    pub(super) forwarding: Forwarding,
}

impl View {
    fn of(local: Rc<Local>, listener: SocketAddr, peer: ClientAddr, port: u16) -> Option<Rc<Self>> {
        let listener = Arc::clone(local.shared.listeners.iter().find(|known| known.address == listener)?);
        let forwarding = Forwarding::new(peer, "http", port, &listener.trusted_proxies);
        Some(Rc::new(Self { local, listener, forwarding }))
    }
}

/// One client's HTTP connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) worker: Rc<Worker>,
    pub(super) peer: ClientAddr,
    pub(super) port: u16,
    view: RefCell<Rc<View>>,
    /// Set by a request whose backend agreed to change the protocol.
    pub(super) tunnel: RefCell<Option<Tunnel<TcpStream>>>,
    /// Set by an answer that was given without reading the whole request.
    pub(super) unread: Cell<bool>,
}

impl Connection {
    /// What the next request runs on. A connection whose listener is gone keeps what it had.
    pub(super) fn view(&self) -> Rc<View> {
        let mut view = self.view.borrow_mut();
        if !self.worker.runs(&view.local)
            && let Some(current) = View::of(self.worker.local(), view.listener.address, self.peer, self.port)
        {
            *view = current;
        }
        Rc::clone(&view)
    }
}

type Http<S> = http1::Connection<TokioIo<Watched<TcpStream>>, S>;

/// How the HTTP part of a connection ended.
enum End {
    Done(hyper::Result<()>),
    Late(Late),
}

async fn serve_http(stream: TcpStream, connection: Connection, mut guard: Guard) {
    let connection = Rc::new(connection);
    if guard.is_draining() {
        // It was accepted on the way out: its client is about to ask, or has asked already. How this
        // ends, the connection finds out itself.
        let _ = timeout(LAST_CALL, stream.readable()).await;
    }
    let stream = Watched::new(stream);
    let (limits, deadlines) = {
        let view = connection.view.borrow();
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
        // The buffer must hold the largest head that is allowed.
        .max_buf_size(READ_BUFFER.max(limits.size))
        .serve_connection(TokioIo::new(stream), service);
    let mut leaving = false;
    let end = poll_fn(|cx| {
        loop {
            if let Poll::Ready(end) = poll_http(&mut http, &deadlines, cx) {
                return Poll::Ready(end);
            }
            // After a look at the client: a request that is there already is served.
            if leaving || guard.poll_draining(cx).is_pending() {
                return Poll::Pending;
            }
            leaving = true;
            Pin::new(&mut http).graceful_shutdown();
        }
    })
    .await;
    let tunnel = connection.tunnel.take();
    match (end, tunnel) {
        (End::Done(Ok(())), Some(tunnel)) => {
            let parts = http.into_parts();
            let client = Side { io: parts.io.into_inner().into_inner(), early: parts.read_buf };
            // In a place of its own: it lives long, and the state of the HTTP connection around it is
            // large. Thousands of tunnels should touch little memory.
            Box::pin(tunnel.run(client, &connection.worker)).await;
        }
        (End::Done(Ok(())), None) if connection.unread.get() => {
            linger(http.into_parts().io.into_inner().into_inner(), &connection.worker).await;
        }
        (End::Done(Ok(())), None) => {}
        // Clients that go away, or speak something else: the client's side knows what it did.
        (End::Done(Err(error)), _) => tracing::debug!(peer = %connection.peer, %error, "a connection ended"),
        (End::Late(Late::Head), _) => {
            tracing::debug!(peer = %connection.peer, "a request's head was not finished in time");
            if deadlines.is_first_request() {
                // Nothing was written yet, so this cannot end up inside another answer; and nobody
                // waits for a client that is slow.
                let stream = http.into_parts().io.into_inner().into_inner();
                let _ = stream.try_write(answer::REQUEST_TIMEOUT);
            }
        }
        (End::Late(late), _) => tracing::debug!(peer = %connection.peer, ?late, "a connection was closed"),
    }
}

/// Bytes that hyper may buffer of what a client sends; its own default.
const READ_BUFFER: usize = 8192 + 4096 * 100;

/// How long a client may take to ask that has come while its listener goes.
const LAST_CALL: Duration = Duration::from_millis(250);

/// Reads on for a while what the client still sends of a body that nobody wants: a socket that is
/// closed with unread bytes resets the connection, and the client would never see its answer.
async fn linger(mut stream: TcpStream, worker: &Worker) {
    let mut buffer = worker.buffers.take();
    let reading = async {
        let mut bytes = 0;
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            bytes += read;
            if bytes > LINGER_BYTES {
                break;
            }
        }
    };
    // Either way it is closed now.
    let _ = timeout(LINGER, reading).await;
    worker.buffers.put(buffer);
}

const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 64 * 1024 * 1024;

fn poll_http<S>(http: &mut Http<S>, deadlines: &Deadlines, cx: &mut Context<'_>) -> Poll<End>
where
    S: hyper::service::HttpService<Incoming, ResBody = Body> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
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
