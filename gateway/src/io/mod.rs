//! Streams and buffers, before anybody knows what protocol they carry.

mod buffers;
mod inbox;
#[cfg(target_os = "linux")]
mod pipe;
mod seldom;
mod stream;
mod timer;

pub use buffers::{BUFFER_SIZE, Buffers};
pub use inbox::Inbox;
#[cfg(target_os = "linux")]
pub use pipe::Pipe;
pub use seldom::Seldom;
pub use stream::Stream;
pub use timer::{Timer, Timers};
