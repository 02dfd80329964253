//! A connection that carries bytes: to the server of its route, and relay.

use super::{
    admit::{Opening, Pass},
    answer::Error,
    arrival::Arrival,
    client::Client,
    stream::ClientStream,
    tunnel::{Course, Line, Tunnel, Upstream, Visit},
    worker::Worker,
};
use crate::{
    drain::Guard,
    relay::Side,
    route::Captures,
    snapshot::{LocalRoute, LocalTarget},
    upstream::{Io, Lease, Pool, Tries},
};
use bytes::Bytes;
use std::{rc::Rc, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Where a connection's bytes go.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) route: Rc<LocalRoute>,
    pub(super) captures: Captures,
    /// What the client asked for in a TLS handshake that does not end here.
    pub(super) server_name: Option<Box<str>>,
    /// When the connection was there, with its TLS handshake done where it has one.
    pub(super) began: Instant,
}

/// Serves one connection of a listener that has nothing else, up to the tunnel that it is.
pub(super) async fn serve(
    stream: ClientStream,
    arrival: &Arrival,
    route: Rc<LocalRoute>,
    worker: &Rc<Worker>,
    patience: Duration,
    mut guard: Guard,
) -> Option<Box<Tunnel>> {
    let way = Way::new(route, Captures::default(), Instant::now());
    if !way.route.terms.chain.sees_connections() {
        let opening = Pass::default().dial(&way, arrival, worker).await?;
        return way.open(Side { io: stream, early: Bytes::new() }, opening, arrival, worker, guard);
    }
    let mut client = Client::new(stream, worker.timers.take());
    let pass = way.admit(None, &mut client, (arrival, worker), patience, &mut guard).await?;
    let opening = pass.dial(&way, arrival, worker).await?;
    worker.timers.put(client.timer);
    let early = client.inbox.take(&worker.buffers);
    way.open(Side { io: client.io, early }, opening, arrival, worker, guard)
}

impl Way {
    pub(super) fn new(route: Rc<LocalRoute>, captures: Captures, began: Instant) -> Self {
        Self { route, captures, server_name: None, began }
    }

    /// The same, for a client whose TLS passes through and that asked for this name.
    pub(super) fn named(self, name: Box<str>) -> Self {
        Self { server_name: Some(name).filter(|name| !name.is_empty()), ..self }
    }

    /// Connects to a server of this pool, or else of the route.
    ///
    /// # Errors
    /// Fails as that does; and where it is not known, where to.
    pub(super) async fn dial(&self, to: Option<&Rc<Pool>>, arrival: &Arrival) -> Result<Lease, Error> {
        if let Some(pool) = to {
            return self.lease(pool, arrival).await;
        }
        let (pool, goal) = match &self.route.terms.target {
            LocalTarget::Pool(pool) => (Rc::clone(pool), None),
            LocalTarget::Asked(goal) => {
                (goal.pool(arrival, |name| self.captures.get(name)).await?, Some(goal))
            }
            LocalTarget::Registry(_) | LocalTarget::Component(_) | LocalTarget::Respond => {
                return Err(Error::NoRoute);
            }
        };
        self.lease(&pool, arrival).await.map_err(|error| match goal {
            Some(goal) => goal.explain(error, arrival),
            None => error,
        })
    }

    async fn lease(&self, pool: &Rc<Pool>, arrival: &Arrival) -> Result<Lease, Error> {
        let mut tries = Tries::of_tunnel(self.route.terms.attempts).of_client(Some(arrival.ends(None)));
        pool.lease(&mut tries, self.route.terms.timeouts.connect).await.map_err(Error::Upstream)
    }

    /// The tunnel between a client and the server that is there for it.
    pub(super) fn open(
        &self,
        client: Side<ClientStream>,
        opening: Opening,
        arrival: &Arrival,
        worker: &Rc<Worker>,
        guard: Guard,
    ) -> Option<Box<Tunnel>> {
        let Opening { lease, closing } = opening;
        let (io, _seat) = match lease.into_parts() {
            // Nobody asked for a stream.
            (Io::Http2(_) | Io::Local(_), _) => return None,
            parts => parts,
        };
        let (client_address, route) = (arrival.peer, Arc::clone(&self.route.name));
        let line = Line::Connection(Visit { client: client_address, route, began: self.began, closing });
        let upstream = Upstream { side: Side { io, early: Bytes::new() }, _seat };
        Some(Box::new(Tunnel::new(client, Course::new(upstream, &self.route, line, worker, guard))))
    }

    /// Tells the log why there is no tunnel; the client cannot be told.
    pub(super) fn report(&self, error: &Error, arrival: &Arrival) {
        let (route, client) = (&*self.route.name, arrival.peer);
        if error.is_of_backend() {
            tracing::warn!(route, %client, %error, "a TCP connection could not be passed on");
        } else {
            // What a VM does not listen on is its owner's to know.
            tracing::debug!(route, %client, %error, "a TCP connection was closed");
        }
    }
}
