//! HTTP/2 on the wire (RFC 9113), both roles: connections, streams, and heads as strict as those of
//! HTTP/1.
//!
//! It owns the crate h2, which frames, compresses and counts windows; no type of it leaves. A stream
//! is read and written like a connection that carries nothing but one body; its heads, its end and
//! its trailers are told apart from that. What h2 lets pass and HTTP/1 would not is refused in
//! `head`, which is pure.

mod body;
mod client;
mod error;
mod head;
mod outbox;
mod ration;
mod server;
mod watch;

pub use body::Body;
pub use client::{Call, Client, Driver, Said, get};
pub use error::{Error, Gone};
pub use head::{fields, header_map, request, request_head, response_head};
pub use server::{Incoming, Server, ServerStream, Terms};

/// What a client that speaks HTTP/2 without asking first begins with (RFC 9113 §3.4), up to where it
/// could be the head of a request of HTTP/1.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// Bytes of one stream's body that may come before they are read (RFC 9113 §6.9.2). A client's
/// backend that reads nothing makes the gateway hold as many.
const STREAM_WINDOW: u32 = 64 * 1024;

/// The same for all streams of a client's connection.
const CLIENT_WINDOW: u32 = 1024 * 1024;

/// Bytes of one stream that wait for its reader's window or socket.
const SEND_BUFFER: usize = 64 * 1024;

/// Bytes that a field counts beyond its name and value (RFC 9113 §6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// The largest list of header fields that h2 takes, for heads with these limits: our own come first.
fn list_size(limits: crate::http1::HeadLimits) -> u32 {
    let size = limits.size.saturating_add(limits.headers.saturating_add(8) * FIELD_OVERHEAD);
    u32::try_from(size).unwrap_or(u32::MAX)
}
