//! One connection that carries bytes, as the hooks of a chain see it.

use super::Destination;
use std::{collections::VecDeque, time::Duration};

/// A connection of a route of bytes: what hooks may ask about it, and what they asked for.
#[derive(Debug, Default)]
pub struct Connection {
    /// The port of the client's address.
    pub client_port: u16,
    /// The name in the client's TLS handshake, in lower case.
    pub server_name: Option<Box<str>>,
    /// Whether TLS ends here.
    pub is_tls: bool,
    /// The certificate that the client showed, as a header would tell it.
    pub certificate: Option<Box<str>>,
    /// Whether a trusted proxy told who the client is.
    pub is_proxied: bool,
    /// What became of it, once it is over.
    pub closed: Option<Closed>,
    /// What plugins have said so far.
    pub said: Said,
}

/// What plugins have said of a connection so far.
#[derive(Debug, Default)]
pub struct Said {
    /// Where they send it, if not to the route's own server.
    pub(super) to: Option<Destination>,
    /// What the called one asks for: so many bytes, within this time.
    pub(super) asked: Option<(usize, Duration)>,
    /// Who wants to see first bytes, in the order of the chain.
    pub(super) wanted: VecDeque<Wanted>,
}

/// What became of a connection.
#[derive(Debug, Default, Clone)]
pub struct Closed {
    /// Since it was there.
    pub total: Duration,
    /// Bytes to the server.
    pub sent: u64,
    /// Bytes to the client.
    pub received: u64,
    /// Why it ended, as one word.
    pub why: &'static str,
    /// The plugin that refused it, and why.
    pub refused_by: Option<(String, String)>,
}

/// A plugin's wish to see the first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The plugin's number in its chain.
    pub link: usize,
    /// It wants at least so many.
    pub least: usize,
    /// It does not wait longer for them.
    pub within: Duration,
    /// It sees no more than so many.
    pub most: usize,
}

/// How a plugin refuses a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Whether the client sees it reset.
    pub reset: bool,
    /// Why, as one word for machines.
    pub reason: String,
}
