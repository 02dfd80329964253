//! What a connection carries, where its listener carries several kinds: what was agreed on in the TLS
//! handshake, or else what is spoken first, and by whom.
//!
//! Nobody waits for a client that may be waiting itself: a server that speaks first (SMTP, MySQL, FTP) is
//! connected to before anything is said.

use super::{
    answer::Error,
    client::Client,
    conn::{Connection, View},
    cut::Cut,
    stream::ClientStream,
    tcp::Way,
};
use crate::{
    config::RouteProtocol,
    drain::Guard,
    relay::Side,
    route::Match,
    snapshot::Kinds,
    sniff::{self, Protocol},
    tls::Hello,
    upstream::{Io, Lease},
};
use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::ReadBuf,
    time::{Instant, timeout},
};

/// How long a client may still say what it wants when the server that it may be waiting for cannot be
/// reached: whoever speaks HTTP can be told.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long a request waits for a connection that was begun before it was known to be one: about as long
/// as one takes.
const HAND_OVER: Duration = Duration::from_millis(250);

/// Bytes of a connection's beginning that are looked at: room for a `ClientHello` of any client.
const MOST: usize = 32 * 1024;

/// What a connection turned out to carry.
pub(super) enum Decided {
    /// Requests. What the client has sent of them is in its inbox.
    Requests(Client<ClientStream>),
    /// Bytes, to this server.
    Bytes { client: Side<ClientStream>, way: Way, lease: Lease },
    /// Nothing that goes anywhere.
    Nothing,
}

/// Who said something first.
enum First {
    /// The client, and it is this.
    Client(Protocol),
    /// The server.
    Server,
    /// The client, that it will say nothing.
    End,
    /// Nobody, for too long.
    Late(Cut),
    /// Nobody ever will.
    Gone,
}

/// Finds out what a connection carries.
pub(super) async fn decide(
    stream: ClientStream,
    connection: &Connection,
    view: &View,
    kinds: &Kinds,
    guard: &mut Guard,
) -> Decided {
    let (arrival, worker) = (&connection.arrival, &connection.worker);
    let has_agreed = stream.speaks_http() && kinds.has_requests();
    let mut client = Client::new(stream);
    let host = arrival.sni.as_deref().unwrap_or_default();
    let found = kinds.bytes(host).filter(|_| view.is_served);
    // Named together with its host: there is nothing to find out.
    let is_certain = found.as_ref().is_some_and(|found| is_certain(found, view, kinds, host));
    if has_agreed && !is_certain {
        return Decided::Requests(client);
    }
    let way = found.and_then(|found| to(found, view));
    let mut server = match &way {
        Some(way) => Server::Dialled { dialled: Box::pin(way.dial(arrival)), is_begun: false },
        None => Server::None,
    };
    let first = match is_certain {
        true => First::Server,
        false => listen(&mut client, &mut server, way.as_ref(), connection, view, guard).await,
    };
    let protocol = match first {
        First::Client(Protocol::Http1 | Protocol::Http2) if kinds.has_requests() => {
            server.hand_over(way.as_ref()).await;
            return Decided::Requests(client);
        }
        First::Client(protocol) => protocol,
        First::Server | First::End => Protocol::Opaque,
        First::Late(cut) => {
            worker.count_cut(cut);
            return Decided::Nothing;
        }
        First::Gone => return Decided::Nothing,
    };
    let own = own_way(protocol, &mut client, connection, view, kinds).await;
    let reached = match &own {
        Some(own) => {
            drop(server);
            own.dial(arrival).await
        }
        None => server.reach().await,
    };
    let Some(way) = own.or(way) else {
        worker.count_cut(Cut::Route);
        let (listener, sni, client) = (&view.listener.name, arrival.sni.as_deref(), arrival.peer);
        tracing::debug!(listener, %client, sni, ?protocol, "a connection has no route, and was closed");
        return Decided::Nothing;
    };
    match reached {
        Ok(lease) => {
            let early = client.inbox.take(&worker.buffers);
            Decided::Bytes { client: Side { io: client.io, early }, way, lease }
        }
        Err(error) => {
            way.report(&error, arrival);
            Decided::Nothing
        }
    }
}

/// The route of its own that a connection has by what it speaks.
async fn own_way(
    protocol: Protocol,
    client: &mut Client<ClientStream>,
    connection: &Connection,
    view: &View,
    kinds: &Kinds,
) -> Option<Way> {
    let arrival = &connection.arrival;
    let found = match protocol {
        Protocol::Ssh => kinds.ssh(arrival.sni.as_deref().unwrap_or_default()),
        Protocol::Tls if arrival.scheme == "http" && kinds.names_hosts() => {
            let name = name(client, connection, view).await?;
            kinds.bytes(&name)
        }
        _ => None,
    };
    to(found.filter(|_| view.is_served)?, view)
}

/// Whether all connections for this host carry bytes.
fn is_certain(found: &Match, view: &View, kinds: &Kinds, host: &str) -> bool {
    let route = view.local.routes.get(found.route);
    let is_tcp = route.is_some_and(|route| route.route.protocol == RouteProtocol::Tcp);
    let is_anyones = kinds.bytes("").is_some_and(|anyones| anyones.route == found.route);
    is_tcp && !is_anyones && !host.is_empty()
}

fn to(found: Match, view: &View) -> Option<Way> {
    view.local.routes.get(found.route).map(|route| Way::new(route.clone(), found.captures))
}

/// Waits until one of both sides says something.
async fn listen(
    client: &mut Client<ClientStream>,
    server: &mut Server<'_>,
    way: Option<&Way>,
    connection: &Connection,
    view: &View,
    guard: &mut Guard,
) -> First {
    let buffers = &connection.worker.buffers;
    let since = Instant::now();
    let mut begun = None;
    poll_fn(|cx| {
        // The client first: what is there already needs no connection.
        loop {
            match client.inbox.poll_fill(cx, &mut client.io, buffers) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) if client.inbox.is_empty() => return Poll::Ready(First::End),
                Poll::Ready(Ok(0)) => return Poll::Ready(First::Client(Protocol::Opaque)),
                Poll::Ready(Err(_)) => return Poll::Ready(First::Gone),
                Poll::Pending => break,
            }
            if let Some(protocol) = sniff::look(client.inbox.bytes()) {
                return Poll::Ready(First::Client(protocol));
            }
        }
        if server.poll_speaks(cx).is_ready() {
            return Poll::Ready(First::Server);
        }
        if !client.inbox.is_empty() {
            let due = *begun.get_or_insert_with(Instant::now) + view.listener.head_deadline;
            // What it is by now is nobody's to tell, and a server may know.
            return client.timer.poll(cx, due).map(|()| match way {
                Some(_) => First::Client(Protocol::Opaque),
                None => First::Late(Cut::Head),
            });
        }
        if guard.poll_draining(cx).is_ready() {
            return Poll::Ready(First::Gone);
        }
        let (due, late) = match (&*server, way) {
            // Why, the log will tell.
            (Server::Failed(_, at), _) => (*at + LAST_WORDS, First::End),
            (_, Some(way)) => (since + way.route.timeouts.tunnel, First::Late(Cut::Tunnel)),
            (_, None) => (since + view.listener.idle_deadline, First::Late(Cut::KeepAlive)),
        };
        client.timer.poll(cx, due).map(|()| late)
    })
    .await
}

/// The name that a TLS client asks for, which has begun to speak: empty where it asks for none, and none
/// where that cannot be told.
async fn name(client: &mut Client<ClientStream>, connection: &Connection, view: &View) -> Option<Box<str>> {
    let buffers = &connection.worker.buffers;
    let due = Instant::now() + view.listener.head_deadline;
    let (mut hello, mut seen) = (Hello::default(), 0);
    poll_fn(|cx| {
        loop {
            let came = client.inbox.bytes().get(seen..).unwrap_or_default();
            seen += came.len();
            match hello.read(came) {
                Ok(Some(name)) => return Poll::Ready(Some(name)),
                Ok(None) if seen < MOST => {}
                _ => return Poll::Ready(None),
            }
            match client.inbox.poll_fill(cx, &mut client.io, buffers) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => return client.timer.poll(cx, due).map(|()| None),
            }
        }
    })
    .await
}

/// The server that bytes would go to.
enum Server<'a> {
    None,
    Dialled {
        dialled: Pin<Box<dyn Future<Output = Result<Lease, Error>> + 'a>>,
        is_begun: bool,
    },
    There(Lease),
    /// It could not be reached, since then.
    Failed(Error, Instant),
}

impl Server<'_> {
    /// Ready once it has said something, or closed its side.
    fn poll_speaks(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Dialled { dialled, is_begun } = self {
            *is_begun = true;
            match dialled.as_mut().poll(cx) {
                Poll::Ready(Ok(lease)) => *self = Self::There(lease),
                Poll::Ready(Err(error)) => *self = Self::Failed(error, Instant::now()),
                Poll::Pending => {}
            }
        }
        match self {
            Self::There(Lease { io: Io::Tcp(io), .. }) => {
                let mut byte = [0];
                io.poll_peek(cx, &mut ReadBuf::new(&mut byte)).map(drop)
            }
            _ => Poll::Pending,
        }
    }

    /// Leaves the connection to a request for the same server, which would open one itself.
    async fn hand_over(self, way: Option<&Way>) {
        let lease = match self {
            Self::There(lease) => Some(lease),
            Self::Dialled { dialled, is_begun: true } => {
                timeout(HAND_OVER, dialled).await.ok().and_then(Result::ok)
            }
            _ => None,
        };
        let is_shared = way.is_some_and(|way| way.route.route.protocol == RouteProtocol::Any);
        if let Some(lease) = lease.filter(|_| is_shared) {
            lease.keep();
        }
    }

    async fn reach(self) -> Result<Lease, Error> {
        match self {
            Self::None => Err(Error::NoRoute),
            Self::Dialled { dialled, .. } => dialled.await,
            Self::There(lease) => Ok(lease),
            Self::Failed(error, _) => Err(error),
        }
    }
}
