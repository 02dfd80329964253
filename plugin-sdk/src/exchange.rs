//! The exchange that a hook is called for.

use crate::{EditError, host::types};

/// One request and its answer, or one connection of a TCP route: who asks, on which route, and what hooks keep for later hooks.
///
/// Every method asks the gateway, so keep what you need twice.
///
/// ```
/// use vers_plugin::testing;
///
/// let req = testing::request("GET", "/").client("192.0.2.7").capture("vm", "a1").build();
/// assert_eq!(req.exchange().client_address(), "192.0.2.7");
/// assert_eq!(req.exchange().capture("vm").as_deref(), Some("a1"));
/// ```
#[derive(Debug)]
pub struct Exchange(types::Exchange);

impl Exchange {
    pub(crate) fn new(handle: types::Exchange) -> Self {
        Self(handle)
    }

    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn simulated(&self) -> &types::Exchange {
        &self.0
    }

    /// Unique within this gateway; of a request, the `request_id` of the access log.
    pub fn id(&self) -> String {
        self.0.id()
    }

    /// Name of the matched route.
    pub fn route(&self) -> String {
        self.0.route()
    }

    /// Address of the client, without port. The gateway has evaluated forwarding headers of trusted
    /// proxies; an IPv4 client of a dual-stack listener appears as IPv4.
    ///
    /// ```
    /// # let req = vers_plugin::testing::request("GET", "/").build();
    /// let is_loopback = req.exchange().client_address().parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    /// ```
    pub fn client_address(&self) -> String {
        self.0.client_address()
    }

    /// Address of the connection's other end, without port: the client's, or the last proxy's.
    pub fn peer_address(&self) -> String {
        self.0.peer_address()
    }

    /// The port that the client connected to.
    pub fn local_port(&self) -> u16 {
        self.0.local_port()
    }

    /// What a `{name}` in the matched route's host or path captured.
    pub fn capture(&self, name: &str) -> Option<String> {
        self.0.capture(name)
    }

    /// A value that an earlier hook of this plugin stored for this exchange.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.0.get(key)
    }

    /// Stores a value for later hooks of this plugin and this exchange, which may run in another
    /// instance.
    ///
    /// ```
    /// # let req = vers_plugin::testing::request("GET", "/").build();
    /// req.exchange().set("user", "ada")?;
    /// assert_eq!(req.exchange().get("user").as_deref(), Some(&b"ada"[..]));
    /// # Ok::<(), vers_plugin::EditError>(())
    /// ```
    ///
    /// # Errors
    /// [`EditError::TooLarge`] when the exchange's values pass 16 KiB in all, their keys and 64 bytes for each included.
    pub fn set(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), EditError> {
        Ok(self.0.set(key, value.as_ref())?)
    }
}
