//! An answer that a plugin gives itself.

use super::bindings::vers::gateway::types;
use crate::message::{Fields, Known, is_field_value, is_token, trim};
use bytes::Bytes;
use http::StatusCode;

/// An answer that a plugin gives itself, checked: it can be sent as it is.
#[derive(Debug)]
pub struct LocalResponse {
    /// 200 to 599; 502 where the plugin said something else.
    pub status: StatusCode,
    /// Its header fields, less those that no plugin may set or that no header can be.
    pub fields: Fields,
    /// The whole body.
    pub body: Bytes,
    /// Why, in a word; for log and metrics.
    pub reason: String,
}

/// Bytes of a reason that are kept.
const REASON: usize = 64;

impl LocalResponse {
    pub(super) fn from_guest(response: types::LocalResponse) -> Self {
        let status = StatusCode::from_u16(response.status)
            .ok()
            .filter(|status| (200..=599).contains(&status.as_u16()))
            .unwrap_or(StatusCode::BAD_GATEWAY);
        let mut fields = Fields::new();
        for (name, value) in response.headers {
            let (name, value) = (name.as_bytes(), trim(&value));
            if is_token(name) && is_field_value(value) && !Known::of(name).is_some_and(Known::is_gateways) {
                fields.append(name, value);
            }
        }
        let mut reason = response.reason;
        reason.truncate(reason.floor_char_boundary(REASON));
        Self { status, fields, body: response.body.into(), reason }
    }
}
