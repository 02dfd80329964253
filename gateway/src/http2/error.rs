//! Why a stream, or its connection, ended.

use h2::Reason;
use std::{fmt, io};

/// Why a stream, or its connection, ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The protocol was broken, or the other side ended it.
    #[error(transparent)]
    Protocol(h2::Error),
    /// What carries the connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What is known of a request whose stream has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// The other side says that it has done nothing about it, and takes no more on this connection
    /// (RFC 9113 §8.7).
    Retired,
    /// The other side says that it has done nothing about it.
    Refused,
    /// The other side ended the stream.
    Reset,
    /// The connection ended.
    Connection,
}

impl Error {
    /// What the error says about the request.
    pub fn gone(&self) -> Gone {
        let Self::Protocol(error) = self else { return Gone::Connection };
        let reason = error.reason();
        let is_remote = error.is_remote();
        if is_remote && error.is_go_away() && reason == Some(Reason::NO_ERROR) {
            return Gone::Retired;
        }
        match (error.is_reset(), reason) {
            (true, Some(Reason::REFUSED_STREAM)) if is_remote => Gone::Refused,
            (true, _) => Gone::Reset,
            (false, _) => Gone::Connection,
        }
    }
}

impl From<h2::Error> for Error {
    fn from(error: h2::Error) -> Self {
        Self::Protocol(error)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::Io(error) => return error,
            Error::Protocol(ref error) if error.is_reset() => io::ErrorKind::ConnectionReset,
            Error::Protocol(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// An error of this side: a stream was used for what it cannot do.
pub(super) fn misused(what: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.to_string())
}
