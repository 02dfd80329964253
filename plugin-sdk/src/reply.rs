//! What a hook decides: go on, or answer now.

use crate::{host::types::LocalResponse, http::find};
use serde::Serialize;

/// What becomes of a request.
///
/// ```
/// use vers_plugin::prelude::*;
///
/// fn decide(req: &Request) -> Verdict {
///     match req.path() {
///         "/robots.txt" => Reply::new(200).text("User-agent: *\nDisallow: /\n").into(),
///         "/admin" => Verdict::not_found("hidden"),
///         _ => Verdict::Next,
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go on: to the next plugin, then to the backend.
    Next,
    /// Answer now. Later plugins and the backend do not see the request.
    Respond(Reply),
    /// Go on to the next plugin, and then to this backend instead of the route's own: its name, or
    /// `host:port`, as the TOML has it in `grants = { backends = ["name", "host:port"] }`. Of several
    /// plugins that say so, the last one counts. Any other name is a fault of the plugin.
    RouteTo(String),
    /// Go on to the next plugin; and when all of them have let the head pass, show
    /// [`BodyFilter::on_request_body`](crate::BodyFilter::on_request_body) the whole body. At most so many bytes,
    /// and no more than `limits = { body = "1MiB" }` and the route allow: a larger one is answered with 413. A
    /// request for another protocol ([`Request::is_upgrade`](crate::Request::is_upgrade)) goes on without.
    NextWithBody(u32),
}

/// What becomes of a request, once its body is there.
///
/// ```
/// use vers_plugin::prelude::*;
///
/// fn decide(body: Vec<u8>) -> BodyVerdict {
///     match body.as_slice() {
///         b"" => Reply::new(400).text("nothing there\n").reason("empty").into(),
///         _ => BodyVerdict::Replace(body.to_ascii_lowercase()),
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyVerdict {
    /// Go on with the body as it is.
    Next,
    /// Go on with this body: later plugins and the backend see this one.
    Replace(Vec<u8>),
    /// Answer now. The backend does not see the request.
    Respond(Reply),
    /// Go on to this backend instead of the route's own, as [`Verdict::RouteTo`] says.
    RouteTo(String),
}

impl From<Reply> for BodyVerdict {
    fn from(reply: Reply) -> Self {
        Self::Respond(reply)
    }
}

impl Verdict {
    /// 401, and a challenge for a bearer token. The reason, one word for machines, reaches the access
    /// log and the metrics, never the client.
    pub fn unauthorized(reason: &str) -> Self {
        Reply::new(401).header("www-authenticate", "Bearer").text("unauthorized\n").reason(reason).into()
    }

    /// 403.
    pub fn forbidden(reason: &str) -> Self {
        Reply::new(403).text("forbidden\n").reason(reason).into()
    }

    /// 404.
    pub fn not_found(reason: &str) -> Self {
        Reply::new(404).text("not found\n").reason(reason).into()
    }

    /// An answer of this status without a body. For more, turn a [`Reply`] into a verdict.
    pub fn respond(status: u16, reason: &str) -> Self {
        Reply::new(status).reason(reason).into()
    }

    /// To this backend instead of the route's own; see [`RouteTo`](Self::RouteTo).
    ///
    /// ```
    /// use vers_plugin::prelude::*;
    ///
    /// fn decide(req: &Request) -> Verdict {
    ///     if req.header("x-beta").is_some() { Verdict::route_to("beta") } else { Verdict::Next }
    /// }
    /// ```
    pub fn route_to(backend: impl Into<String>) -> Self {
        Self::RouteTo(backend.into())
    }

    /// The answer, if there is one.
    pub fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Next | Self::RouteTo(_) | Self::NextWithBody(_) => None,
            Self::Respond(reply) => Some(reply),
        }
    }
}

impl From<Reply> for Verdict {
    fn from(reply: Reply) -> Self {
        Self::Respond(reply)
    }
}

/// What becomes of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseVerdict {
    /// Go on: to the plugin before this one, then to the client.
    Next,
    /// Send this instead; the backend's body is discarded.
    Replace(Reply),
}

impl ResponseVerdict {
    /// The answer sent instead, if there is one.
    pub fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Next => None,
            Self::Replace(reply) => Some(reply),
        }
    }
}

impl From<Reply> for ResponseVerdict {
    fn from(reply: Reply) -> Self {
        Self::Replace(reply)
    }
}

/// A complete answer that a plugin gives.
///
/// ```
/// use vers_plugin::prelude::*;
///
/// let reply = Reply::new(429).header("retry-after", "30").text("too many requests\n").reason("rate-limit");
/// assert_eq!(reply.header_str("content-type"), Some("text/plain; charset=utf-8"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply {
    /// 200 to 599.
    pub status: u16,
    /// Headers. Framing and hop-by-hop headers are the gateway's.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole body.
    pub body: Vec<u8>,
    /// One word for machines; reaches the access log and the metrics, never the client.
    pub reason: String,
}

impl Reply {
    /// An answer of this status (200 to 599), without headers and body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), reason: String::new() }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets body and `content-type` for plain text.
    #[must_use]
    pub fn text(self, body: &str) -> Self {
        self.header("content-type", "text/plain; charset=utf-8").body(body)
    }

    /// Sets body and `content-type` for JSON. A value that JSON cannot hold (a map whose keys are no
    /// strings) becomes `null`.
    #[must_use]
    pub fn json(self, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).unwrap_or_else(|_| b"null".to_vec());
        self.header("content-type", "application/json").body(body)
    }

    /// Sets the reason.
    #[must_use]
    pub fn reason(mut self, reason: &str) -> Self {
        self.reason = reason.into();
        self
    }

    /// The first value of a header, if it is UTF-8.
    pub fn header_str(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

impl From<Reply> for LocalResponse {
    fn from(reply: Reply) -> Self {
        let Reply { status, headers, body, reason } = reply;
        Self { status, headers, body, reason }
    }
}
