//! Asks for the first bytes of connections, and has no hook for them.

use std::time::Duration;
use vers_plugin::prelude::*;

#[derive(Deserialize)]
struct Vain {}

impl TcpFilter for Vain {
    fn on_accept(&self, _: &Connection) -> TcpVerdict {
        TcpVerdict::peek(1, Duration::from_secs(60))
    }
}
vers_plugin::export!(Vain: tcp_filter);
