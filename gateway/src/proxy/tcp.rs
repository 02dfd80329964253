//! A raw TCP connection: its listener has one route; connect, and relay.

use super::{
    stream::ClientStream,
    tunnel::{Course, Line, Tunnel, Upstream},
    worker::Worker,
};
use crate::{
    drain::Guard,
    ids::ClientAddr,
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
    peer: ClientAddr,
    route: Rc<LocalRoute>,
    worker: &Rc<Worker>,
    guard: Guard,
) -> Option<Tunnel> {
    let LocalTarget::Pool(pool) = &route.target else { return None };
    let began = Instant::now();
    let mut tries = Tries::of_tunnel(route.attempts);
    match pool.tunnel(&mut tries, route.timeouts.connect).await {
        Ok((io, _seat)) => {
            let line = Line::Connection { client: peer, route: Arc::clone(&route.name), began };
            let upstream = Upstream { side: Side { io, early: Bytes::new() }, _seat };
            let client = Side { io: stream, early: Bytes::new() };
            Some(Tunnel::new(client, Course::new(upstream, &route, line, worker, guard)))
        }
        Err(error) => {
            tracing::warn!(route = &*route.name, client = %peer, %error, "a TCP connection could not be passed on");
            None
        }
    }
}
