//! An answer that a plugin gives itself.

use super::{
    Fault, FaultKind,
    bindings::vers::gateway::types,
    host::{MOST_LINES, MOST_TEXT},
};
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
    /// Checks what a guest answers.
    ///
    /// # Errors
    /// Fails where it has more lines or text than any head may have: whoever sends it on counts on that.
    pub(super) fn from_guest(response: types::LocalResponse) -> Result<Self, Fault> {
        let text: usize = response.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if response.headers.len() > MOST_LINES || text > MOST_TEXT {
            let lines = response.headers.len();
            let detail = format!("it has {lines} lines of {text} bytes; {MOST_LINES} of {MOST_TEXT} may be");
            return Err(Fault { kind: FaultKind::Response, detail });
        }
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
        Ok(Self { status, fields, body: response.body.into(), reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(headers: Vec<(String, Vec<u8>)>) -> Result<LocalResponse, FaultKind> {
        let response =
            types::LocalResponse { status: 200, headers, body: Vec::new(), reason: "x".repeat(2 * REASON) };
        LocalResponse::from_guest(response).map_err(|fault| fault.kind)
    }

    #[test]
    fn the_head_of_an_answer_is_bounded() {
        let lines = |count: usize| (0..count).map(|number| (format!("x-{number}"), b"1".to_vec())).collect();
        let most = answer(lines(MOST_LINES)).expect("as many as there may be");
        assert_eq!((most.fields.len(), most.reason.len()), (MOST_LINES, REASON));
        assert_eq!(answer(lines(MOST_LINES + 1)).err(), Some(FaultKind::Response));
        // What would not be sent is looked at all the same.
        let refused = vec![("a b".to_owned(), Vec::new()); MOST_LINES + 1];
        assert_eq!(answer(refused).err(), Some(FaultKind::Response));
        let long = |bytes| vec![("x".to_owned(), vec![b'x'; bytes])];
        assert!(answer(long(MOST_TEXT - 1)).is_ok());
        assert_eq!(answer(long(MOST_TEXT)).err(), Some(FaultKind::Response));
    }
}
