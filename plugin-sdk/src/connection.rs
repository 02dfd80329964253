//! A connection of a TCP route, and what becomes of it.

use crate::{Exchange, host::types};
use std::{cell::OnceCell, time::Duration};

/// A connection of a TCP or SSH route, of which nothing has been passed on.
///
/// Every method asks the gateway, so keep what you need twice.
///
/// ```
/// use vers_plugin::testing;
///
/// let conn = testing::connection().client("192.0.2.7").server_name("db.example.com").build();
/// assert_eq!(conn.exchange().client_address(), "192.0.2.7");
/// assert_eq!(conn.server_name().as_deref(), Some("db.example.com"));
/// ```
#[derive(Debug)]
pub struct Connection {
    handle: types::Connection,
    exchange: OnceCell<Exchange>,
}

impl Connection {
    pub(crate) fn new(handle: types::Connection) -> Self {
        Self { handle, exchange: OnceCell::new() }
    }

    #[cfg(target_family = "wasm")]
    pub(crate) fn want_bytes(&self, least: u32, within: Duration) {
        self.handle.want_bytes(least, u32::try_from(within.as_millis()).unwrap_or(u32::MAX));
    }

    /// Who it is from and on which route, and what hooks keep of it for later hooks.
    pub fn exchange(&self) -> &Exchange {
        self.exchange.get_or_init(|| Exchange::new(self.handle.exchange()))
    }

    /// The port that the client's address has.
    pub fn client_port(&self) -> u16 {
        self.handle.client_port()
    }

    /// The name that the client asked for in its TLS handshake (SNI), in lower case: where TLS ends at the
    /// gateway, or the gateway looked for the name to find the route.
    pub fn server_name(&self) -> Option<String> {
        self.handle.server_name()
    }

    /// Whether TLS ends at the gateway: first bytes are those that were inside of it.
    pub fn is_tls(&self) -> bool {
        self.handle.is_tls()
    }

    /// The certificate that the client showed in that handshake and that was verified, as the header
    /// `x-forwarded-client-cert` has it: `Hash=…;Subject="…";URI="…";DNS="…"`.
    ///
    /// ```
    /// use vers_plugin::testing;
    ///
    /// let conn = testing::connection().client_certificate("Hash=00;Subject=\"CN=ada\"").build();
    /// assert!(conn.client_certificate().is_some_and(|shown| shown.contains("CN=ada")));
    /// ```
    pub fn client_certificate(&self) -> Option<String> {
        self.handle.client_certificate()
    }

    /// Whether a trusted proxy in front has told who the client is (PROXY protocol).
    pub fn is_proxied(&self) -> bool {
        self.handle.is_proxied()
    }
}

/// What a [`TcpFilter`](crate::TcpFilter) or [`TcpBytesFilter`](crate::TcpBytesFilter) decides about a
/// connection.
///
/// ```
/// use std::time::Duration;
/// use vers_plugin::prelude::*;
///
/// fn decide(conn: &Connection) -> TcpVerdict {
///     match conn.server_name().as_deref() {
///         Some("db.example.com") => TcpVerdict::Next,
///         Some("beta.example.com") => TcpVerdict::route_to("beta"),
///         Some(_) => TcpVerdict::close("unknown-name"),
///         None => TcpVerdict::peek(8, Duration::from_secs(1)),
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcpVerdict {
    /// Go on: to the next plugin, then to the server.
    Next,
    /// Go on to the next plugin; and when all of them have let the connection pass, show
    /// [`TcpBytesFilter::on_first_bytes`](crate::TcpBytesFilter::on_first_bytes) the first bytes, once there are
    /// at least so many, or this time is over, or the client has ended its side. No more than
    /// `limits = { peek = "16KiB" }` and the time that the listener gives to a head.
    Peek {
        /// At least so many bytes.
        least: u32,
        /// How long to wait for them.
        within: Duration,
    },
    /// Go on to the next plugin, and then to this backend instead of the route's own, as
    /// [`Verdict::RouteTo`](crate::Verdict::RouteTo) says.
    RouteTo(String),
    /// End the connection. Later plugins and the server do not see it.
    Refuse {
        /// Whether the client sees it reset (RST); else it is closed in order.
        reset: bool,
        /// Why, as one word for machines; it reaches the access log, never the client.
        reason: String,
    },
}

impl TcpVerdict {
    /// To look at the first bytes; see [`Peek`](Self::Peek).
    pub fn peek(least: u32, within: Duration) -> Self {
        Self::Peek { least, within }
    }

    /// To this backend instead of the route's own.
    ///
    /// ```
    /// use vers_plugin::TcpVerdict;
    ///
    /// assert_eq!(TcpVerdict::route_to("replica"), TcpVerdict::RouteTo("replica".into()));
    /// ```
    pub fn route_to(backend: impl Into<String>) -> Self {
        Self::RouteTo(backend.into())
    }

    /// Closes the connection in order.
    ///
    /// ```
    /// use vers_plugin::TcpVerdict;
    ///
    /// assert_eq!(TcpVerdict::close("full"), TcpVerdict::Refuse { reset: false, reason: "full".into() });
    /// ```
    pub fn close(reason: &str) -> Self {
        Self::Refuse { reset: false, reason: reason.into() }
    }

    /// Resets the connection: the client's end takes it for a failure.
    ///
    /// ```
    /// use vers_plugin::TcpVerdict;
    ///
    /// assert_eq!(TcpVerdict::reset("full"), TcpVerdict::Refuse { reset: true, reason: "full".into() });
    /// ```
    pub fn reset(reason: &str) -> Self {
        Self::Refuse { reset: true, reason: reason.into() }
    }
}

/// What became of a connection, once it is over.
///
/// ```
/// use vers_plugin::testing;
///
/// let closed = testing::closed("idle").bytes_to_server(100).bytes_to_client(2000).build();
/// assert_eq!((closed.why().as_str(), closed.bytes_to_server(), closed.bytes_to_client()), ("idle", 100, 2000));
/// ```
#[derive(Debug)]
pub struct Closed {
    handle: types::Closed,
    exchange: OnceCell<Exchange>,
}

impl Closed {
    pub(crate) fn new(handle: types::Closed) -> Self {
        Self { handle, exchange: OnceCell::new() }
    }

    /// Who it was from and on which route, and what earlier hooks of this plugin have stored.
    pub fn exchange(&self) -> &Exchange {
        self.exchange.get_or_init(|| Exchange::new(self.handle.exchange()))
    }

    /// As [`Connection::server_name`].
    pub fn server_name(&self) -> Option<String> {
        self.handle.server_name()
    }

    /// How long it was there.
    pub fn duration(&self) -> Duration {
        Duration::from_micros(self.handle.duration_us())
    }

    /// Bytes to the server.
    pub fn bytes_to_server(&self) -> u64 {
        self.handle.bytes_to_server()
    }

    /// Bytes to the client.
    pub fn bytes_to_client(&self) -> u64 {
        self.handle.bytes_to_client()
    }

    /// Why it ended: `closed` by both sides; `idle`; `broken` off by one of them; `refused` by a plugin;
    /// `fault` of a plugin; `stopped` with the gateway; or the code of the error for which there was no
    /// server (`upstream-refused`). There may be others later.
    pub fn why(&self) -> String {
        self.handle.why()
    }

    /// Name of the plugin that refused it, where it was one.
    pub fn refused_by(&self) -> Option<String> {
        self.handle.refused_by()
    }

    /// Why it did.
    pub fn reason(&self) -> Option<String> {
        self.handle.reason()
    }
}
