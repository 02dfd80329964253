//! An answer that a plugin gives itself.

use super::bindings::vers::gateway::types;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// An answer that a plugin gives itself, checked: it can be sent as it is.
#[derive(Debug)]
pub struct LocalResponse {
    /// 200 to 599; 502 where the plugin said something else.
    pub status: StatusCode,
    /// Its headers, less those that no plugin may set or that no header can be.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// Why, in a word; for log and metrics.
    pub reason: String,
}

/// Bytes of a reason that are kept.
const REASON: usize = 64;

impl LocalResponse {
    pub(super) fn from_guest(response: types::LocalResponse, protected: fn(&HeaderName) -> bool) -> Self {
        let status = StatusCode::from_u16(response.status)
            .ok()
            .filter(|status| (200..=599).contains(&status.as_u16()))
            .unwrap_or(StatusCode::BAD_GATEWAY);
        let mut headers = HeaderMap::with_capacity(response.headers.len());
        for (name, value) in response.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::try_from(value))
                && !protected(&name)
            {
                headers.append(name, value);
            }
        }
        let mut reason = response.reason;
        reason.truncate(reason.floor_char_boundary(REASON));
        Self { status, headers, body: response.body.into(), reason }
    }
}
