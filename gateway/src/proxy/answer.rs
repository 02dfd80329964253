//! Every error → the status that the client sees. The only such table.

use crate::{
    headers::{AuthorityError, websocket::HandshakeError},
    http1::Malformed,
    message::{Fields, ResponseHead},
    metrics::Counter,
    plugins::FaultKind,
    upstream::{Cause, UpstreamError},
};
use bytes::Bytes;
use http::StatusCode;
use std::sync::Arc;

/// Header of an answer that the gateway gave itself: the code of [`ErrorCode`], for machines.
const X_GATEWAY_ERROR: &[u8] = b"x-gateway-error";

/// What a client over its listener's limit is told.
pub const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    x-gateway-error: too-many-connections\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What a client is told that has too many connections itself.
pub const TOO_MANY_CONNECTIONS_PER_CLIENT: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    x-gateway-error: too-many-connections-per-client\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What a client is told that speaks HTTP where TLS is spoken.
pub(super) const PLAIN_HTTP_ON_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    content-type: text/plain; charset=utf-8\r\nx-gateway-error: not-tls\r\nconnection: close\r\n\
    content-length: 79\r\n\r\n\
    400 Bad Request: this port speaks TLS; the address begins with https (not-tls)\n";

/// Why a request got no answer from its backend.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Malformed(Malformed),
    #[error("a request's head was not finished in time")]
    HeadTimeout,
    #[error("a request's body stopped coming")]
    BodyTimeout,
    #[error("{0}")]
    Authority(AuthorityError),
    #[error("the gateway is no forward proxy: CONNECT is not served")]
    Connect,
    #[error("an expectation other than 100-continue")]
    Expectation,
    #[error("{0}")]
    Handshake(HandshakeError),
    #[error("there is no room for another body of a request")]
    HeldBodiesFull,
    #[error("the client is gone")]
    ClientGone,
    #[error("no route matches")]
    NoRoute,
    #[error("the listener does not serve the port that was asked for")]
    PortNotServed,
    #[error("the request is for another host than the TLS connection")]
    Misdirected,
    #[error("no VM has this name")]
    UnknownVm,
    #[error("VMs cannot be looked up: {0}")]
    NoDirectory(Arc<str>),
    #[error("nothing listens on IPv6 port {port} of this VM; bind `::` or run vers-gateway on the VM")]
    VmRefuses { port: u16 },
    #[error("the VM did not answer in time; is it running?")]
    VmSilent,
    #[error("the VM cannot be reached: {0}")]
    VmUnreachable(#[source] UpstreamError),
    #[error("{0}")]
    Upstream(#[source] UpstreamError),
    #[error("the backend answered a request for an upgrade with another protocol")]
    WrongUpgrade,
    #[error("the backend's answer is malformed: {0}")]
    BadAnswer(Malformed),
    #[error("the backend answered 1xx without end")]
    EndlessInterim,
    #[error("the backend did not answer in time")]
    ResponseTimeout,
    #[error("the request was not done within its route's time")]
    TotalTimeout,
    #[error("plugin {plugin} failed: {kind}")]
    Plugin { plugin: String, kind: FaultKind },
}

/// What went wrong, for machines: in the answer's `x-gateway-error`, in the access log, in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// No HTTP, or one that could be read in two ways.
    BadRequest,
    /// A version other than HTTP/1.0, HTTP/1.1 and HTTP/2, or HTTP/2 where it does not begin.
    BadVersion,
    /// A method longer than any that there is.
    BadMethod,
    /// A transfer coding other than chunked.
    BadCoding,
    /// The target alone is over the limit of heads.
    UriTooLong,
    /// The head is over its limits.
    HeadTooLarge,
    /// The head was not finished in time.
    HeadTimeout,
    /// The body stopped coming.
    BodyTimeout,
    /// The body is larger than the route allows.
    BodyTooLarge,
    /// There is no room for another body that is held in memory.
    HeldBodiesFull,
    /// No host, several hosts, or a malformed one.
    BadHost,
    /// CONNECT.
    ConnectMethod,
    /// An expectation other than `100-continue`.
    BadExpectation,
    /// A WebSocket handshake that no server could agree to.
    BadHandshake,
    /// Another version of WebSocket than 13.
    BadHandshakeVersion,
    /// No route matches.
    NoRoute,
    /// The port that the client asked for is not served.
    PortNotServed,
    /// The request is for another VM than the one that TLS was begun for.
    Misdirected,
    /// There is no such VM.
    VmUnknown,
    /// Whether there is such a VM could not be found out.
    VmLookup,
    /// Nothing listens on the port of the VM.
    VmPortClosed,
    /// The VM did not answer in time.
    VmConnectTimeout,
    /// No connection to the VM for another reason.
    VmUnreachable,
    /// Nothing listens at the backend.
    Refused,
    /// No connection in time.
    ConnectTimeout,
    /// No connection for another reason.
    ConnectFailed,
    /// The backend did not show that it is who it should be, or speaks no TLS.
    Tls,
    /// The backend's name could not be resolved.
    Resolve,
    /// No server works.
    Down,
    /// Nobody is registered who serves it.
    NoneRegistered,
    /// No server has room, and too many requests wait for it.
    QueueFull,
    /// No server had room in time.
    QueueTimeout,
    /// The backend's answer broke off, or was no HTTP.
    BadAnswer,
    /// The component that answers failed.
    OriginFault,
    /// No answer in time.
    ResponseTimeout,
    /// The time for all of the request is over.
    TotalTimeout,
    /// A plugin failed.
    PluginFault,
    /// A plugin is called as often at a time as it may be.
    PluginBusy,
    /// A plugin fails again and again, and is not called now.
    PluginOpen,
}

impl ErrorCode {
    /// All codes.
    pub const ALL: [Self; 39] = [
        Self::BadRequest,
        Self::BadVersion,
        Self::BadMethod,
        Self::BadCoding,
        Self::UriTooLong,
        Self::HeadTooLarge,
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::BodyTooLarge,
        Self::HeldBodiesFull,
        Self::BadHost,
        Self::ConnectMethod,
        Self::BadExpectation,
        Self::BadHandshake,
        Self::BadHandshakeVersion,
        Self::NoRoute,
        Self::PortNotServed,
        Self::Misdirected,
        Self::VmUnknown,
        Self::VmLookup,
        Self::VmPortClosed,
        Self::VmConnectTimeout,
        Self::VmUnreachable,
        Self::Refused,
        Self::ConnectTimeout,
        Self::ConnectFailed,
        Self::Tls,
        Self::Resolve,
        Self::Down,
        Self::NoneRegistered,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::BadAnswer,
        Self::OriginFault,
        Self::ResponseTimeout,
        Self::TotalTimeout,
        Self::PluginFault,
        Self::PluginBusy,
        Self::PluginOpen,
    ];

    /// As it is printed.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// The status of its answer.
    pub fn status(self) -> StatusCode {
        self.row().0
    }

    /// Status, code, and words for a person at the other end. They name no address: whoever runs
    /// the gateway finds those in its log.
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn row(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadHost => (StatusCode::BAD_REQUEST, "bad-host", "the request must name one host"),
            Self::ConnectMethod => {
                (StatusCode::NOT_IMPLEMENTED, "connect-method", "this is no forward proxy")
            }
            Self::BadRequest => (StatusCode::BAD_REQUEST, "bad-request", "the request is malformed"),
            Self::BadVersion => (
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                "bad-version",
                "only HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here",
            ),
            Self::BadMethod => (StatusCode::NOT_IMPLEMENTED, "bad-method", "no method is that long"),
            Self::BadCoding => {
                (StatusCode::NOT_IMPLEMENTED, "bad-coding", "no transfer coding but chunked is understood")
            }
            Self::UriTooLong => {
                (StatusCode::URI_TOO_LONG, "uri-too-long", "the request's target is too long")
            }
            Self::HeadTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "head-too-large",
                "the request's head is too large, or has too many lines",
            ),
            Self::HeadTimeout => {
                (StatusCode::REQUEST_TIMEOUT, "head-timeout", "the request's head was not finished in time")
            }
            Self::BodyTimeout => {
                (StatusCode::REQUEST_TIMEOUT, "body-timeout", "the request's body stopped coming")
            }
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "the request's body is larger than its route allows",
            ),
            Self::HeldBodiesFull => (
                StatusCode::SERVICE_UNAVAILABLE,
                "held-bodies-full",
                "too many bodies of requests are held in memory now",
            ),
            Self::BadExpectation => (
                StatusCode::EXPECTATION_FAILED,
                "bad-expectation",
                "no expectation but 100-continue is understood",
            ),
            Self::BadHandshake => {
                (StatusCode::BAD_REQUEST, "bad-handshake", "the WebSocket handshake is malformed")
            }
            Self::BadHandshakeVersion => (
                StatusCode::UPGRADE_REQUIRED,
                "bad-handshake-version",
                "only version 13 of WebSocket is spoken here",
            ),
            Self::NoRoute => {
                (StatusCode::NOT_FOUND, "no-route", "no route of this gateway matches the request")
            }
            Self::PortNotServed => {
                (StatusCode::FORBIDDEN, "port-not-served", "this gateway does not serve this port")
            }
            Self::Misdirected => (
                StatusCode::MISDIRECTED_REQUEST,
                "misdirected",
                "this connection was made for another host; make one for this host",
            ),
            Self::VmUnknown => (StatusCode::NOT_FOUND, "vm-unknown", "no VM has this name"),
            Self::VmLookup => {
                (StatusCode::SERVICE_UNAVAILABLE, "vm-lookup-failed", "VMs cannot be looked up now")
            }
            Self::VmPortClosed => (
                StatusCode::BAD_GATEWAY,
                "vm-port-closed",
                "nothing listens on this IPv6 port of the VM; bind `::` or run vers-gateway on the VM",
            ),
            Self::VmConnectTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "vm-connect-timeout",
                "the VM did not answer in time; is it running?",
            ),
            Self::VmUnreachable => (
                StatusCode::BAD_GATEWAY,
                "vm-unreachable",
                "there is no way to the VM's address; is it running?",
            ),
            Self::Refused => {
                (StatusCode::BAD_GATEWAY, "upstream-refused", "nothing listens at the backend's address")
            }
            Self::ConnectTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "upstream-connect-timeout",
                "the backend could not be reached in time",
            ),
            Self::ConnectFailed => {
                (StatusCode::BAD_GATEWAY, "upstream-connect-failed", "the backend could not be reached")
            }
            Self::Tls => (StatusCode::BAD_GATEWAY, "upstream-tls-failed", "there is no TLS with the backend"),
            Self::Resolve => {
                (StatusCode::BAD_GATEWAY, "upstream-unknown-host", "the backend's name has no address")
            }
            Self::Down => {
                (StatusCode::SERVICE_UNAVAILABLE, "upstream-down", "no server of the backend works now")
            }
            Self::NoneRegistered => (
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream-none-registered",
                "nobody is registered now who serves this",
            ),
            Self::QueueFull => (
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream-queue-full",
                "the backend has too much to do, and too many requests wait",
            ),
            Self::QueueTimeout => (
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream-queue-timeout",
                "the backend had too much to do for too long",
            ),
            Self::BadAnswer => (
                StatusCode::BAD_GATEWAY,
                "upstream-bad-answer",
                "the backend's answer broke off or made no sense",
            ),
            Self::OriginFault => {
                (StatusCode::BAD_GATEWAY, "origin-fault", "the component that answers here failed")
            }
            Self::ResponseTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, "upstream-timeout", "the backend did not answer in time")
            }
            Self::TotalTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "total-timeout",
                "the request took longer than its route allows",
            ),
            Self::PluginFault => {
                (StatusCode::SERVICE_UNAVAILABLE, "plugin-fault", "a plugin of this route failed")
            }
            Self::PluginBusy => {
                (StatusCode::SERVICE_UNAVAILABLE, "plugin-busy", "a plugin of this route has too much to do")
            }
            Self::PluginOpen => (
                StatusCode::SERVICE_UNAVAILABLE,
                "plugin-open",
                "a plugin of this route failed too often, and is not called for a while",
            ),
        }
    }
}

impl Error {
    /// Whether the request itself is wrong, so that nothing behind it can be trusted.
    pub(super) fn is_of_client(&self) -> bool {
        matches!(
            self,
            Self::Malformed(_)
                | Self::HeadTimeout
                | Self::BodyTimeout
                | Self::Authority(_)
                | Self::Connect
                | Self::Expectation
                | Self::Handshake(_)
        )
    }

    /// Whether a backend is to blame.
    pub(super) fn is_of_backend(&self) -> bool {
        matches!(
            self,
            Self::Upstream(_)
                | Self::NoDirectory(_)
                | Self::WrongUpgrade
                | Self::BadAnswer(_)
                | Self::EndlessInterim
                | Self::ResponseTimeout
        )
    }

    pub(super) fn code(&self) -> ErrorCode {
        match self {
            Self::Malformed(error) => match error {
                Malformed::Version => ErrorCode::BadVersion,
                Malformed::Method => ErrorCode::BadMethod,
                Malformed::UnknownCoding => ErrorCode::BadCoding,
                Malformed::TargetTooLong => ErrorCode::UriTooLong,
                Malformed::BodyTooLarge => ErrorCode::BodyTooLarge,
                Malformed::HeadTooLarge | Malformed::TooManyFields => ErrorCode::HeadTooLarge,
                _ => ErrorCode::BadRequest,
            },
            Self::HeadTimeout => ErrorCode::HeadTimeout,
            // Nobody sees the answer to who is gone.
            Self::BodyTimeout | Self::ClientGone => ErrorCode::BodyTimeout,
            Self::HeldBodiesFull => ErrorCode::HeldBodiesFull,
            Self::Authority(_) => ErrorCode::BadHost,
            Self::Connect => ErrorCode::ConnectMethod,
            Self::Expectation => ErrorCode::BadExpectation,
            Self::Handshake(HandshakeError::Key) => ErrorCode::BadHandshake,
            Self::Handshake(HandshakeError::Version) => ErrorCode::BadHandshakeVersion,
            Self::NoRoute => ErrorCode::NoRoute,
            Self::PortNotServed => ErrorCode::PortNotServed,
            Self::Misdirected => ErrorCode::Misdirected,
            Self::UnknownVm => ErrorCode::VmUnknown,
            Self::NoDirectory(_) => ErrorCode::VmLookup,
            Self::VmRefuses { .. } => ErrorCode::VmPortClosed,
            Self::VmSilent => ErrorCode::VmConnectTimeout,
            Self::VmUnreachable(_) => ErrorCode::VmUnreachable,
            Self::WrongUpgrade | Self::BadAnswer(_) | Self::EndlessInterim => ErrorCode::BadAnswer,
            Self::ResponseTimeout => ErrorCode::ResponseTimeout,
            Self::TotalTimeout => ErrorCode::TotalTimeout,
            Self::Plugin { kind: FaultKind::Busy | FaultKind::Queue, .. } => ErrorCode::PluginBusy,
            Self::Plugin { kind: FaultKind::Open, .. } => ErrorCode::PluginOpen,
            Self::Plugin { .. } => ErrorCode::PluginFault,
            Self::Upstream(error) => match error.cause {
                Cause::Refused => ErrorCode::Refused,
                Cause::ConnectTimeout => ErrorCode::ConnectTimeout,
                Cause::Connect(_) => ErrorCode::ConnectFailed,
                Cause::Tls(_) => ErrorCode::Tls,
                Cause::Resolve(_) => ErrorCode::Resolve,
                Cause::Down(_) => ErrorCode::Down,
                Cause::NoneRegistered => ErrorCode::NoneRegistered,
                Cause::QueueFull => ErrorCode::QueueFull,
                Cause::QueueTimeout => ErrorCode::QueueTimeout,
                Cause::Component(_) => ErrorCode::OriginFault,
                Cause::Exchange(_) | Cause::Closed | Cause::Malformed(_) => ErrorCode::BadAnswer,
            },
        }
    }
}

/// The answer that an error becomes.
pub(super) fn answer(error: &Error) -> (ResponseHead, Bytes) {
    let (status, code, words) = error.code().row();
    // What is wrong with a message, its sender may know exactly; about backends and plugins, the
    // gateway's log tells more than a stranger should read. Who asks for a port of a VM knows it.
    let is_told = error.is_of_client() || matches!(error, Error::VmRefuses { .. });
    let detail = if is_told { error.to_string() } else { words.to_owned() };
    let text =
        format!("{} {}: {detail} ({code})\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let mut fields = Fields::new();
    fields.append(b"content-type", b"text/plain; charset=utf-8");
    fields.append(X_GATEWAY_ERROR, code.as_bytes());
    if status == StatusCode::UPGRADE_REQUIRED {
        // RFC 6455 §4.4, RFC 9110 §15.5.22.
        fields.append(b"sec-websocket-version", b"13");
        fields.append(b"upgrade", b"websocket");
    }
    (ResponseHead::new(status, fields), Bytes::from(text))
}

/// How often each error was answered.
#[derive(Debug)]
pub(super) struct ErrorCounters([Counter; ErrorCode::ALL.len()]);

impl ErrorCounters {
    pub(super) fn from_fn(counter: impl FnMut(ErrorCode) -> Counter) -> Self {
        Self(ErrorCode::ALL.map(counter))
    }

    pub(super) fn count(&self, code: ErrorCode) {
        if let Some(counter) =
            ErrorCode::ALL.iter().position(|known| *known == code).and_then(|at| self.0.get(at))
        {
            counter.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_are_errors() {
        let mut codes: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert!(code.status().is_client_error() || code.status().is_server_error(), "{code:?}");
        }
    }

    #[test]
    fn an_answer_tells_machines_and_people() {
        let (head, body) = answer(&Error::Malformed(Malformed::Folded));
        assert_eq!(head.status, StatusCode::BAD_REQUEST);
        assert_eq!(head.fields.get_named(X_GATEWAY_ERROR), Some(b"bad-request".as_slice()));
        let body = String::from_utf8(body.to_vec()).expect("text");
        assert_eq!(
            body,
            "400 Bad Request: a header line is folded, or begins with whitespace (bad-request)\n"
        );
    }
}
