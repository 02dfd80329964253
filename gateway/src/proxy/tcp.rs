//! A raw TCP connection: its listener has one route; connect, and relay.

use super::{tunnel::Tunnel, worker::Worker};
use crate::{
    ids::ClientAddr,
    relay::Side,
    snapshot::{LocalRoute, LocalTarget},
};
use bytes::Bytes;
use std::rc::Rc;
use tokio::net::TcpStream;

/// Serves one connection of a TCP route.
pub(super) async fn serve(stream: TcpStream, peer: ClientAddr, route: Rc<LocalRoute>, worker: &Worker) {
    let LocalTarget::Pool(pool) = &route.target else { return };
    match pool.tunnel(route.route.timeouts.connect).await {
        Ok(io) => {
            let upstream = Side { io, early: Bytes::new() };
            let tunnel = Tunnel { upstream, route: Rc::clone(&route), entry: None };
            tunnel.run(Side { io: stream, early: Bytes::new() }, worker).await;
        }
        Err(error) => {
            tracing::warn!(route = &*route.route.name, client = %peer, %error, "a TCP connection could not be passed on");
        }
    }
}
