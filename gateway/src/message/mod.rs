//! Heads of HTTP messages, whatever version of the protocol carried them.
//!
//! A head is one piece of text and a list of places in it: parsing copies it once, reading borrows,
//! and an edit appends. Nothing here reads or writes a socket, and nothing decides what a field means
//! for the connection.

mod fields;
mod grammar;
mod names;
mod request;
mod response;
mod span;

pub use fields::Fields;
pub use grammar::{host_of, is_field_value, is_target, is_token, trim};
pub use names::Known;
pub use request::RequestHead;
pub use response::ResponseHead;
pub use span::Span;
