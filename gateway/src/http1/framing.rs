//! Where the body of a message ends (RFC 9112 §6.3).

use super::Malformed;
use crate::message::{Fields, Known, RequestHead, ResponseHead, is_token, trim};
use http::{Method, StatusCode, Version};

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// So many bytes; at least one.
    Exact(u64),
    /// By the chunked coding.
    Chunked,
    /// By the end of the connection; answers only.
    UntilClose,
}

impl BodyLength {
    /// Whether its head says already that it has more bytes than this.
    pub fn is_told_to_exceed(self, limit: u64) -> bool {
        matches!(self, Self::Exact(length) if length > limit)
    }
}

/// How the body of a request ends.
///
/// # Errors
/// Fails where the head says two things about it, or one that is not understood.
pub fn request_body(head: &RequestHead) -> Result<BodyLength, Malformed> {
    check_one_length(&head.fields)?;
    match (content_length(&head.fields)?, is_chunked(&head.fields, head.version)?) {
        (_, true) => Ok(BodyLength::Chunked),
        (None | Some(0), false) => Ok(BodyLength::None),
        (Some(length), false) => Ok(BodyLength::Exact(length)),
    }
}

/// How the body of the answer to a request with this method ends.
///
/// # Errors
/// Fails where the head says two things about it, or one that is not understood.
pub fn response_body(method: &Method, head: &ResponseHead) -> Result<BodyLength, Malformed> {
    check_one_length(&head.fields)?;
    let (length, chunked) = (content_length(&head.fields)?, is_chunked(&head.fields, head.version)?);
    let has_none = head.status.is_informational() || head.status == StatusCode::NO_CONTENT;
    if chunked && has_none {
        // §6.1.
        return Err(Malformed::TransferEncoding);
    }
    match (length, chunked) {
        _ if has_none || head.status == StatusCode::NOT_MODIFIED || *method == Method::HEAD => {
            Ok(BodyLength::None)
        }
        (_, true) => Ok(BodyLength::Chunked),
        (Some(0), false) => Ok(BodyLength::None),
        (Some(length), false) => Ok(BodyLength::Exact(length)),
        (None, false) => Ok(BodyLength::UntilClose),
    }
}

/// RFC 9112 §6.1, §6.3: together they are how requests are smuggled, whatever either says.
fn check_one_length(fields: &Fields) -> Result<(), Malformed> {
    let both = fields.has(Known::ContentLength) && fields.has(Known::TransferEncoding);
    if both { Err(Malformed::TwoLengths) } else { Ok(()) }
}

/// RFC 9110 §8.6. Equal values may be merged, it says; a second line is refused all the same, because
/// nobody who has none to hide sends two.
fn content_length(fields: &Fields) -> Result<Option<u64>, Malformed> {
    if !fields.has(Known::ContentLength) {
        return Ok(None);
    }
    let value = fields.only(Known::ContentLength).ok_or(Malformed::ContentLength)?;
    let digits = value.iter().all(u8::is_ascii_digit).then_some(value).ok_or(Malformed::ContentLength)?;
    let text = std::str::from_utf8(digits).map_err(|_| Malformed::ContentLength)?;
    // Peers count in signed numbers, too.
    let number = text.parse::<u64>().ok().filter(|number| *number <= i64::MAX as u64);
    number.map(Some).ok_or(Malformed::ContentLength)
}

/// §6.1, §7. One line that says `chunked` and nothing else.
fn is_chunked(fields: &Fields, version: Version) -> Result<bool, Malformed> {
    if !fields.has(Known::TransferEncoding) {
        return Ok(false);
    }
    let value = fields.only(Known::TransferEncoding).ok_or(Malformed::TransferEncoding)?;
    if version == Version::HTTP_10 {
        // §6.1: its framing is faulty, whatever it says.
        return Err(Malformed::TransferEncoding);
    }
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(true);
    }
    let is_list = value.split(|byte| *byte == b',').all(|coding| is_token(trim(coding)));
    Err(if is_list { Malformed::UnknownCoding } else { Malformed::TransferEncoding })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Span;

    fn request(version: Version, fields: &[(&str, &str)]) -> Result<BodyLength, Malformed> {
        let fields = fields.iter().copied().collect();
        request_body(&RequestHead::new(Method::POST, version, fields, Span::default(), None))
    }

    fn response(method: &Method, status: u16, fields: &[(&str, &str)]) -> Result<BodyLength, Malformed> {
        let status = StatusCode::from_u16(status).expect("a status");
        response_body(method, &ResponseHead::new(status, fields.iter().copied().collect()))
    }

    #[test]
    fn requests() {
        use BodyLength::{Chunked, Exact, None};
        let check = |fields: &[(&str, &str)], expected| {
            assert_eq!(request(Version::HTTP_11, fields), expected, "{fields:?}");
        };
        check(&[], Ok(None));
        check(&[("content-length", "0")], Ok(None));
        check(&[("content-length", "00012")], Ok(Exact(12)));
        check(&[("content-length", "9223372036854775807")], Ok(Exact(i64::MAX as u64)));
        check(&[("transfer-encoding", "Chunked")], Ok(Chunked));
        for length in ["", "+1", "-1", "1 2", "0x1", "1,1", "1.0", "9223372036854775808", "\u{661}"] {
            check(&[("content-length", length)], Err(Malformed::ContentLength));
        }
        check(&[("content-length", "1"), ("content-length", "1")], Err(Malformed::ContentLength));
        check(&[("content-length", "1"), ("transfer-encoding", "chunked")], Err(Malformed::TwoLengths));
        for coding in ["gzip", "identity", "gzip, chunked", "chunked, chunked", "chunked , x"] {
            check(&[("transfer-encoding", coding)], Err(Malformed::UnknownCoding));
        }
        for coding in ["", "chunked,", ",chunked", "\"chunked\"", "chunked;q=1", "x chunked"] {
            check(&[("transfer-encoding", coding)], Err(Malformed::TransferEncoding));
        }
        let twice = [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        check(&twice, Err(Malformed::TransferEncoding));
        let old = request(Version::HTTP_10, &[("transfer-encoding", "chunked")]);
        assert_eq!(old, Err(Malformed::TransferEncoding));
    }

    #[test]
    fn answers() {
        use BodyLength::{Chunked, Exact, None, UntilClose};
        assert_eq!(response(&Method::GET, 200, &[]), Ok(UntilClose));
        assert_eq!(response(&Method::GET, 200, &[("content-length", "3")]), Ok(Exact(3)));
        assert_eq!(response(&Method::GET, 200, &[("content-length", "0")]), Ok(None));
        assert_eq!(response(&Method::GET, 200, &[("transfer-encoding", "chunked")]), Ok(Chunked));
        assert_eq!(response(&Method::HEAD, 200, &[("content-length", "3")]), Ok(None));
        assert_eq!(response(&Method::HEAD, 200, &[("transfer-encoding", "chunked")]), Ok(None));
        assert_eq!(response(&Method::GET, 304, &[("content-length", "3")]), Ok(None));
        assert_eq!(response(&Method::GET, 204, &[("content-length", "3")]), Ok(None));
        let chunked_nothing = response(&Method::GET, 204, &[("transfer-encoding", "chunked")]);
        assert_eq!(chunked_nothing, Err(Malformed::TransferEncoding));
        let both = response(&Method::GET, 200, &[("content-length", "3"), ("transfer-encoding", "chunked")]);
        assert_eq!(both, Err(Malformed::TwoLengths));
    }
}
