//! HTTP/1 on the wire (RFC 9112): heads, framing of bodies, and nothing that is not one or the other.
//!
//! Pure: bytes in, values out; who owns the socket is somebody else's business. There is one reading
//! of every message: what has two is refused here, for requests and answers alike, so that no peer
//! behind or before this gateway can be made to see another message than the gateway did.

mod decoder;
mod encode;
mod error;
mod framing;
mod head;
mod request;
mod response;

pub use decoder::{Decoded, Decoder};
pub use encode::{LAST_CHUNK, write_chunk_size, write_last_chunk, write_request, write_status_line};
pub use error::Malformed;
pub use framing::{BodyLength, request_body, response_body};
pub use head::HeadLimits;
pub use request::parse_request;
pub use response::parse_response;
