//! Run a plugin in ordinary tests: no WebAssembly, no gateway. Not there in components.
//!
//! ```
//! use vers_plugin::{prelude::*, testing::{self, MockHost}};
//!
//! #[derive(Debug, Deserialize)]
//! struct Gate { secret: String }
//!
//! impl HttpFilter for Gate {
//!     fn on_request(&self, req: &mut Request) -> Verdict {
//!         if req.bearer_matches(&self.secret) { Verdict::Next } else { Verdict::forbidden("no-token") }
//!     }
//! }
//! vers_plugin::export!(Gate: request_filter);
//!
//! # fn main() -> Result<(), Vec<ConfigProblem>> {
//! let gate: Gate = testing::configure(r#"secret = "fleet""#)?;
//! let _host = MockHost::new().secret("fleet", "s3cret");
//!
//! let mut req = testing::request("GET", "/").header("authorization", "Bearer s3cret").build();
//! assert_eq!(gate.on_request(&mut req), Verdict::Next);
//! let mut req = testing::request("GET", "/").build();
//! assert_eq!(gate.on_request(&mut req).reply().map(|reply| reply.status), Some(403));
//! # Ok(())
//! # }
//! ```

use crate::{
    Closed, Completed, ConfigProblem, Connection, Plugin, Request, Response, config, http,
    http::find,
    log::Level,
    simulation::{self, outbound_http as wit, types},
};
use std::cell::Cell;

/// Configures a plugin as the gateway does, from what stands in its `config` table.
///
/// ```
/// use vers_plugin::{prelude::*, testing};
///
/// #[derive(Debug, Deserialize)]
/// struct Limits { max: u8 }
/// impl HttpFilter for Limits {}
/// vers_plugin::export!(Limits: http_filter);
///
/// # fn main() {
/// let problems = testing::configure::<Limits>("max = 'ten'").unwrap_err();
/// assert_eq!(problems[0].path, "max");
/// assert_eq!(problems[0].message, r#"invalid type: string "ten", expected u8"#);
/// # }
/// ```
///
/// # Errors
/// What the plugin would report.
///
/// # Panics
/// On text that is not TOML.
pub fn configure<P: Plugin>(table: &str) -> Result<P, Vec<ConfigProblem>> {
    let table: serde_json::Value = toml::from_str(table).unwrap_or_else(|error| panic!("{error}"));
    config::parse(&table.to_string())
}

/// The gateway behind a test: what it holds for the plugin, and what the plugin did with it.
///
/// It acts for the thread that made it, until it is dropped; make one per test.
///
/// ```
/// use vers_plugin::{http, identity, log, testing::MockHost};
///
/// let host = MockHost::new().vm_id("a1").reply(201, "").fail(http::Error::Timeout);
/// assert_eq!(identity::vm_id().as_deref(), Some("a1"));
/// assert_eq!(http::post("https://example.com/").send().map(|answer| answer.status()), Ok(201));
/// assert_eq!(http::get("https://example.com/").send().err(), Some(http::Error::Timeout));
/// log::warn("twice");
/// assert_eq!(host.sent().len(), 2);
/// assert!(host.logged(log::Level::Warn, "twice"));
/// ```
#[derive(Debug)]
#[must_use = "the mock acts until it is dropped"]
pub struct MockHost {
    // Bound to its thread, as the simulation is.
    _thread: std::marker::PhantomData<*const ()>,
}

impl MockHost {
    /// A gateway without secrets, without a VM id, and that expects no requests.
    #[expect(clippy::new_without_default, reason = "it acts on the thread, which a default should not")]
    pub fn new() -> Self {
        simulation::with(|state| *state = simulation::State::default());
        Self { _thread: std::marker::PhantomData }
    }

    /// Sets a secret.
    pub fn secret(self, name: &str, value: &str) -> Self {
        simulation::with(|state| state.secrets.insert(name.into(), value.into()));
        self
    }

    /// Sets the VM's id.
    pub fn vm_id(self, id: &str) -> Self {
        simulation::with(|state| state.vm_id = Some(id.into()));
        self
    }

    /// Lets a plugin with this configuration, as JSON, go on with the work that is stopped.
    pub fn succeeded_by(self, config: &str) -> Self {
        simulation::with(|state| state.successor = Some(config.into()));
        self
    }

    /// Answers the next request that has no answer yet. A request without one is a panic.
    pub fn reply(self, status: u16, body: &str) -> Self {
        let answer = wit::Response { status, headers: Vec::new(), body: body.into() };
        simulation::with(|state| state.replies.push_back(Ok(answer)));
        self
    }

    /// Lets the next request that has no answer yet fail; for [`http::Error::Status`], answers it so.
    pub fn fail(self, error: http::Error) -> Self {
        let error = match error {
            http::Error::NotGranted => wit::Error::NotGranted,
            http::Error::InvalidRequest(detail) => wit::Error::InvalidRequest(detail),
            http::Error::Connect(detail) => wit::Error::Connect(detail),
            http::Error::Timeout => wit::Error::Timeout,
            http::Error::TooLarge => wit::Error::TooLarge,
            http::Error::Protocol(detail) => wit::Error::Protocol(detail),
            http::Error::Status(status, body) => return self.reply(status, &body),
        };
        simulation::with(|state| state.replies.push_back(Err(error)));
        self
    }

    /// Lets time pass: for [`clock`](crate::clock) and for what expires in [`kv`](crate::kv).
    pub fn advance(&self, time: std::time::Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        simulation::with(|state| state.clock = state.clock.saturating_add(nanoseconds));
    }

    /// Takes the requests that went out since the last call.
    pub fn sent(&self) -> Vec<Sent> {
        let sent = simulation::with(|state| std::mem::take(&mut state.sent));
        sent.into_iter()
            .map(|wit::Request { method, url, headers, body, .. }| Sent { method, url, headers, body })
            .collect()
    }

    /// What a metric has come to: a counter's sum, a gauge's number, the number of a histogram's values.
    /// None where it was never written with these values of its labels.
    pub fn metric(&self, name: &str, values: &[&str]) -> Option<f64> {
        simulation::with(|state| {
            let number = state.metrics.iter().position(|known| known == name)?;
            let values = values.iter().map(|value| String::from(*value)).collect();
            state.series.get(&(u32::try_from(number).ok()?, values)).copied()
        })
    }

    /// Whether a line of this level contains this text.
    pub fn logged(&self, level: Level, text: &str) -> bool {
        simulation::with(|state| state.lines.iter().any(|(l, line)| *l == level && line.contains(text)))
    }
}

impl Drop for MockHost {
    fn drop(&mut self) {
        simulation::with(|state| *state = simulation::State::default());
    }
}

/// A request that a plugin sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// `GET`, `POST`, …
    pub method: String,
    /// The absolute URL.
    pub url: String,
    /// Headers, as the plugin wrote them.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Sent {
    /// The first value of a header, if it is UTF-8.
    pub fn header_str(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body as JSON; null if it is something else.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A request to hand to a hook: from `192.0.2.1` to port 8080, on route `test`.
///
/// ```
/// use vers_plugin::testing;
///
/// let req = testing::request("GET", "/api?x=1").header("accept", "*/*").client("2001:db8::1").build();
/// assert_eq!(req.exchange().client_address(), "2001:db8::1");
/// ```
pub fn request(method: &str, path_and_query: &str) -> RequestBuilder {
    let request = types::Request {
        headers: types::Headers { is_of_request: true, ..types::Headers::default() },
        method: method.into(),
        authority: String::from("test.example").into(),
        path_and_query: String::from(path_and_query).into(),
        ..types::Request::default()
    };
    RequestBuilder { request, facts: facts() }
}

/// A request that is being put together.
#[derive(Debug)]
#[must_use]
pub struct RequestBuilder {
    request: types::Request,
    facts: types::Facts,
}

impl RequestBuilder {
    /// Adds a header, such as a client may send: any.
    pub fn header(self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.request.headers.fields.borrow_mut().push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// Sets `host[:port]`.
    pub fn authority(mut self, authority: &str) -> Self {
        self.request.authority = String::from(authority).into();
        self
    }

    /// Makes it a request for another protocol.
    pub fn upgrade(mut self) -> Self {
        self.request.is_upgrade = true;
        self
    }

    /// Sets the exchange's id.
    pub fn id(mut self, id: &str) -> Self {
        self.facts.id = id.into();
        self
    }

    /// Sets the name of the matched route.
    pub fn route(mut self, route: &str) -> Self {
        self.facts.route = route.into();
        self
    }

    /// Sets the client's address.
    pub fn client(mut self, address: &str) -> Self {
        self.facts.client = address.into();
        self
    }

    /// Sets the address of the connection's other end.
    pub fn peer(mut self, address: &str) -> Self {
        self.facts.peer = address.into();
        self
    }

    /// Sets the port that the client connected to.
    pub fn local_port(mut self, port: u16) -> Self {
        self.facts.local_port = port;
        self
    }

    /// Adds a capture of the matched route.
    pub fn capture(mut self, name: &str, value: &str) -> Self {
        self.facts.captures.insert(name.into(), value.into());
        self
    }

    /// The request.
    pub fn build(mut self) -> Request {
        self.request.exchange = types::Exchange(self.facts.into());
        Request::new(self.request)
    }
}

/// An answer to hand to a hook.
///
/// ```
/// use vers_plugin::testing;
///
/// let req = testing::request("GET", "/").build();
/// req.exchange().set("seen", "1")?;
/// let resp = testing::response(200).header("server", "nginx").to(&req).build();
/// assert_eq!(resp.exchange().get("seen").as_deref(), Some(&b"1"[..]));
/// # Ok::<(), vers_plugin::EditError>(())
/// ```
pub fn response(status: u16) -> ResponseBuilder {
    let exchange = types::Exchange(facts().into());
    ResponseBuilder(types::Response { exchange, status: Cell::new(status), ..types::Response::default() })
}

/// An answer that is being put together.
#[derive(Debug)]
#[must_use]
pub struct ResponseBuilder(types::Response);

impl ResponseBuilder {
    /// Adds a header.
    pub fn header(self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.0.headers.fields.borrow_mut().push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// Makes it the answer to this request: the same exchange.
    pub fn to(mut self, req: &Request) -> Self {
        self.0.exchange = req.exchange().simulated().clone();
        self
    }

    /// The answer.
    pub fn build(self) -> Response {
        Response::new(self.0)
    }
}

/// An exchange that is over, to hand to [`ExchangeLog`](crate::ExchangeLog): `GET /` of `test.example` on
/// route `test`, after a millisecond.
///
/// ```
/// use std::time::Duration;
/// use vers_plugin::testing;
///
/// let done = testing::completed(200).took(Duration::from_secs(2)).sent(512).build();
/// assert_eq!((done.status(), done.duration().as_secs(), done.response_bytes()), (Some(200), 2, 512));
/// ```
pub fn completed(status: u16) -> CompletedBuilder {
    CompletedBuilder(types::Completed {
        exchange: types::Exchange(facts().into()),
        method: "GET".into(),
        authority: "test.example".into(),
        path: "/".into(),
        status: Some(status),
        head_duration_us: Some(1000),
        duration_us: 1000,
        ..types::Completed::default()
    })
}

/// An exchange that is being put together.
#[derive(Debug)]
#[must_use]
pub struct CompletedBuilder(types::Completed);

impl CompletedBuilder {
    /// Makes it the end of this request: its exchange, method, authority and path.
    pub fn of(mut self, req: &Request) -> Self {
        self.0.exchange = req.exchange().simulated().clone();
        (self.0.method, self.0.authority) = (req.method().into(), req.authority().into());
        self.0.path = req.path().into();
        self
    }

    /// Sets the path.
    pub fn path(mut self, path: &str) -> Self {
        self.0.path = path.into();
        self
    }

    /// Sets how long it took.
    pub fn took(mut self, time: std::time::Duration) -> Self {
        self.0.duration_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.head_duration_us = Some(self.0.duration_us);
        self
    }

    /// Sets the bytes that the client was sent.
    pub fn sent(mut self, bytes: u64) -> Self {
        self.0.response_bytes = bytes;
        self
    }

    /// Sets the bytes that came with the request.
    pub fn received(mut self, bytes: u64) -> Self {
        self.0.request_bytes = bytes;
        self
    }

    /// Lets a plugin have answered it.
    pub fn answered_by(mut self, plugin: &str, reason: &str) -> Self {
        (self.0.answered_by, self.0.reason) = (Some(plugin.into()), Some(reason.into()));
        self
    }

    /// Lets the gateway have answered it, with this code.
    pub fn error(mut self, code: &str) -> Self {
        self.0.error = Some(code.into());
        self
    }

    /// Lets the client have left before there was an answer.
    pub fn unanswered(mut self) -> Self {
        (self.0.status, self.0.head_duration_us, self.0.broke_off) = (None, None, true);
        self
    }

    /// The exchange.
    pub fn build(self) -> Completed {
        Completed::new(self.0)
    }
}

/// A connection to hand to [`TcpFilter`](crate::TcpFilter): from `192.0.2.1` to port 8080, on route `test`,
/// without TLS.
///
/// ```
/// use vers_plugin::testing;
///
/// let conn = testing::connection().client("2001:db8::1").proxied().build();
/// assert_eq!((conn.exchange().client_address().as_str(), conn.is_proxied()), ("2001:db8::1", true));
/// ```
pub fn connection() -> ConnectionBuilder {
    let connection = types::Connection { client_port: 50_000, ..types::Connection::default() };
    ConnectionBuilder { connection, facts: facts() }
}

/// A connection that is being put together.
#[derive(Debug)]
#[must_use]
pub struct ConnectionBuilder {
    connection: types::Connection,
    facts: types::Facts,
}

impl ConnectionBuilder {
    /// Sets the client's address.
    pub fn client(mut self, address: &str) -> Self {
        self.facts.client = address.into();
        self
    }

    /// Sets the name of the matched route.
    pub fn route(mut self, route: &str) -> Self {
        self.facts.route = route.into();
        self
    }

    /// Sets the port that the client connected to.
    pub fn local_port(mut self, port: u16) -> Self {
        self.facts.local_port = port;
        self
    }

    /// Adds a capture of the matched route.
    pub fn capture(mut self, name: &str, value: &str) -> Self {
        self.facts.captures.insert(name.into(), value.into());
        self
    }

    /// Sets the name of its TLS handshake.
    pub fn server_name(mut self, name: &str) -> Self {
        self.connection.server_name = Some(name.into());
        self
    }

    /// Lets TLS end at the gateway.
    pub fn tls(mut self) -> Self {
        self.connection.is_tls = true;
        self
    }

    /// Lets the client have shown this certificate.
    pub fn client_certificate(mut self, shown: &str) -> Self {
        self.connection.client_certificate = Some(shown.into());
        self.tls()
    }

    /// Lets a proxy have told who the client is.
    pub fn proxied(mut self) -> Self {
        self.connection.is_proxied = true;
        self
    }

    /// The connection.
    pub fn build(mut self) -> Connection {
        self.connection.exchange = types::Exchange(self.facts.into());
        Connection::new(self.connection)
    }
}

/// A connection that is over, to hand to [`TcpLog`](crate::TcpLog): after a millisecond, for this reason.
///
/// ```
/// use vers_plugin::testing;
///
/// let conn = testing::connection().build();
/// conn.exchange().set("user", "ada")?;
/// let closed = testing::closed("closed").of(&conn).build();
/// assert_eq!(closed.exchange().get("user").as_deref(), Some(&b"ada"[..]));
/// # Ok::<(), vers_plugin::EditError>(())
/// ```
pub fn closed(why: &str) -> ClosedBuilder {
    ClosedBuilder(types::Closed {
        exchange: types::Exchange(facts().into()),
        duration_us: 1000,
        why: why.into(),
        ..types::Closed::default()
    })
}

/// A connection that is over, and being put together.
#[derive(Debug)]
#[must_use]
pub struct ClosedBuilder(types::Closed);

impl ClosedBuilder {
    /// Makes it the end of this connection.
    pub fn of(mut self, conn: &Connection) -> Self {
        self.0.exchange = conn.exchange().simulated().clone();
        self.0.server_name = conn.server_name();
        self
    }

    /// Sets how long it was there.
    pub fn took(mut self, time: std::time::Duration) -> Self {
        self.0.duration_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self
    }

    /// Sets the bytes to the server.
    pub fn bytes_to_server(mut self, bytes: u64) -> Self {
        self.0.bytes_to_server = bytes;
        self
    }

    /// Sets the bytes to the client.
    pub fn bytes_to_client(mut self, bytes: u64) -> Self {
        self.0.bytes_to_client = bytes;
        self
    }

    /// Lets a plugin have refused it.
    pub fn refused_by(mut self, plugin: &str, reason: &str) -> Self {
        (self.0.refused_by, self.0.reason) = (Some(plugin.into()), Some(reason.into()));
        self
    }

    /// The connection.
    pub fn build(self) -> Closed {
        Closed::new(self.0)
    }
}

fn facts() -> types::Facts {
    types::Facts {
        id: "0".into(),
        route: "test".into(),
        client: "192.0.2.1".into(),
        peer: "192.0.2.1".into(),
        local_port: 8080,
        ..types::Facts::default()
    }
}
