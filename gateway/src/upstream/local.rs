//! What answers requests without a connection: inside of this process. It is stated here, and comes from above.

use crate::{
    http1::{HeadLimits, Malformed},
    message::{Fields, RequestHead, ResponseHead},
};
use std::{
    fmt, io,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite};

/// One request to what answers inside of this process: what is written is its body, and reading gives the body of
/// its answer. Heads and ends are told apart from the bytes, as over HTTP/2. Dropped before its end, it is given up.
pub trait Local: AsyncRead + AsyncWrite + Unpin + fmt::Debug {
    /// Tells the request's head, and whether that is all of it.
    ///
    /// # Errors
    /// Fails where the head is one that only HTTP/1 has.
    fn start(&mut self, head: &RequestHead, is_last: bool) -> Result<(), Malformed>;

    /// The head of the answer.
    ///
    /// # Errors
    /// Fails where there is none.
    fn poll_head(&mut self, cx: &mut Context<'_>, limits: HeadLimits) -> Poll<Result<ResponseHead, Failure>>;

    /// Whether it is known that nothing more is to be read.
    fn is_at_end(&self) -> bool;

    /// The trailers of the answer, after everything else was read.
    fn take_trailers(&mut self) -> Option<Box<Fields>>;

    /// Says that what is written ends after so many more bytes.
    fn ends_after(&mut self, bytes: usize);

    /// Ends what is written.
    ///
    /// # Errors
    /// Fails where nobody takes it.
    fn end(&mut self, trailers: Option<&Fields>) -> io::Result<()>;

    /// The answer has been read as far as anybody wants it. What is to be done behind it is.
    fn finish(self: Box<Self>);
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// It is none that could be passed on.
    Malformed(Malformed),
    /// There was no room for the request.
    Full,
    /// Who was to give it failed.
    Failed(io::Error),
}
