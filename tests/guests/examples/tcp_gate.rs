//! Says to connections what its configuration does (`accept`), and to their first bytes what these ask for.

use std::time::Duration;
use vers_plugin::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Gate {
    /// `next`, `close`, `reset`, `route`, `panic`, `peek`, or `certificate` (with `to` in it).
    accept: String,
    /// What is peeked at, at least.
    #[serde(default)]
    least: u32,
    #[serde(default = "minute", with = "duration")]
    within: Duration,
    /// Where `route` goes, and `ALT`.
    #[serde(default)]
    to: String,
}

fn minute() -> Duration {
    Duration::from_secs(60)
}

impl TcpFilter for Gate {
    fn on_accept(&self, conn: &Connection) -> TcpVerdict {
        conn.exchange().set("accepted", "1").expect("a small value");
        match self.accept.as_str() {
            "close" => TcpVerdict::close("told-to-close"),
            "reset" => TcpVerdict::reset("told-to-reset"),
            "route" => TcpVerdict::route_to(&self.to),
            "panic" => panic!("told to panic"),
            "certificate" => match conn.client_certificate() {
                Some(certificate) if certificate.contains(&self.to) => TcpVerdict::Next,
                _ => TcpVerdict::close("no-certificate"),
            },
            "peek" => TcpVerdict::peek(self.least, self.within),
            _ => TcpVerdict::Next,
        }
    }
}

impl TcpBytesFilter for Gate {
    fn on_first_bytes(&self, conn: &Connection, bytes: Vec<u8>, more: bool) -> TcpVerdict {
        assert_eq!(conn.exchange().get("accepted").as_deref(), Some(&b"1"[..]), "what was stored before");
        log::info(format!("peeked {} bytes, more: {more}", bytes.len()));
        match bytes.as_slice() {
            [b'B', b'A', b'D', ..] => TcpVerdict::close("bad-bytes"),
            [b'A', b'L', b'T', ..] => TcpVerdict::route_to(&self.to),
            [b'L', b'O', b'S', b'T', ..] => TcpVerdict::route_to("nowhere"),
            [b'P', b'A', b'N', b'I', b'C', ..] => panic!("told to panic by bytes"),
            // As many more as the second byte says; and where there cannot be more, the first ones count.
            [b'N', more_bytes, rest @ ..] if rest.len() < usize::from(*more_bytes) && more => {
                TcpVerdict::peek(2 + u32::from(*more_bytes), self.within)
            }
            // The mistake that is nearest: it asks for as many as before.
            [b'S', b'A', b'M', b'E', rest @ ..] if !rest.contains(&b'!') => match more {
                true => TcpVerdict::peek(self.least, self.within),
                false => TcpVerdict::close("no-end"),
            },
            [b'N', _, rest @ ..] if rest.contains(&b'!') => TcpVerdict::close("shouting"),
            [b'F', b'O', b'R', b'E', b'V', b'E', b'R', ..] => TcpVerdict::peek(u32::MAX, self.within),
            _ => TcpVerdict::Next,
        }
    }
}
vers_plugin::export!(Gate: tcp_filter, tcp_bytes_filter);
