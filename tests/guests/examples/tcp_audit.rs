//! Tells `url` what became of each connection, and what was known of it at the beginning.

use std::{fmt::Write as _, time::Duration};
use vers_plugin::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Audit {
    url: String,
    /// Why all connections are refused, if they are.
    #[serde(default)]
    refuse: Option<String>,
    /// Whether `url` is asked before anybody is let in.
    #[serde(default)]
    asks: bool,
}

impl TcpFilter for Audit {
    fn on_accept(&self, conn: &Connection) -> TcpVerdict {
        let mut facts = String::new();
        let mut line = |name: &str, value: Option<String>| {
            let _ = writeln!(facts, "{name}: {}", value.as_deref().unwrap_or("none"));
        };
        line("tls", Some(conn.is_tls().to_string()));
        line("proxied", Some(conn.is_proxied().to_string()));
        line("client-port", Some(conn.client_port().to_string()));
        line("certificate", conn.client_certificate());
        conn.exchange().set("facts", facts).expect("small values");
        if self.asks && http::get(&self.url).send().is_err() {
            return TcpVerdict::close("no-answer");
        }
        match &self.refuse {
            Some(reason) => TcpVerdict::close(reason),
            None => TcpVerdict::Next,
        }
    }
}

impl TcpLog for Audit {
    fn on_close(&self, closed: &Closed) {
        let x = closed.exchange();
        let mut text = x.get("facts").and_then(|facts| String::from_utf8(facts).ok()).unwrap_or_default();
        let mut line = |name: &str, value: Option<String>| {
            let _ = writeln!(text, "{name}: {}", value.as_deref().unwrap_or("none"));
        };
        line("route", Some(x.route()));
        line("client", Some(x.client_address()));
        line("port", Some(x.local_port().to_string()));
        line("vm", x.capture("vm"));
        line("server-name", closed.server_name());
        line("took-time", Some((closed.duration() > Duration::ZERO).to_string()));
        line("sent", Some(closed.bytes_to_server().to_string()));
        line("received", Some(closed.bytes_to_client().to_string()));
        line("why", Some(closed.why()));
        line("refused-by", closed.refused_by());
        line("reason", closed.reason());
        if let Err(error) = http::post(&self.url).body(text).send() {
            log::warn(format!("not told: {error}"));
        }
    }
}
vers_plugin::export!(Audit: tcp_filter, tcp_log);
