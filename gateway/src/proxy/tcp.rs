//! A raw TCP connection: its listener has one route; connect, and relay.

use super::{access, tunnel::Tunnel, worker::Worker};
use crate::{
    ids::ClientAddr,
    relay::Side,
    snapshot::{LocalRoute, LocalTarget},
    upstream::Tries,
};
use bytes::Bytes;
use std::{rc::Rc, sync::Arc};
use tokio::{net::TcpStream, time::Instant};

/// Serves one connection of a TCP route.
pub(super) async fn serve(stream: TcpStream, peer: ClientAddr, route: Rc<LocalRoute>, worker: &Worker) {
    let LocalTarget::Pool(pool) = &route.target else { return };
    let began = Instant::now();
    let mut tries = Tries::of_tunnel(route.route.retries.attempts);
    match pool.tunnel(&mut tries, route.route.timeouts.connect).await {
        Ok((io, seat)) => {
            let upstream = Side { io, early: Bytes::new() };
            let tunnel = Tunnel::new(upstream, seat, &route, None);
            let name = Arc::clone(&route.name);
            // See there: the route must not live as long as the tunnel.
            drop(route);
            let summary = tunnel.run(Side { io: stream, early: Bytes::new() }, worker).await;
            if worker.local().shared.log.access {
                access::connection(peer, &name, began, &summary);
            }
        }
        Err(error) => {
            tracing::warn!(route = &*route.name, client = %peer, %error, "a TCP connection could not be passed on");
        }
    }
}
