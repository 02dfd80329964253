//! What must hold of each parser, whatever it is fed. A check panics where something does not: fuzz
//! targets feed it bytes, the suite `properties` messages that are nearly right.
//!
//! Each takes one piece of bytes, so that a file of a corpus, a case of a property test and what a
//! fuzzer makes up are the same thing.

pub(crate) mod authority;
pub(crate) mod body;
pub(crate) mod configuration;
pub(crate) mod cookie;
pub(crate) mod downgrade;
pub(crate) mod forwarding;
pub(crate) mod handshake;
pub(crate) mod hop_by_hop;
pub(crate) mod proxy_header;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod routes;

use vers_gateway::{
    http1::{HeadLimits, parse_request},
    message::{Fields, Known, RequestHead},
};

/// Small, so that inputs of a fuzzer's size reach them.
pub(crate) const LIMITS: HeadLimits = HeadLimits { size: 2048, headers: 16 };

/// For what was written by ourselves and may have grown.
pub(crate) const WIDE: HeadLimits = HeadLimits { size: 1 << 20, headers: 1 << 10 };

/// Names and values, in order.
pub(crate) type Lines = Vec<(Vec<u8>, Vec<u8>)>;

/// All lines of some fields.
pub(crate) fn lines(fields: &Fields) -> Lines {
    fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// The name as every server sees it that has no case and takes `_` for `-`.
pub(crate) fn folded(name: &[u8]) -> Vec<u8> {
    name.to_ascii_lowercase().iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect()
}

/// Bytes as a person reads them.
pub(crate) fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The head that these bytes are the target and the header lines of; none where they are not.
pub(crate) fn head_of(bytes: &[u8]) -> Option<RequestHead> {
    let (target, lines) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &b""[..]),
    };
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut text = [b"GET ", target, b" HTTP/1.1\r\n"].concat();
    lines.for_each(|line| text.extend_from_slice(&[line, b"\r\n"].concat()));
    text.extend_from_slice(b"\r\n");
    let (head, length) = parse_request(&text, WIDE).ok()??;
    (length == text.len()).then_some(head)
}

/// What [`Fields`] say is present agrees with what is there.
pub(crate) fn consistent(fields: &Fields) {
    for (name, value) in fields.iter() {
        if let Some(known) = Known::of(name) {
            assert!(fields.has(known), "{} is there and is not known to be", shown(name));
            assert!(fields.all(known).any(|found| found == value), "{} is not found", shown(name));
        }
    }
    let known = |asked: fn(Known) -> bool| fields.iter().any(|(name, _)| Known::of(name).is_some_and(asked));
    assert_eq!(fields.has_hop_by_hop(), known(Known::is_hop_by_hop), "{:?}", lines(fields));
    assert_eq!(fields.has_forwarding(), known(Known::is_forwarding), "{:?}", lines(fields));
}
