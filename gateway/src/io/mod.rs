//! Streams and buffers, before anybody knows what protocol they carry.

mod buffers;
mod watched;

pub use buffers::{BUFFER_SIZE, Buffers};
pub use watched::{Activity, Watched};
