//! Every error → the status that the client sees. The only such table.

use super::body::Content;
use crate::{
    headers::AuthorityError,
    metrics::Counter,
    plugins::FaultKind,
    upstream::{Cause, UpstreamError},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

/// Header of an answer that the gateway gave itself: the code of [`ErrorCode`], for machines.
const X_GATEWAY_ERROR: HeaderName = HeaderName::from_static("x-gateway-error");

/// The answer to a head that was not finished in time (RFC 9110 §15.5.9). Like the next one it is
/// sent where there is no request to answer, hence as bytes.
pub(super) const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nx-gateway-error: head-timeout\r\n\
    connection: close\r\ncontent-length: 0\r\n\r\n";

/// What a client over its listener's limit is told.
pub const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    x-gateway-error: too-many-connections\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Why a request got no answer from its backend.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Authority(AuthorityError),
    #[error("the gateway is no forward proxy: CONNECT is not served")]
    Connect,
    #[error("the target is neither a path nor a URL")]
    Target,
    #[error("the request's transfer coding is not chunked alone")]
    Coding,
    #[error("the answer's transfer coding is not chunked alone")]
    AnswerCoding,
    #[error("no route matches")]
    NoRoute,
    #[error("{0}")]
    Upstream(#[source] UpstreamError),
    #[error("the backend answered a request for an upgrade with another protocol")]
    WrongUpgrade,
    #[error("the backend did not answer in time")]
    ResponseTimeout,
    #[error("plugin {plugin} failed: {kind}")]
    Plugin { plugin: String, kind: FaultKind },
}

/// What went wrong, for machines: in the answer's `x-gateway-error`, in the access log, in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// No host, several hosts, or a malformed one.
    BadHost,
    /// CONNECT.
    ConnectMethod,
    /// The target is neither a path nor a URL.
    BadTarget,
    /// A transfer coding other than chunked.
    BadCoding,
    /// No route matches.
    NoRoute,
    /// Nothing listens at the backend.
    Refused,
    /// No connection in time.
    ConnectTimeout,
    /// No connection for another reason.
    ConnectFailed,
    /// The backend's name could not be resolved.
    Resolve,
    /// The backend's answer broke off, or was no HTTP.
    BadAnswer,
    /// No answer in time.
    ResponseTimeout,
    /// A plugin failed.
    PluginFault,
    /// All instances of a plugin are in use.
    PluginBusy,
}

impl ErrorCode {
    /// All codes.
    pub const ALL: [Self; 13] = [
        Self::BadHost,
        Self::ConnectMethod,
        Self::BadTarget,
        Self::BadCoding,
        Self::NoRoute,
        Self::Refused,
        Self::ConnectTimeout,
        Self::ConnectFailed,
        Self::Resolve,
        Self::BadAnswer,
        Self::ResponseTimeout,
        Self::PluginFault,
        Self::PluginBusy,
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
    fn row(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadHost => (StatusCode::BAD_REQUEST, "bad-host", "the request must name one host"),
            Self::ConnectMethod => {
                (StatusCode::NOT_IMPLEMENTED, "connect-method", "this is no forward proxy")
            }
            Self::BadTarget => (StatusCode::BAD_REQUEST, "bad-target", "the request's target is no path"),
            Self::BadCoding => {
                (StatusCode::NOT_IMPLEMENTED, "bad-coding", "no transfer coding but chunked is understood")
            }
            Self::NoRoute => {
                (StatusCode::NOT_FOUND, "no-route", "no route of this gateway matches the request")
            }
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
            Self::Resolve => {
                (StatusCode::BAD_GATEWAY, "upstream-unknown-host", "the backend's name has no address")
            }
            Self::BadAnswer => (
                StatusCode::BAD_GATEWAY,
                "upstream-bad-answer",
                "the backend's answer broke off or made no sense",
            ),
            Self::ResponseTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, "upstream-timeout", "the backend did not answer in time")
            }
            Self::PluginFault => {
                (StatusCode::SERVICE_UNAVAILABLE, "plugin-fault", "a plugin of this route failed")
            }
            Self::PluginBusy => {
                (StatusCode::SERVICE_UNAVAILABLE, "plugin-busy", "a plugin of this route has too much to do")
            }
        }
    }
}

impl Error {
    pub(super) fn code(&self) -> ErrorCode {
        match self {
            Self::Authority(_) => ErrorCode::BadHost,
            Self::Connect => ErrorCode::ConnectMethod,
            Self::Target => ErrorCode::BadTarget,
            Self::Coding => ErrorCode::BadCoding,
            Self::NoRoute => ErrorCode::NoRoute,
            Self::WrongUpgrade | Self::AnswerCoding => ErrorCode::BadAnswer,
            Self::ResponseTimeout => ErrorCode::ResponseTimeout,
            Self::Plugin { kind: FaultKind::Busy, .. } => ErrorCode::PluginBusy,
            Self::Plugin { .. } => ErrorCode::PluginFault,
            Self::Upstream(error) => match error.cause {
                Cause::Refused => ErrorCode::Refused,
                Cause::ConnectTimeout => ErrorCode::ConnectTimeout,
                Cause::Connect(_) => ErrorCode::ConnectFailed,
                Cause::Resolve(_) => ErrorCode::Resolve,
                Cause::Exchange(_) | Cause::Closed => ErrorCode::BadAnswer,
            },
        }
    }
}

/// The answer that an error becomes.
pub(super) fn answer(code: ErrorCode) -> Response<Content> {
    let (status, code, words) = code.row();
    let text =
        format!("{} {}: {words} ({code})\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let mut response = Response::new(Content::Whole(Some(Bytes::from(text))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_GATEWAY_ERROR, HeaderValue::from_static(code));
    response
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
    fn codes_are_distinct_and_make_answers() {
        let mut codes: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            let answer = answer(code);
            assert!(answer.status().is_client_error() || answer.status().is_server_error());
            assert_eq!(answer.headers()[X_GATEWAY_ERROR], code.as_str());
        }
    }
}
