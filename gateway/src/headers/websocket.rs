//! The opening handshake of WebSocket (RFC 6455 §4), as far as it keeps both ends honest: a backend
//! that answers 101 without having read the request, or a client that asks for nothing that could be
//! answered, would leave the other end with HTTP in a tunnel.

use crate::message::{Fields, Known};
use data_encoding::BASE64;
use sha1::{Digest as _, Sha1};

/// What a backend must answer to a client's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept([u8; 20]);

/// Why a request is no opening handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// §4.2.1: exactly one key, of 16 bytes in base64.
    #[error("Sec-WebSocket-Key is not one key of 16 bytes in base64")]
    Key,
    /// §4.2.2, 4.4: another version than 13.
    #[error("Sec-WebSocket-Version is not 13")]
    Version,
}

/// §1.3: what both sides append to the key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Reads the handshake of a request.
///
/// # Errors
/// Fails where no backend could agree to it.
pub fn handshake(fields: &Fields) -> Result<Accept, HandshakeError> {
    if fields.only(Known::SecWebSocketVersion) != Some(b"13") {
        return Err(HandshakeError::Version);
    }
    let key = fields.only(Known::SecWebSocketKey).ok_or(HandshakeError::Key)?;
    match BASE64.decode(key) {
        Ok(bytes) if bytes.len() == 16 => {
            Ok(Accept(Sha1::new().chain_update(key).chain_update(GUID).finalize().into()))
        }
        _ => Err(HandshakeError::Key),
    }
}

impl Accept {
    /// Whether these fields of an answer agree to the handshake.
    pub fn is_in(&self, fields: &Fields) -> bool {
        let answered = fields.only(Known::SecWebSocketAccept).and_then(|value| BASE64.decode(value).ok());
        answered.as_deref() == Some(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(key: &str, version: &str) -> Result<Accept, HandshakeError> {
        let fields = [("Sec-WebSocket-Key", key), ("Sec-WebSocket-Version", version)];
        handshake(&fields.into_iter().collect())
    }

    #[test]
    fn the_example_of_the_rfc() {
        let accept = request("dGhlIHNhbXBsZSBub25jZQ==", "13").expect("a handshake");
        let answer = |value| Fields::from_iter([("Sec-WebSocket-Accept", value)]);
        assert!(accept.is_in(&answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
        assert!(!accept.is_in(&answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOp=")));
        assert!(!accept.is_in(&Fields::new()));
    }

    #[test]
    fn what_no_backend_could_agree_to() {
        assert_eq!(request("dGhlIHNhbXBsZSBub25jZQ==", "8"), Err(HandshakeError::Version));
        for key in ["", "short", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZSE="] {
            assert_eq!(request(key, "13"), Err(HandshakeError::Key), "{key:?}");
        }
    }
}
