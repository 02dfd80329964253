//! Heads of answers (RFC 9112 §4).

use super::{HeadLimits, Malformed, head, request::version};
use crate::message::{ResponseHead, is_field_value};
use http::StatusCode;

/// Reads the head that these bytes begin with, and says how many of them it took; none where there
/// must be more to come.
///
/// # Errors
/// Fails where the bytes cannot become a head, or one that could be read in two ways.
pub fn parse_response(bytes: &[u8], limits: HeadLimits) -> Result<Option<(ResponseHead, usize)>, Malformed> {
    const START: &[u8] = b"HTTP/";
    let start = bytes.get(..START.len().min(bytes.len())).unwrap_or_default();
    if !START.starts_with(start) {
        return Err(Malformed::StatusLine);
    }
    let Some(length) = head::length(bytes, limits)? else { return Ok(None) };
    let head = bytes.get(..length).unwrap_or_default();
    let (line, next) = head::line(head, 0)?;
    let (version, status) = line.split_at_checked("HTTP/1.1".len()).ok_or(Malformed::StatusLine)?;
    let version = self::version(version).map_err(|_| Malformed::StatusLine)?;
    let status = self::status(status)?;
    let fields = head::fields(head, next, limits)?;
    Ok(Some((ResponseHead { status, version, fields }, length)))
}

/// §4: ` 200 OK`. Many servers leave the last space out together with the reason.
fn status(rest: &[u8]) -> Result<StatusCode, Malformed> {
    let (code, reason) = rest.split_at_checked(" 200".len()).ok_or(Malformed::StatusLine)?;
    let code = code.strip_prefix(b" ").ok_or(Malformed::StatusLine)?;
    let is_reason = reason.is_empty() || reason.strip_prefix(b" ").is_some_and(is_field_value);
    StatusCode::from_bytes(code)
        .ok()
        .filter(|status| is_reason && status.as_u16() < 600)
        .ok_or(Malformed::StatusLine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Version;

    const LIMITS: HeadLimits = HeadLimits { size: 1024, headers: 4 };

    #[test]
    fn status_lines() {
        let parse = |line: &str| {
            parse_response(format!("{line}\r\n\r\n").as_bytes(), LIMITS)
                .map(|head| head.map(|(head, _)| (head.version, head.status.as_u16())))
        };
        for (line, version, status) in [
            ("HTTP/1.1 200 OK", Version::HTTP_11, 200),
            ("HTTP/1.1 200", Version::HTTP_11, 200),
            ("HTTP/1.1 200 ", Version::HTTP_11, 200),
            ("HTTP/1.0 599 \u{e9}t\u{e9}", Version::HTTP_10, 599),
        ] {
            assert_eq!(parse(line), Ok(Some((version, status))), "{line}");
        }
        for line in [
            "HTTP/1.1",
            "HTTP/1.1 ",
            "HTTP/1.1 20",
            "HTTP/1.1 2000",
            "HTTP/1.1 200OK",
            "HTTP/1.1  200 OK",
            "HTTP/1.1 099 x",
            "HTTP/1.1 600 x",
            "HTTP/1.1 +20 x",
            "HTTP/2.0 200 OK",
            "HTTP/1.2 200 OK",
            "http/1.1 200 OK",
            "ICY 200 OK",
            " HTTP/1.1 200 OK",
            "HTTP/1.1 200 \u{1}",
        ] {
            assert_eq!(parse(line), Err(Malformed::StatusLine), "{line:?}");
        }
    }
}
