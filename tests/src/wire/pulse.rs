//! Round trips through the gateway's only worker, so that what was sent before them was read.

use crate::client::Raw;
use std::net::SocketAddr;

/// A connection for round trips: when one is over, the worker has looked at everything that was sent
/// before. So bytes can be sent one by one and be read one by one, without waiting for time to pass.
#[derive(Debug)]
pub struct Pulse(Raw);

impl Pulse {
    /// The route that answers, to be added to a configuration.
    pub const ROUTE: &str = "[[route]]\nhost = \"pulse\"\nto = { respond = { status = 204 } }\n";

    /// Connects.
    pub async fn of(gateway: SocketAddr) -> Self {
        Self(Raw::connect(gateway).await)
    }

    /// One round trip.
    ///
    /// # Panics
    /// Panics where the gateway does not answer.
    pub async fn beat(&mut self) {
        self.0.send("GET / HTTP/1.1\r\nhost: pulse\r\n\r\n").await;
        let head = self.0.head().await;
        assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    }
}
