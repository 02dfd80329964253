//! The hooks that a plugin may have.

use crate::{
    BodyVerdict, Closed, Completed, Connection, Problems, Request, Response, ResponseVerdict, TcpVerdict,
    Verdict, random,
};
use serde::de::DeserializeOwned;
use std::time::Duration;

pub use crate::bindings::background::exports::vers::gateway::background::Reason;

/// A configuration table with hooks. [`export!`](crate::export) implements it.
pub trait Plugin: DeserializeOwned + 'static {
    /// Calls the `validate` of each exported hook.
    fn validate_hooks(&self, problems: &mut Problems);
}

/// Hooks on the requests and answers of a route.
///
/// ```
/// use vers_plugin::prelude::*;
///
/// /// Sends HTML to browsers on one host only.
/// #[derive(Deserialize)]
/// struct OneHost { host: String }
///
/// impl HttpFilter for OneHost {
///     fn on_request(&self, req: &mut Request) -> Verdict {
///         if req.authority() == self.host {
///             return Verdict::Next;
///         }
///         let location = format!("https://{}{}", self.host, req.path());
///         Reply::new(308).header("location", location).reason("other-host").into()
///     }
///
///     fn validate(&self, problems: &mut Problems) {
///         if self.host.contains('/') {
///             problems.add("host", "a host, not a URL");
///         }
///     }
/// }
/// vers_plugin::export!(OneHost: http_filter);
/// # fn main() {}
/// ```
pub trait HttpFilter {
    /// Called for each request, before it goes to the backend.
    fn on_request(&self, req: &mut Request) -> Verdict {
        let _ = req;
        Verdict::Next
    }

    /// Called for each answer, before it goes to the client.
    fn on_response(&self, resp: &mut Response) -> ResponseVerdict {
        let _ = resp;
        ResponseVerdict::Next
    }

    /// Looks for mistakes that types do not express. It runs in `vers-gateway check` too: it must
    /// depend on nothing but the configuration.
    fn validate(&self, problems: &mut Problems) {
        let _ = problems;
    }
}

/// A hook on the bodies of requests that the plugin's own [`HttpFilter::on_request`] has asked for, by
/// [`Verdict::NextWithBody`].
///
/// ```
/// use vers_plugin::prelude::*;
///
/// /// Sends questions for large models elsewhere.
/// #[derive(Deserialize)]
/// struct ByModel { large: String }
///
/// impl HttpFilter for ByModel {
///     fn on_request(&self, req: &mut Request) -> Verdict {
///         if req.method() == "POST" { Verdict::NextWithBody(64 * 1024) } else { Verdict::Next }
///     }
/// }
///
/// impl BodyFilter for ByModel {
///     fn on_request_body(&self, _req: &mut Request, body: Vec<u8>) -> BodyVerdict {
///         match String::from_utf8(body) {
///             Ok(text) if text.contains("\"large\"") => BodyVerdict::RouteTo(self.large.clone()),
///             Ok(_) => BodyVerdict::Next,
///             Err(_) => Reply::new(400).reason("no-text").into(),
///         }
///     }
/// }
/// vers_plugin::export!(ByModel: request_filter, request_body_filter);
/// # fn main() {}
/// ```
pub trait BodyFilter {
    /// Called with the whole body, when the request filters of all plugins have let the head pass. The head
    /// may be changed still.
    fn on_request_body(&self, req: &mut Request, body: Vec<u8>) -> BodyVerdict;

    /// As [`HttpFilter::validate`].
    fn validate(&self, problems: &mut Problems) {
        let _ = problems;
    }
}

/// A hook on the bodies of requests that go to backends: piece by piece, as clients send them.
///
/// ```
/// use vers_plugin::prelude::*;
///
/// /// Leaves carriage returns out of uploaded text.
/// #[derive(Deserialize)]
/// struct UnixLines {}
///
/// impl RequestBodyTransform for UnixLines {
///     fn begin(&self, req: &mut Request) -> Option<Box<dyn Transform>> {
///         let is_text = req.header_str("content-type").is_some_and(|kind| kind.starts_with("text/"));
///         (is_text && req.header("content-encoding").is_none()).then(|| Box::new(Without) as _)
///     }
/// }
///
/// struct Without;
///
/// impl Transform for Without {
///     fn push(&mut self, mut chunk: Vec<u8>) -> Result<Vec<u8>, String> {
///         chunk.retain(|byte| *byte != b'\r');
///         Ok(chunk)
///     }
/// }
/// vers_plugin::export!(UnixLines: request_body_transform);
///
/// # fn main() {
/// use vers_plugin::testing;
///
/// let plugin: UnixLines = testing::configure("").expect("a good table");
/// let mut upload = testing::request("POST", "/").header("content-type", "text/plain").build();
/// let mut body = plugin.begin(&mut upload).expect("text");
/// assert_eq!(body.push(b"a\r\nb".to_vec()), Ok(b"a\nb".to_vec()));
/// # }
/// ```
pub trait RequestBodyTransform {
    /// Called for each request with a body that goes to a backend, when all request filters have let its head pass;
    /// the head may be changed still. `None` lets the body pass untouched, and nothing of it is copied.
    /// What tells of the bytes (`content-encoding`, `content-type`, `content-range`) is the plugin's affair;
    /// `content-length` and sums of the bytes are removed. The backend gets such a body in chunks, as nobody knows its length;
    /// where it must know, have a [`BodyFilter`] ask for the body: it is transformed as a whole then.
    fn begin(&self, req: &mut Request) -> Option<Box<dyn Transform>>;

    /// As [`HttpFilter::validate`].
    fn validate(&self, problems: &mut Problems) {
        let _ = problems;
    }
}

/// A hook on the bodies of answers that backends give: piece by piece, as they come.
///
/// ```
/// use vers_plugin::prelude::*;
///
/// /// Writes a line below each page of text.
/// #[derive(Deserialize)]
/// struct Footer { line: String }
///
/// impl ResponseBodyTransform for Footer {
///     fn begin(&self, resp: &mut Response) -> Option<Box<dyn Transform>> {
///         let is_text = resp.header_str("content-type").is_some_and(|kind| kind.starts_with("text/plain"));
///         if !is_text || resp.status() != 200 || resp.header("content-encoding").is_some() {
///             return None;
///         }
///         resp.remove_header("etag");
///         Some(Box::new(Below(self.line.clone())))
///     }
/// }
///
/// struct Below(String);
///
/// impl Transform for Below {
///     fn push(&mut self, chunk: Vec<u8>) -> Result<Vec<u8>, String> {
///         Ok(chunk)
///     }
///
///     fn finish(&mut self) -> Result<Vec<u8>, String> {
///         Ok(format!("\n{}\n", self.0).into())
///     }
/// }
/// vers_plugin::export!(Footer: response_body_transform);
///
/// # fn main() {
/// use vers_plugin::testing;
///
/// let footer: Footer = testing::configure("line = 'fin'").expect("a good table");
/// let mut page = testing::response(200).header("content-type", "text/plain").build();
/// let mut body = footer.begin(&mut page).expect("a page of text");
/// assert_eq!(body.push(b"once".to_vec()), Ok(b"once".to_vec()));
/// assert_eq!(body.finish(), Ok(b"\nfin\n".to_vec()));
/// # }
/// ```
pub trait ResponseBodyTransform {
    /// Called for each answer of a backend with a body, when all response filters have let its head pass; the
    /// head may be changed still. Also for answers to HEAD and for 304, whose heads must tell of the same body.
    /// `None` lets the body pass untouched, and nothing of it is copied. What tells of the bytes (`etag`,
    /// `content-encoding`, `content-range` of a 206) is the plugin's affair; `content-length`, `accept-ranges` and
    /// sums of the bytes are removed.
    fn begin(&self, resp: &mut Response) -> Option<Box<dyn Transform>>;

    /// As [`HttpFilter::validate`].
    fn validate(&self, problems: &mut Problems) {
        let _ = problems;
    }
}

/// One body on its way, as [`RequestBodyTransform::begin`] or [`ResponseBodyTransform::begin`] makes it. It keeps an
/// instance until the body is over, so it may keep state.
///
/// ```
/// use vers_plugin::Transform;
///
/// struct Upper;
///
/// impl Transform for Upper {
///     fn push(&mut self, chunk: Vec<u8>) -> Result<Vec<u8>, String> {
///         Ok(chunk.to_ascii_uppercase())
///     }
/// }
/// assert_eq!(Upper.push(b"abc".to_vec()), Ok(b"ABC".to_vec()));
/// ```
pub trait Transform {
    /// Takes some bytes of the body, 64 KiB at most, and returns what goes on instead: none, or up to 1 MiB at a
    /// time. Where they become more than that, [`more`](Self::more) has the rest. Nothing further is read before
    /// all of it has left.
    ///
    /// # Errors
    /// An error breaks the body off, in such a way that whoever gets it sees that it is not whole; a request is
    /// answered with 503 then, where its answer has not begun. The text is for the log.
    fn push(&mut self, chunk: Vec<u8>) -> Result<Vec<u8>, String>;

    /// What follows what [`push`](Self::push), [`finish`](Self::finish) or the last call of this has returned:
    /// called until there is no more, and never with nothing in it. Keep what makes the next part (a decoder, a position), not the part: memory
    /// is small, and some bytes may become very many.
    ///
    /// ```
    /// use vers_plugin::Transform;
    ///
    /// /// Writes each byte a thousand times.
    /// #[derive(Default)]
    /// struct Stretch { rest: Vec<u8> }
    ///
    /// impl Transform for Stretch {
    ///     fn push(&mut self, chunk: Vec<u8>) -> Result<Vec<u8>, String> {
    ///         self.rest = chunk;
    ///         Ok(Vec::new())
    ///     }
    ///
    ///     fn more(&mut self) -> Result<Option<Vec<u8>>, String> {
    ///         let some = self.rest.split_off(self.rest.len().min(1000));
    ///         let now = std::mem::replace(&mut self.rest, some);
    ///         Ok((!now.is_empty()).then(|| now.iter().flat_map(|byte| [*byte; 1000]).collect()))
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`push`](Self::push).
    fn more(&mut self) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }

    /// The body has ended. Returns what is left of it; the trailers follow.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    fn finish(&mut self) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }
}

/// A look at each exchange of a route when it is over: for audit, for counting, for billing.
///
/// Nobody waits for it: exchanges wait in a queue of `limits.log_queue`, and where that is full, they are
/// counted and not shown. Keep it short; what has to be sent somewhere, collect it (in [`kv`](crate::kv), say)
/// and send it from [`Background`].
///
/// ```
/// use vers_plugin::prelude::*;
///
/// #[derive(Deserialize)]
/// struct Slow { milliseconds: u64 }
///
/// static SLOW: metrics::Counter<1> =
///     metrics::Counter::new("slow_requests", "Requests that took too long.", ["route"]);
///
/// impl ExchangeLog for Slow {
///     fn on_complete(&self, done: &Completed) {
///         if done.duration().as_millis() > self.milliseconds.into() {
///             SLOW.add(1, [&done.exchange().route()]);
///             log::warn(format!("{} {} took {:?}", done.method(), done.path(), done.duration()));
///         }
///     }
/// }
/// vers_plugin::export!(Slow: exchange_log);
/// # fn main() {}
/// ```
pub trait ExchangeLog {
    /// Called once for each exchange: after the last byte of the answer, or at the end of the tunnel that
    /// it opened.
    fn on_complete(&self, done: &Completed);

    /// As [`HttpFilter::validate`].
    fn validate(&self, problems: &mut Problems) {
        let _ = problems;
    }
}

/// A hook on the connections of TCP and SSH routes: called once for each, after the TLS handshake where there
/// is one, and before anything is passed on.
///
/// ```
/// use vers_plugin::prelude::*;
///
/// #[derive(Deserialize)]
/// struct OnlyFrom { network: String }
///
/// impl TcpFilter for OnlyFrom {
///     fn on_accept(&self, conn: &Connection) -> TcpVerdict {
///         match conn.exchange().client_address().starts_with(&self.network) {
///             true => TcpVerdict::Next,
///             false => TcpVerdict::reset("elsewhere"),
///         }
///     }
/// }
/// vers_plugin::export!(OnlyFrom: tcp_filter);
/// # fn main() {}
/// ```
pub trait TcpFilter {
    /// Decides about a connection. Nothing of it is read, where no plugin wants to see it
    /// ([`TcpVerdict::Peek`]).
    fn on_accept(&self, conn: &Connection) -> TcpVerdict;

    /// As [`HttpFilter::validate`].
    fn validate(&self, problems: &mut Problems) {
        let _ = problems;
    }
}

/// A hook on the first bytes of connections that the plugin's own [`TcpFilter::on_accept`] has asked for, by
/// [`TcpVerdict::Peek`].
///
/// ```
/// use std::time::Duration;
/// use vers_plugin::prelude::*;
///
/// /// Sends clients that begin with a line `BETA` elsewhere, and lets no other word of theirs through than `STABLE`.
/// #[derive(Deserialize)]
/// struct Editions { beta: String }
///
/// impl TcpFilter for Editions {
///     fn on_accept(&self, _conn: &Connection) -> TcpVerdict {
///         TcpVerdict::peek(5, Duration::from_secs(5))
///     }
/// }
///
/// impl TcpBytesFilter for Editions {
///     fn on_first_bytes(&self, _conn: &Connection, bytes: Vec<u8>, more: bool) -> TcpVerdict {
///         match bytes.split_inclusive(|byte| *byte == b'\n').next() {
///             Some(b"BETA\n") => TcpVerdict::route_to(&self.beta),
///             Some(b"STABLE\n") => TcpVerdict::Next,
///             // It may be a line yet.
///             Some(begun) if more && begun.len() < 7 && !begun.ends_with(b"\n") => {
///                 TcpVerdict::peek(7, Duration::from_secs(5))
///             }
///             _ => TcpVerdict::close("no-edition"),
///         }
///     }
/// }
/// vers_plugin::export!(Editions: tcp_filter, tcp_bytes_filter);
/// # fn main() {}
/// ```
pub trait TcpBytesFilter {
    /// Called with all that has come: it may be fewer bytes than were asked for, and none. Whatever the
    /// verdict, the server sees all of them. `more` says whether more may come; only then may the verdict be
    /// to [peek](TcpVerdict::Peek) again: for more than was seen, whatever it asks for.
    fn on_first_bytes(&self, conn: &Connection, bytes: Vec<u8>, more: bool) -> TcpVerdict;

    /// As [`HttpFilter::validate`].
    fn validate(&self, problems: &mut Problems) {
        let _ = problems;
    }
}

/// A look at each connection of a TCP or SSH route when it is over. Nobody waits for it; see [`ExchangeLog`].
///
/// ```
/// use vers_plugin::prelude::*;
///
/// static BYTES: metrics::Counter<1> =
///     metrics::Counter::new("database_bytes", "Bytes to clients.", ["client"]);
///
/// #[derive(Deserialize)]
/// struct Traffic {}
///
/// impl TcpLog for Traffic {
///     fn on_close(&self, closed: &Closed) {
///         BYTES.add(closed.bytes_to_client(), [&closed.exchange().client_address()]);
///     }
/// }
/// vers_plugin::export!(Traffic: tcp_log);
/// # fn main() {}
/// ```
pub trait TcpLog {
    /// Called once for each connection, however it ended.
    fn on_close(&self, closed: &Closed);

    /// As [`HttpFilter::validate`].
    fn validate(&self, problems: &mut Problems) {
        let _ = problems;
    }
}

/// Work beside the traffic, such as registering this VM: one instance per plugin and configuration,
/// so that its fields may keep state between calls.
///
/// ```
/// use std::time::Duration;
/// use vers_plugin::prelude::*;
///
/// #[derive(Deserialize)]
/// struct Ping { url: String }
///
/// impl Background for Ping {
///     fn run(&self, _why: Reason) -> Result<Next, String> {
///         http::get(&self.url).send().map_err(|e| e.to_string())?;
///         Ok(Next::about(Duration::from_secs(60)))
///     }
/// }
/// vers_plugin::export!(Ping: background);
/// # fn main() {}
/// ```
pub trait Background {
    /// Does what is due, and says when to be called again. An error is logged, and the call repeated
    /// with growing delay.
    ///
    /// # Errors
    /// For the log: what did not work.
    fn run(&self, why: Reason) -> Result<Next, String>;

    /// The plugin was removed or changed, or the gateway stops. Called once, within the plugin's
    /// wall-clock limit.
    fn stop(&self) {}

    /// As [`HttpFilter::validate`].
    fn validate(&self, problems: &mut Problems) {
        let _ = problems;
    }
}

/// When a [`Background`] plugin is called again.
///
/// ```
/// use std::time::Duration;
/// use vers_plugin::Next;
///
/// assert_eq!(Next::after(Duration::from_secs(2)).delay(), Some(Duration::from_secs(2)));
/// assert_eq!(Next::never().delay(), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next(Option<u32>);

impl Next {
    /// After this delay, which the gateway raises to 100 ms.
    pub fn after(delay: Duration) -> Self {
        Self(Some(u32::try_from(delay.as_millis()).unwrap_or(u32::MAX)))
    }

    /// After this delay, give or take 10 %, so that machines which started together do not call
    /// together.
    pub fn about(delay: Duration) -> Self {
        let permille = 900 + random::u64() % 201;
        let millis = delay.as_millis().saturating_mul(u128::from(permille)) / 1000;
        Self(Some(u32::try_from(millis).unwrap_or(u32::MAX)))
    }

    /// No more.
    pub fn never() -> Self {
        Self(None)
    }

    /// The delay, if there is a next call.
    pub fn delay(self) -> Option<Duration> {
        self.0.map(|millis| Duration::from_millis(millis.into()))
    }

    /// The delay in milliseconds, as the gateway takes it.
    #[doc(hidden)]
    pub fn millis(self) -> Option<u32> {
        self.0
    }
}
