//! The opening handshake of WebSocket: one key of 16 bytes, and one answer to it.

use super::{request::fields_of, shown};
use data_encoding::BASE64;
use sha1::{Digest as _, Sha1};
use vers_gateway::{headers::websocket::handshake, message::Fields};

/// Panics where a rule is broken. The bytes are header lines, of the request and of the answer.
pub(crate) fn check(bytes: &[u8]) {
    let Some(fields) = fields_of(bytes) else { return };
    let all = |name: &'static str| fields.all_named(name.as_bytes()).collect::<Vec<_>>();
    let keys = all("sec-websocket-key");
    let is_key =
        keys.len() == 1 && keys[0].len() == 24 && BASE64.decode(keys[0]).is_ok_and(|k| k.len() == 16);
    let is_handshake = is_key && all("sec-websocket-version") == [b"13"];
    let Ok(accept) = handshake(&fields) else {
        return assert!(!is_handshake, "refused: {}", shown(bytes));
    };
    assert!(is_handshake, "taken: {}", shown(bytes));
    let text = [keys[0], b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    let right = BASE64.encode(&Sha1::digest(text));
    assert!(accept.is_in(&Fields::from_iter([("Sec-WebSocket-Accept", right.as_str())])));
    assert_eq!(accept.is_in(&fields), all("sec-websocket-accept") == [right.as_bytes()], "{}", shown(bytes));
}
