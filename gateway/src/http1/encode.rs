//! Messages as bytes.

use crate::message::{Fields, RequestHead};
use http::StatusCode;
use std::io::Write as _;

/// The end of a chunked body without trailers (RFC 9112 §7.1).
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Writes the head of a request, up to its header fields and with them; what frames the body, and
/// the empty line, are the caller's.
pub fn write_request(head: &RequestHead, out: &mut Vec<u8>) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.path().as_bytes());
    if let Some(query) = head.query() {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    head.fields.write(out);
}

/// Writes a status line.
pub fn write_status_line(status: StatusCode, out: &mut Vec<u8>) {
    if status == StatusCode::OK {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes the first line of a chunk.
pub fn write_chunk_size(size: usize, out: &mut Vec<u8>) {
    // Writing into a vector cannot fail.
    let _ = write!(out, "{size:x}\r\n");
}

/// Writes the end of a chunked body, with trailers.
pub fn write_last_chunk(trailers: Option<&Fields>, out: &mut Vec<u8>) {
    match trailers {
        None => out.extend_from_slice(LAST_CHUNK),
        Some(trailers) => {
            out.extend_from_slice(b"0\r\n");
            trailers.write(out);
            out.extend_from_slice(b"\r\n");
        }
    }
}
