//! One request and its answer, as the hooks of a chain see them.

use super::Connection;
use crate::{
    ids::{ClientAddr, RequestId},
    message::{RequestHead, ResponseHead},
};
use http::StatusCode;
use std::{sync::Arc, time::Duration};

/// How many bytes all values of one exchange may have together, with their keys and [`OVERHEAD`] for each.
const VALUES_LIMIT: usize = 16 * 1024;

/// What a value takes beside its key and itself, about.
const OVERHEAD: usize = 64;

/// One request and its answer. It is moved into the store of the instance that is called, and back.
#[derive(Debug, Default)]
pub struct Exchange {
    /// What the host knows; absent only in an instance that nobody calls.
    pub facts: Option<Facts>,
    /// The request's head, until it is sent to the backend.
    pub request: Option<RequestHead>,
    /// The answer's head, once there is one.
    pub response: Option<ResponseHead>,
    /// What became of both, once they are over.
    pub completed: Option<Completed>,
    /// The connection, where it carries bytes and no requests.
    pub connection: Option<Box<Connection>>,
    /// Bytes of the body that the called plugin wants to see, where it does.
    pub(super) wanted: Option<u64>,
    /// Plugins that have asked for the body, by their positions in the chain.
    pub(super) body_for: Vec<usize>,
    /// Whether no hook will see what is stored from now on.
    pub(super) is_over: bool,
    values: Vec<Value>,
    values_size: usize,
    /// Whose turn it is: the position of the called plugin in its chain.
    pub(super) caller: usize,
}

/// What became of an exchange.
#[derive(Debug)]
pub struct Completed {
    /// The client's method.
    pub method: Box<str>,
    /// `host[:port]`, as the client asked for it.
    pub authority: Box<str>,
    /// The client's path, without the query.
    pub path: Box<str>,
    /// What the client was sent; none where it left before.
    pub status: Option<StatusCode>,
    /// From the request's head to the answer's.
    pub head: Option<Duration>,
    /// From the request's head to the end.
    pub total: Duration,
    /// Bytes to the backend.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
    /// The plugin that answered, and why.
    pub answered_by: Option<(String, String)>,
    /// Code of the gateway's own error.
    pub error: Option<&'static str>,
    /// The answer did not come to its end.
    pub broke_off: bool,
}

/// What the host knows about an exchange.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The request's id.
    pub id: RequestId,
    /// Name of the route.
    pub route: Arc<str>,
    /// The client, after trusted proxies.
    pub client: ClientAddr,
    /// The socket's other end.
    pub peer: ClientAddr,
    /// The port that was connected to.
    pub local_port: u16,
    /// What the route's patterns captured.
    pub captures: Vec<(Box<str>, Box<str>)>,
    /// Whether the request asks for another protocol.
    pub is_upgrade: bool,
}

#[derive(Debug)]
struct Value {
    owner: usize,
    key: String,
    value: Vec<u8>,
}

impl Exchange {
    /// An exchange of which the request is known.
    pub fn new(facts: Facts, request: RequestHead) -> Self {
        Self { facts: Some(facts), request: Some(request), ..Self::default() }
    }

    /// One that is over.
    pub fn over(facts: Facts) -> Self {
        Self { facts: Some(facts), ..Self::default() }
    }

    /// A connection that carries bytes.
    pub fn connected(facts: Facts, connection: Connection) -> Self {
        Self { facts: Some(facts), connection: Some(Box::new(connection)), ..Self::default() }
    }

    /// What is known while a body is on its way.
    pub(super) fn of_body(facts: Option<Facts>) -> Self {
        Self { facts, is_over: true, ..Self::default() }
    }

    /// Forgets what hooks have stored.
    pub fn forget(&mut self) {
        (self.values, self.values_size) = (Vec::new(), 0);
    }

    pub(super) fn value(&self, key: &str) -> Option<&[u8]> {
        self.values
            .iter()
            .find(|value| value.owner == self.caller && value.key == key)
            .map(|value| value.value.as_slice())
    }

    /// As if the plugin at this place of its chain had asked for the body: for who tries a plugin out.
    pub fn has_asked_for_body(&mut self, link: usize) {
        self.body_for.clear();
        self.body_for.push(link);
    }

    /// Stores a value of the called plugin; false where that exceeds the limit.
    pub(super) fn set_value(&mut self, key: String, value: Vec<u8>) -> bool {
        let old = self.value(&key).map_or(0, |old| OVERHEAD + key.len() + old.len());
        let size = self.values_size - old + OVERHEAD + key.len() + value.len();
        if size > VALUES_LIMIT {
            return false;
        }
        self.values_size = size;
        let owner = self.caller;
        match self.values.iter_mut().find(|known| known.owner == owner && known.key == key) {
            Some(known) => known.value = value,
            None => self.values.push(Value { owner, key, value }),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_belong_to_their_plugin_and_are_bounded() {
        let mut exchange = Exchange::default();
        assert!(exchange.set_value("k".to_owned(), b"one".to_vec()));
        exchange.caller = 1;
        assert_eq!(exchange.value("k"), None, "another plugin's value");
        assert!(exchange.set_value("k".to_owned(), vec![0; VALUES_LIMIT - 2 * OVERHEAD - 10]));
        assert!(!exchange.set_value("l".to_owned(), vec![0; 10]), "over the limit");
        assert!(exchange.set_value("k".to_owned(), Vec::new()), "a smaller value takes its place");
        assert!(exchange.set_value("l".to_owned(), vec![0; 10]));
        exchange.caller = 0;
        assert_eq!(exchange.value("k"), Some(b"one".as_slice()));
    }

    #[test]
    fn many_small_values_take_room_too() {
        let mut exchange = Exchange::default();
        let kept = (0..8000).filter(|number| exchange.set_value(format!("{number:x}"), Vec::new())).count();
        assert!(kept < VALUES_LIMIT / OVERHEAD, "{kept}");
    }
}
