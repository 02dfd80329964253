//! What can be wrong with a message.

/// Why a message is not HTTP/1, or could be read in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// RFC 9112 §2.2 lets a recipient take a bare LF. Recipients differ, so nobody should.
    #[error("a line does not end in CRLF")]
    LineEnd,
    /// RFC 9112 §3.
    #[error("the request line is not `method target version`")]
    RequestLine,
    /// A token, but longer than any method (RFC 9110 §9.1).
    #[error("the method is too long")]
    Method,
    /// RFC 9112 §3.2.
    #[error("the request's target is neither a path nor a URL")]
    Target,
    /// RFC 9112 §2.3.
    #[error("the version is not HTTP/1.0 or HTTP/1.1")]
    Version,
    /// RFC 9112 §4.
    #[error("the status line is not `version status reason`")]
    StatusLine,
    /// RFC 9112 §5.1: a colon without whitespace before it, after a token.
    #[error("a header line is not `name: value`")]
    FieldName,
    /// RFC 9110 §5.5.
    #[error("a header value holds control characters")]
    FieldValue,
    /// RFC 9112 §5.2.
    #[error("a header line is folded, or begins with whitespace")]
    Folded,
    /// The target alone is over the limit of heads.
    #[error("the request's target is too long")]
    TargetTooLong,
    /// The head is over its limit.
    #[error("the head is too large")]
    HeadTooLarge,
    /// The head has more lines than its limit.
    #[error("the head has too many lines")]
    TooManyFields,
    /// RFC 9112 §6.1: both Content-Length and Transfer-Encoding.
    #[error("both Content-Length and Transfer-Encoding")]
    TwoLengths,
    /// RFC 9110 §8.6.
    #[error("Content-Length is not one decimal number")]
    ContentLength,
    /// RFC 9112 §6.1.
    #[error("Transfer-Encoding is malformed, or has no place in this message")]
    TransferEncoding,
    /// Well formed, and nothing that this gateway can undo.
    #[error("a transfer coding other than chunked")]
    UnknownCoding,
    /// RFC 9112 §7.1.
    #[error("the chunked coding is malformed")]
    Chunk,
    /// RFC 9112 §7.1.2.
    #[error("the trailers are too large, or have too many lines")]
    Trailers,
    /// RFC 9110 §15.5.14.
    #[error("the body is larger than the route allows")]
    BodyTooLarge,
    /// RFC 9112 §8: the connection ended before the message did.
    #[error("the message broke off")]
    Truncated,
}
