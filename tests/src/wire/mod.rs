//! HTTP/1 as bytes, for suites that say to the byte what is sent and what comes.

mod connection;
mod message;
mod pulse;
mod template;

pub use connection::{Connection, End};
pub use message::{Framing, Message, Parsed, answer, answers, closes, request};
pub use pulse::Pulse;
pub use template::{Part, escape, expand, latin, parts, pieces};
