//! A raw TCP connection: its listener has one route; connect, and relay.

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
    snapshot::{LocalRoute, LocalTarget},
    upstream::Tries,
};
use bytes::Bytes;
use std::{rc::Rc, sync::Arc};
use tokio::time::Instant;

/// Serves one connection of a TCP route, up to the tunnel that it is.
pub(super) async fn serve(
    stream: ClientStream,
    arrival: &Arrival,
    route: Rc<LocalRoute>,
    worker: &Rc<Worker>,
    guard: Guard,
) -> Option<Tunnel> {
    let (began, client) = (Instant::now(), arrival.peer);
    let mut tries = Tries::of_tunnel(route.attempts).of_client(arrival.ends);
    let dialled = async {
        let (pool, goal) = match &route.target {
            LocalTarget::Pool(pool) => (Rc::clone(pool), None),
            LocalTarget::Asked(goal) => (goal.pool(arrival, |_| None).await?, Some(goal)),
            LocalTarget::Respond => return Err(Error::NoRoute),
        };
        let dialled = pool.tunnel(&mut tries, route.timeouts.connect).await.map_err(Error::Upstream);
        dialled.map_err(|error| match goal {
            Some(goal) => goal.explain(error, arrival),
            None => error,
        })
    };
    match dialled.await {
        Ok((io, _seat)) => {
            let line = Line::Connection { client, route: Arc::clone(&route.name), began };
            let upstream = Upstream { side: Side { io, early: Bytes::new() }, _seat };
            let client = Side { io: stream, early: Bytes::new() };
            Some(Tunnel::new(client, Course::new(upstream, &route, line, worker, guard)))
        }
        // What a VM does not listen on is its owner's to know.
        Err(error) if !error.is_of_backend() => {
            tracing::debug!(route = &*route.name, %client, %error, "a TCP connection was closed");
            None
        }
        Err(error) => {
            tracing::warn!(route = &*route.name, %client, %error, "a TCP connection could not be passed on");
            None
        }
    }
}
