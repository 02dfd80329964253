//! `[limits]`: how much one client may ask for.

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::{ByteSize, size, whole};

/// How much one client may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Size of a request's or an answer's head, 8KiB to 1MiB. A larger request is answered 431.
    #[serde(deserialize_with = "size::<_, 8192, 1048576>")]
    pub header_size: ByteSize,
    /// Number of headers in a head, 1 to 1000. A request with more is answered 431.
    #[serde(deserialize_with = "whole::<_, u32, _, 1, 1000>")]
    #[schemars(range(min = 1, max = 1000))]
    pub headers: u32,
    /// Requests at a time on one HTTP/2 connection, 1 to 1000. Further ones wait at the client.
    #[serde(deserialize_with = "whole::<_, u32, _, 1, 1000>")]
    #[schemars(range(min = 1, max = 1000))]
    pub http2_streams: u32,
    /// Connections open at a time on each listener, 1 to 1000000. Further ones are answered 503 and
    /// closed.
    #[serde(deserialize_with = "whole::<_, u32, _, 1, 1000000>")]
    #[schemars(range(min = 1, max = 1000000))]
    pub connections: u32,
    /// Connections open at a time from one client on each listener, 1 to 1000000. Further ones are
    /// answered 503 and closed. A client is an IPv4 address, or an IPv6 network of 64 bits; proxies
    /// among `trusted_proxies` are none. By default any number.
    #[serde(deserialize_with = "whole::<_, u32, _, 1, 1000000>")]
    #[schemars(range(min = 1, max = 1000000))]
    pub connections_per_client: Option<u32>,
    /// TLS handshakes under way at a time in each worker, 1 to 1000000. Further connections are closed.
    #[serde(deserialize_with = "whole::<_, u32, _, 1, 1000000>")]
    #[schemars(range(min = 1, max = 1000000))]
    pub handshakes: u32,
    /// Memory in each worker for bodies of requests that a plugin or the registry wants to see as a whole, 1MiB
    /// to 1TiB. A request whose body finds no room is answered 503.
    #[serde(deserialize_with = "size::<_, 1048576, 1099511627776>")]
    pub held_bodies: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_size: ByteSize::kib(64),
            headers: 100,
            http2_streams: 128,
            connections: 20_000,
            connections_per_client: None,
            handshakes: 4096,
            held_bodies: ByteSize::mib(64),
        }
    }
}
