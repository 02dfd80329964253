//! Streams and buffers, before anybody knows what protocol they carry.

mod buffers;
mod inbox;
mod seldom;
mod stream;
mod timer;

pub use buffers::{BUFFER_SIZE, Buffers};
pub use inbox::Inbox;
pub use seldom::Seldom;
pub use stream::Stream;
pub use timer::Timer;
