//! What a connection carries, where its listener carries several kinds: what was agreed on in the TLS
//! handshake, or else what is spoken first, and by whom.
//!
//! Nobody waits for a client that may be waiting itself: a server that speaks first (SMTP, MySQL, FTP) is
//! connected to before anything is said. Where the route has plugins for connections, these are asked before.

use super::{
    admit::{Met, Opening, while_there},
    answer::Error,
    arrival::Arrival,
    client::Client,
    conn::{Connection, LAST_CALL, View},
    cut::Cut,
    stream::ClientStream,
    tcp::Way,
    worker::Worker,
};
use crate::{
    config::RouteProtocol,
    drain::Guard,
    relay::Side,
    route::Match,
    snapshot::{Kinds, Mode},
    sniff::{self, Protocol},
    tls::Hello,
    upstream::{Io, Lease, Pool},
};
use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
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
    Bytes { client: Side<ClientStream>, way: Way, opening: Opening },
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
    /// Nobody yet, and the listener goes.
    Leaving,
}

/// What is known of a connection before anybody has spoken. It outlives a reload; what it was made from
/// does not.
struct Outlook {
    /// Since when it is there.
    began: Instant,
    /// Where it goes, if it carries bytes.
    way: Option<Way>,
    /// Whether it can carry nothing else.
    is_certain: bool,
    may_be_requests: bool,
    /// How long a client may take that has begun to speak.
    head: Duration,
    /// How long nobody may speak where there is no server to speak first.
    idle: Duration,
}

impl Outlook {
    fn of(connection: &Connection) -> Self {
        let view = connection.view();
        let (head, idle) = (view.listener.head_deadline, view.listener.idle_deadline);
        let began = Instant::now();
        let mut outlook = Self { began, way: None, is_certain: false, may_be_requests: false, head, idle };
        let Mode::Any(kinds) = view.mode() else { return outlook };
        outlook.may_be_requests = kinds.has_requests();
        let host = host(connection);
        if let Some(found) = kinds.bytes(host).filter(|_| view.is_served) {
            outlook.is_certain = is_certain(&found, &view, kinds, host);
            outlook.way = to(found, &view, began);
        }
        outlook
    }
}

/// Finds out what a connection carries.
pub(super) async fn decide(stream: ClientStream, connection: &Connection, guard: &mut Guard) -> Decided {
    let (arrival, worker) = (&connection.arrival, &connection.worker);
    let outlook = Outlook::of(connection);
    let mut client = Client::new(stream, worker.timers.take());
    if client.io.speaks_http() && outlook.may_be_requests && !outlook.is_certain {
        return Decided::Requests(client);
    }
    let mut server = Server::of(outlook.way.as_ref(), arrival, worker);
    let protocol = if outlook.is_certain {
        Protocol::Opaque
    } else {
        match first(&mut client, &mut server, &outlook, connection, guard).await {
            First::Client(Protocol::Http1 | Protocol::Http2) if outlook.may_be_requests => {
                server.hand_over(&outlook, arrival).await;
                return Decided::Requests(client);
            }
            First::Client(protocol) => protocol,
            First::Server | First::End => Protocol::Opaque,
            First::Late(cut) => {
                worker.count_cut(cut);
                server.over("idle");
                return nothing(client);
            }
            First::Leaving => {
                server.over("stopped");
                return nothing(client);
            }
            First::Gone => return nothing(client),
        }
    };
    to_server(client, protocol, (&outlook, server), connection, guard).await
}

/// Connects what carries bytes to the server that it goes to.
async fn to_server(
    mut client: Client<ClientStream>,
    protocol: Protocol,
    (outlook, server): (&Outlook, Server<'_>),
    connection: &Connection,
    guard: &mut Guard,
) -> Decided {
    let (arrival, worker) = (&connection.arrival, &connection.worker);
    let (way, server) = match own_way(protocol, outlook.began, &mut client, connection).await {
        Own::Way(way) => {
            server.forget();
            (Some(way), Server::None)
        }
        Own::None => (outlook.way.clone(), server),
        Own::Nowhere => {
            server.forget();
            (None, Server::None)
        }
    };
    let Some(way) = way else {
        worker.count_cut(Cut::Route);
        let (sni, peer) = (arrival.sni.as_deref(), arrival.peer);
        tracing::debug!(client = %peer, sni, ?protocol, "a connection has no route, and was closed");
        return nothing(client);
    };
    let Some((met, ahead)) = while_there(client.io.socket(), worker, server.met()).await else {
        return Decided::Nothing;
    };
    let Some(pass) = way.admit(met, &mut client, (arrival, worker), outlook.head, guard).await else {
        return Decided::Nothing;
    };
    let opening = match ahead {
        Some(dial) => pass.open(dial.reach().await, &way, arrival, worker),
        None => pass.dial(&way, arrival, worker).await,
    };
    match opening {
        Some(opening) => {
            let early = client.inbox.take(&worker.buffers);
            Decided::Bytes { client: Side { io: client.io, early }, way, opening }
        }
        None => nothing(client),
    }
}

/// The end of a connection that goes nowhere.
fn nothing(mut client: Client<ClientStream>) -> Decided {
    client.io.say_goodbye();
    Decided::Nothing
}

/// The name that the client asked for, where that is known.
fn host(connection: &Connection) -> &str {
    connection.arrival.sni.as_deref().unwrap_or_default()
}

/// What a connection has by what it speaks, instead of what it would have anyway.
enum Own {
    Way(Way),
    /// Nothing.
    None,
    /// A host that nothing but requests goes to.
    Nowhere,
}

async fn own_way(
    protocol: Protocol,
    began: Instant,
    client: &mut Client<ClientStream>,
    connection: &Connection,
) -> Own {
    let view = connection.view();
    let Mode::Any(kinds) = view.mode() else { return Own::None };
    if !view.is_served {
        return Own::Nowhere;
    }
    let own = |found: Option<Match>| found.and_then(|found| to(found, &view, began)).map(Own::Way);
    match protocol {
        Protocol::Ssh => own(kinds.ssh(host(connection))).unwrap_or(Own::None),
        Protocol::Tls if !connection.arrival.is_tls && kinds.names_hosts() => {
            match name(client, connection, &view).await {
                Some(name) => match kinds.bytes(&name).and_then(|found| to(found, &view, began)) {
                    Some(way) => Own::Way(way.named(name)),
                    None => Own::Nowhere,
                },
                None => Own::None,
            }
        }
        _ => Own::None,
    }
}

/// Whether all connections for this host carry bytes.
fn is_certain(found: &Match, view: &View, kinds: &Kinds, host: &str) -> bool {
    let route = view.local.routes.get(found.route);
    let is_tcp = route.is_some_and(|route| route.route.protocol == RouteProtocol::Tcp);
    let is_anyones = kinds.bytes("").is_some_and(|anyones| anyones.route == found.route);
    is_tcp && !is_anyones && !host.is_empty()
}

fn to(found: Match, view: &View, began: Instant) -> Option<Way> {
    view.local.routes.get(found.route).map(|route| Way::new(route.clone(), found.captures, began))
}

/// Waits until one of both sides says something; where the listener goes meanwhile, as long as a client that
/// has come may take.
async fn first(
    client: &mut Client<ClientStream>,
    server: &mut Server<'_>,
    outlook: &Outlook,
    connection: &Connection,
    guard: &mut Guard,
) -> First {
    connection.while_current(listen(client, server, outlook, &connection.worker, guard)).await
}

/// Waits until one of both sides says something.
async fn listen(
    client: &mut Client<ClientStream>,
    server: &mut Server<'_>,
    outlook: &Outlook,
    worker: &Worker,
    guard: &mut Guard,
) -> First {
    let since = Instant::now();
    let (mut begun, mut leaving) = (None, None);
    poll_fn(|cx| {
        // The client first: what is there already needs no connection.
        loop {
            match client.inbox.poll_fill(cx, &mut client.io, &worker.buffers) {
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
            let due = *begun.get_or_insert_with(Instant::now) + outlook.head;
            // The rest of a request must not come to a server as bytes.
            let may_pass = outlook.way.is_some()
                && !(outlook.may_be_requests && sniff::may_become_http(client.inbox.bytes()));
            return client.timer.poll(cx, due).map(|()| match may_pass {
                true => First::Client(Protocol::Opaque),
                false => First::Late(Cut::Head),
            });
        }
        let (due, late) = match (&*server, &outlook.way) {
            // Why, the log will tell.
            (Server::Ahead(_, Dial::Failed(_, at)), _) => (*at + LAST_WORDS, First::End),
            // So do plugins, or they see that there are no bytes.
            (Server::Held(met), _) => (met.due(outlook.head), First::End),
            (_, Some(way)) => (since + way.route.terms.timeouts.tunnel, First::Late(Cut::Tunnel)),
            (_, None) => (since + outlook.idle, First::Late(Cut::KeepAlive)),
        };
        if guard.poll_draining(cx).is_ready() {
            let last_call = *leaving.get_or_insert_with(|| Instant::now() + LAST_CALL);
            if last_call < due {
                return client.timer.poll(cx, last_call).map(|()| First::Leaving);
            }
        }
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
    /// Plugins are asked first whether there may be a connection to it.
    Asked(&'a Way, &'a Arrival, Pin<Box<dyn Future<Output = Met> + 'a>>),
    /// They want to see what the client says, or refuse it: whatever it is, there is none yet.
    Held(Met),
    /// There is one, as soon as anybody waits for it. Plugins, where there are some, let it pass.
    Ahead(Option<Met>, Dial<'a>),
}

/// A connection to a server that is made ahead.
enum Dial<'a> {
    Begun {
        dialled: Pin<Box<dyn Future<Output = Result<Lease, Error>> + 'a>>,
        is_begun: bool,
    },
    There(Lease),
    /// It could not be reached, since then.
    Failed(Error, Instant),
}

impl<'a> Server<'a> {
    fn of(way: Option<&'a Way>, arrival: &'a Arrival, worker: &'a Rc<Worker>) -> Self {
        match way {
            None => Self::None,
            Some(way) if way.route.terms.chain.sees_connections() => {
                Self::Asked(way, arrival, Box::pin(way.meet(arrival, worker)))
            }
            Some(way) => Self::Ahead(None, Dial::of(way, None, arrival)),
        }
    }

    /// Ready once it has said something, or closed its side.
    fn poll_speaks(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Asked(way, arrival, asking) = self {
            let Poll::Ready(met) = asking.as_mut().poll(cx) else { return Poll::Pending };
            *self = match met.may_pass() {
                true => {
                    let dial = Dial::of(way, met.detour(way), arrival);
                    Self::Ahead(Some(met), dial)
                }
                false => Self::Held(met),
            };
        }
        match self {
            Self::Ahead(_, dial) => dial.poll_speaks(cx),
            _ => Poll::Pending,
        }
    }

    /// What plugins have said, and the connection that was made ahead.
    async fn met(self) -> (Option<Met>, Option<Dial<'a>>) {
        match self {
            Self::Asked(_, _, asking) => (Some(asking.await), None),
            server => server.into_met(),
        }
    }

    /// What they have said so far.
    fn into_met(self) -> (Option<Met>, Option<Dial<'a>>) {
        match self {
            Self::None | Self::Asked(..) => (None, None),
            Self::Held(met) => (Some(met), None),
            Self::Ahead(met, dial) => (met, Some(dial)),
        }
    }

    /// The connection was one of this route, and is over.
    fn over(self, why: &'static str) {
        if let (Some(met), _) = self.into_met() {
            met.over(why);
        }
    }

    /// The connection is none of this route. Returns what was made ahead.
    fn forget(self) -> Option<Dial<'a>> {
        let (met, dial) = self.into_met();
        if let Some(met) = met {
            met.forget();
        }
        dial
    }

    /// Leaves the connection to a request for the same server, which would open one itself. It is waited
    /// for where the request can be for no other one.
    async fn hand_over(self, outlook: &Outlook, arrival: &Arrival) {
        let is_shared = |way: &Way| way.route.route.protocol == RouteProtocol::Any;
        let dial = self.forget();
        if !outlook.way.as_ref().is_some_and(is_shared) {
            return;
        }
        let lease = match dial {
            Some(Dial::There(lease)) => Some(lease),
            Some(Dial::Begun { dialled, is_begun: true }) if arrival.sni.is_some() => {
                timeout(HAND_OVER, dialled).await.ok().and_then(Result::ok)
            }
            _ => None,
        };
        if let Some(lease) = lease {
            lease.keep();
        }
    }
}

impl<'a> Dial<'a> {
    fn of(way: &'a Way, to: Option<Rc<Pool>>, arrival: &'a Arrival) -> Self {
        let dialled = Box::pin(async move { way.dial(to.as_ref(), arrival).await });
        Self::Begun { dialled, is_begun: false }
    }

    fn poll_speaks(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Begun { dialled, is_begun } = self {
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

    async fn reach(self) -> Result<Lease, Error> {
        match self {
            Self::Begun { dialled, .. } => dialled.await,
            Self::There(lease) => Ok(lease),
            Self::Failed(error, _) => Err(error),
        }
    }
}
