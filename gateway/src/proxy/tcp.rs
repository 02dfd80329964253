//! A raw TCP connection: its listener has one route; connect, and relay.

use super::{
    arrival::Arrival,
    tunnel::{Line, Tunnel, Upstream},
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
use tokio::{net::TcpStream, time::Instant};

/// Serves one connection of a TCP route, up to the tunnel that it is.
pub(super) async fn serve(
    stream: TcpStream,
    arrival: Arrival,
    route: Rc<LocalRoute>,
    worker: &Rc<Worker>,
    guard: Guard,
) -> Option<Tunnel> {
    let LocalTarget::Pool(pool) = &route.target else { return None };
    let (began, client) = (Instant::now(), arrival.client());
    let mut tries = Tries::of_tunnel(route.attempts);
    match pool.tunnel(&mut tries, route.timeouts.connect).await {
        Ok((io, _seat)) => {
            let side = |io| Side { io, early: Bytes::new() };
            let line = Line::Connection { client, route: Arc::clone(&route.name), began };
            let upstream = Upstream { side: side(io), _seat };
            Some(Tunnel::new(side(stream), upstream, &route, line, worker, guard))
        }
        Err(error) => {
            tracing::warn!(route = &*route.name, %client, %error, "a TCP connection could not be passed on");
            None
        }
    }
}
