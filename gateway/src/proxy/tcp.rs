//! A connection that carries bytes: to the server of its route, and relay.

use super::{
    answer::Error,
    arrival::Arrival,
    stream::ClientStream,
    tunnel::{Course, Line, Tunnel, Upstream},
    worker::Worker,
};
use crate::{
    drain::Guard,
    relay::Side,
    route::Captures,
    snapshot::{LocalRoute, LocalTarget},
    upstream::{Io, Lease, Tries},
};
use bytes::Bytes;
use std::{rc::Rc, sync::Arc};
use tokio::time::Instant;

/// Where a connection's bytes go.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) route: Rc<LocalRoute>,
    captures: Captures,
    began: Instant,
}

/// Serves one connection of a listener that has nothing else, up to the tunnel that it is.
pub(super) async fn serve(
    stream: ClientStream,
    arrival: &Arrival,
    route: Rc<LocalRoute>,
    worker: &Rc<Worker>,
    guard: Guard,
) -> Option<Tunnel> {
    let way = Way::new(route, Captures::default());
    match way.dial(arrival).await {
        Ok(lease) => way.open(Side { io: stream, early: Bytes::new() }, lease, arrival, worker, guard),
        Err(error) => {
            way.report(&error, arrival);
            None
        }
    }
}

impl Way {
    pub(super) fn new(route: Rc<LocalRoute>, captures: Captures) -> Self {
        Self { route, captures, began: Instant::now() }
    }

    /// Connects to a server of the route.
    ///
    /// # Errors
    /// Fails as that does; and where it is not known, where to.
    pub(super) async fn dial(&self, arrival: &Arrival) -> Result<Lease, Error> {
        let mut tries = Tries::of_tunnel(self.route.terms.attempts).of_client(arrival.ends);
        let (pool, goal) = match &self.route.terms.target {
            LocalTarget::Pool(pool) => (Rc::clone(pool), None),
            LocalTarget::Asked(goal) => {
                (goal.pool(arrival, |name| self.captures.get(name)).await?, Some(goal))
            }
            LocalTarget::Registry(_) | LocalTarget::Respond => return Err(Error::NoRoute),
        };
        let leased = pool.lease(&mut tries, self.route.terms.timeouts.connect).await.map_err(Error::Upstream);
        leased.map_err(|error| match goal {
            Some(goal) => goal.explain(error, arrival),
            None => error,
        })
    }

    /// The tunnel between a client and the server of this lease.
    pub(super) fn open(
        &self,
        client: Side<ClientStream>,
        lease: Lease,
        arrival: &Arrival,
        worker: &Rc<Worker>,
        guard: Guard,
    ) -> Option<Tunnel> {
        let (io, _seat) = match lease.into_parts() {
            (Io::Tcp(io), seat) => (io, seat),
            // Nobody asked for a stream.
            (Io::Http2(_), _) => return None,
        };
        let line =
            Line::Connection { client: arrival.peer, route: Arc::clone(&self.route.name), began: self.began };
        let upstream = Upstream { side: Side { io, early: Bytes::new() }, _seat };
        Some(Tunnel::new(client, Course::new(upstream, &self.route, line, worker, guard)))
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
