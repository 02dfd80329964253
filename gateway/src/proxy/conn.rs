//! The spine: what happens to a connection, from accept to its end.

use super::{
    answer::Error,
    arrival::Arrival,
    client::{Client, Next, Patience},
    cut::Cut,
    decide::{Decided, decide},
    h2,
    http::{self, After},
    secure::secure,
    stream::ClientStream,
    tcp,
    tunnel::{Course, Tunnel},
    worker::Worker,
};
use crate::{
    drain::Guard,
    headers::Forwarding,
    http1::HeadLimits,
    http2::PREFACE,
    io::Stream as _,
    relay::Side,
    snapshot::{Listener, Local, Mode},
};
use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    task::consume_budget,
    time::{Instant, timeout},
};

/// Serves a connection up to its end, or up to the tunnel that it becomes. It was accepted on the
/// listener's socket with this configured port, and begins with `local`, where that listener is.
#[expect(
    clippy::manual_async_fn,
    reason = "what a block takes is in it once, what a function is given twice"
)]
pub fn serve(
    stream: TcpStream,
    mut arrival: Arrival,
    local: Rc<Local>,
    (listener, port): (Arc<Listener>, u16),
    worker: Rc<Worker>,
    mut guard: Guard,
) -> impl Future<Output = Option<Box<Tunnel>>> {
    // Each idle connection is one of these: what is over soon, or rare, has a place of its own.
    async move {
        let stream = match &listener.tls {
            None => ClientStream::Plain(stream),
            Some(tls) => {
                arrival.is_tls = true;
                let limit = local.shared.tls.handshakes;
                Box::pin(secure(stream, tls, &listener, limit, &mut arrival, &worker)).await?
            }
        };
        let view = Rc::new(View::of(local, listener, port, &arrival));
        let is_decided = matches!(view.mode(), Mode::Http(_));
        if !is_decided {
            // Which server is told of it, is found out where the socket is not at hand.
            arrival.ends(Some(stream.socket()));
        }
        if let Mode::Tcp(route) = view.mode() {
            let route = view.local.routes.get(*route).cloned()?;
            let patience = view.listener.head_deadline;
            drop(view);
            return Box::pin(tcp::serve(stream, &arrival, route, &worker, patience, guard)).await;
        }
        let connection = Connection { worker, arrival, view: RefCell::new(view) };
        let mut client = if is_decided {
            Client::new(stream, connection.worker.timers.take())
        } else {
            match Box::pin(decide(stream, &connection, &mut guard)).await {
                Decided::Requests(client) => client,
                Decided::Bytes { client, way, opening } => {
                    return way.open(client, opening, &connection.arrival, &connection.worker, guard);
                }
                Decided::Nothing => return None,
            }
        };
        match requests(&mut client, &connection, &mut guard).await {
            Last::Of(After::Next | After::Close) => {
                release(&mut client, &connection.worker);
                client.io.say_goodbye();
                None
            }
            last => Box::pin(end(last, client, &connection, guard)).await,
        }
    }
}

/// The end of a connection that is not an ordinary one.
async fn end(
    last: Last,
    mut client: Client<ClientStream>,
    connection: &Connection,
    guard: Guard,
) -> Option<Box<Tunnel>> {
    let worker = &connection.worker;
    if let Last::Of(After::Tunnel(route, upstream, line)) = last {
        worker.timers.put(std::mem::take(&mut client.timer));
        let early = client.inbox.take(&worker.buffers);
        let client = Side { io: client.io, early };
        return Some(Box::new(Tunnel::new(client, Course::new(*upstream, &route, line, worker, guard))));
    }
    if matches!(last, Last::Http2) {
        worker.timers.put(std::mem::take(&mut client.timer));
        let early = client.inbox.take(&worker.buffers);
        connection.arrival.ends(Some(client.io.socket()));
        h2::serve(client.io, early, connection, guard).await;
        return None;
    }
    release(&mut client, worker);
    match last {
        Last::Of(After::Reset) => client.io.reset(),
        Last::Of(After::Linger) => linger(&mut client.io, worker, LINGER).await,
        _ => {}
    }
    None
}

/// Whether a client has said something that nobody has read, as far as that is known without asking: closed now, its
/// connection would be reset, and it might not see its last answer (RFC 9112 §9.6).
fn says_more(client: &Client<ClientStream>) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    !client.inbox.is_empty() || client.io.socket().poll_read_ready(&mut cx).is_ready()
}

/// Gives back what a connection has of its worker.
fn release(client: &mut Client<ClientStream>, worker: &Worker) {
    worker.timers.put(std::mem::take(&mut client.timer));
    client.inbox.release(&worker.buffers);
}

/// What a connection runs on: the worker's snapshot, its listener in that, and what follows from both.
#[derive(Debug)]
pub(super) struct View {
    pub(super) local: Rc<Local>,
    pub(super) listener: Arc<Listener>,
    /// The port of the socket that it was accepted on, as configured.
    socket: u16,
    /// The port that the client asked for.
    port: u16,
    /// Whether that is one that the listener serves.
    pub(super) is_served: bool,
    pub(super) forwarding: Forwarding,
}

impl View {
    fn of(local: Rc<Local>, listener: Arc<Listener>, socket: u16, arrival: &Arrival) -> Self {
        let port = arrival.port;
        let forwarding = Forwarding::new(arrival.peer, arrival.scheme(), port, &listener.trusted_proxies)
            .certified(arrival.certificate.clone());
        let is_served = listener.ports.allow(port);
        Self { local, listener, socket, port, is_served, forwarding }
    }

    /// The same with what a worker runs on by now; none where that has no such listener any more.
    fn with(&self, local: Rc<Local>, arrival: &Arrival) -> Option<Self> {
        let socket = SocketAddr::new(self.listener.address.ip(), self.socket);
        let listener = Arc::clone(local.shared.listener(socket)?);
        Some(Self::of(local, listener, self.socket, arrival))
    }

    /// What the connection carries.
    pub(super) fn mode(&self) -> &Mode {
        self.listener.modes.of(self.port)
    }
}

/// One client's HTTP connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) worker: Rc<Worker>,
    pub(super) arrival: Arrival,
    view: RefCell<Rc<View>>,
}

impl Connection {
    /// What the next request runs on. A connection whose listener is gone keeps what it had.
    pub(super) fn view(&self) -> Rc<View> {
        let mut view = self.view.borrow_mut();
        if !self.worker.runs(&view.local)
            && let Some(current) = view.with(self.worker.local(), &self.arrival)
        {
            *view = Rc::new(current);
        }
        Rc::clone(&view)
    }

    /// Waits for what has nothing to do with requests, and lets go of what they ran on whenever that is
    /// replaced.
    pub(super) async fn while_current<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            let replaced = self.worker.replaced();
            drop(self.view());
            tokio::select! {
                biased;
                output = &mut future => return output,
                () = replaced => {}
            }
        }
    }

    /// What the next request's head may have, and how long it may take.
    pub(super) fn terms(&self) -> (HeadLimits, Patience) {
        let view = self.view.borrow();
        let patience = Patience { head: view.listener.head_deadline, idle: view.listener.idle_deadline };
        (view.local.shared.heads, patience)
    }
}

/// What is left to do once a connection has no further requests of HTTP/1.
enum Last {
    /// What followed from its last one.
    Of(After),
    /// HTTP/2 is spoken on it.
    Http2,
}

/// Serves one request after the other.
async fn requests(client: &mut Client<ClientStream>, connection: &Connection, guard: &mut Guard) -> Last {
    if client.io.speaks_http2() {
        Box::pin(last_call(client, guard)).await;
        return Last::Http2;
    }
    let worker = &connection.worker;
    let cut = |cut| {
        worker.count_cut(cut);
        Last::Of(After::Close)
    };
    let (mut is_first, mut is_called) = (true, false);
    loop {
        let next = client.next(connection.terms(), Instant::now(), guard, &worker.buffers);
        let after = match next.await {
            // In a place of its own: most connections wait for a request most of the time.
            Next::Request(head) => Box::pin(http::serve(connection, client, head, guard)).await,
            // RFC 9113 §3.3: a client that knows already that HTTP/2 is spoken here.
            Next::Malformed(_) if is_first && client.inbox.bytes().starts_with(PREFACE) => {
                return Last::Http2;
            }
            Next::Malformed(error) => {
                Box::pin(http::reject(connection, client, Error::Malformed(error), guard)).await
            }
            // Later on, it could be taken for the answer to a request that the client sends just now.
            Next::Late if is_first => {
                Box::pin(http::reject(connection, client, Error::HeadTimeout, guard)).await
            }
            Next::Late => return cut(Cut::Head),
            Next::Idle => return cut(Cut::KeepAlive),
            Next::Leaving if is_first && !is_called => {
                is_called = true;
                Box::pin(last_call(client, guard)).await;
                continue;
            }
            Next::Nothing | Next::Leaving => return Last::Of(After::Close),
        };
        is_first = false;
        match after {
            After::Next => {}
            After::Close if says_more(client) => return Last::Of(After::Linger),
            after => return Last::Of(after),
        }
    }
}

/// Where a listener goes, a client that has not asked for anything yet is about to: waits for that. How this
/// ends, the connection finds out itself.
async fn last_call(client: &Client<ClientStream>, guard: &Guard) {
    if guard.is_draining() && client.inbox.is_empty() {
        let _ = timeout(LAST_CALL, client.io.socket().readable()).await;
    }
}

/// How long a client may take to ask that has come before its listener went.
pub(super) const LAST_CALL: Duration = Duration::from_millis(500);

/// Reads on for a while what the client still sends of a body that nobody wants: a socket that is
/// closed with unread bytes resets the connection, and the client would never see its answer.
pub(super) async fn linger(stream: &mut ClientStream, worker: &Worker, (time, most): (Duration, usize)) {
    let reading = async {
        // There is nothing more to come, and the client need not wait to learn it.
        let _ = stream.shutdown().await;
        let (socket, mut bytes) = (stream.socket(), 0);
        while bytes < most && socket.readable().await.is_ok() {
            let mut buffer = worker.buffers.take();
            let read = socket.try_read(&mut buffer);
            worker.buffers.put(buffer);
            match read {
                Ok(read @ 1..) => bytes += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return,
            }
            // Others are on this worker, too.
            consume_budget().await;
        }
    };
    // Either way it is closed now.
    let _ = timeout(time, reading).await;
}

/// How long, and how many bytes, for the rest of a body.
pub(super) const LINGER: (Duration, usize) = (Duration::from_secs(2), 64 * 1024 * 1024);

/// And for what a client that is refused has said already.
pub(super) const LINGER_BRIEFLY: (Duration, usize) = (Duration::from_secs(1), 256 * 1024);

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes up to which glibc keeps a piece of memory at hand for its thread (`tcache`), less those that a listener
    /// adds to each connection.
    const AT_HAND: usize = 1032 - 176;

    #[test]
    fn the_future_of_a_connection_is_small() {
        type Accepted = (TcpStream, Arrival, Rc<Local>, (Arc<Listener>, u16), Rc<Worker>, Guard);
        fn size<F>(_: impl Fn(Accepted) -> F) -> usize {
            size_of::<F>()
        }
        let size = size(|(stream, arrival, local, listener, worker, guard)| {
            serve(stream, arrival, local, listener, worker, guard)
        });
        assert!(size <= AT_HAND, "it has {size} bytes, and so has each idle connection");
    }
}
