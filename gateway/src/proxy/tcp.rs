//! A raw TCP connection: its listener has one route; connect, and relay.

use super::{
    tunnel::{Line, Tunnel},
    worker::Worker,
};
use crate::{
    drain::Guard,
    ids::ClientAddr,
    relay::Side,
    snapshot::{LocalRoute, LocalTarget},
};
use bytes::Bytes;
use std::{rc::Rc, sync::Arc};
use tokio::{net::TcpStream, time::Instant};

/// Serves one connection of a TCP route, up to the tunnel that it is.
pub(super) async fn serve(
    stream: TcpStream,
    peer: ClientAddr,
    route: Rc<LocalRoute>,
    worker: &Rc<Worker>,
    guard: Guard,
) -> Option<Tunnel> {
    let LocalTarget::Pool(pool) = &route.target else { return None };
    let began = Instant::now();
    match pool.tunnel(route.route.timeouts.connect).await {
        Ok(io) => {
            let side = |io| Side { io, early: Bytes::new() };
            let line = Line::Connection { client: peer, route: Arc::clone(&route.name), began };
            Some(Tunnel::new(side(stream), side(io), &route, line, worker, guard))
        }
        Err(error) => {
            tracing::warn!(route = &*route.name, client = %peer, %error, "a TCP connection could not be passed on");
            None
        }
    }
}
