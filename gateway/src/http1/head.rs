//! What heads of requests and answers have in common: a first line, header lines, an empty line.

use super::Malformed;
use crate::message::{Fields, Span, is_field_value, is_token, trim};
use memchr::{memchr, memchr_iter};

/// Limits of the head of a request or of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head.
    pub size: usize,
    /// Header lines.
    pub headers: usize,
}

/// The end of a head.
pub(super) const EMPTY_LINE: &[u8] = b"\r\n\r\n";

/// The length of the head that these bytes begin with, up to and with its empty line; none where
/// there must be more to come.
pub(super) fn length(bytes: &[u8], limits: HeadLimits) -> Result<Option<usize>, Malformed> {
    // From line to line: to make a searcher for four bytes takes longer than to find them.
    let mut ends = memchr_iter(b'\n', bytes).map(|at| at + 1);
    match ends.find(|end| bytes.get(..*end).is_some_and(|head| head.ends_with(EMPTY_LINE))) {
        Some(end) if end <= limits.size => Ok(Some(end)),
        Some(_) => Err(too_large(bytes, limits)),
        None if bytes.len() >= limits.size => Err(too_large(bytes, limits)),
        None => {
            // A sender that ends its lines in another way believes that it is done: it must not wait.
            let before = bytes.split_last().map_or(bytes, |(_, before)| before);
            let is_pair = |at: usize| bytes.get(at..at + 2) == Some(b"\r\n");
            let returns = memchr_iter(b'\r', before).all(is_pair);
            let feeds = memchr_iter(b'\n', bytes).all(|at| at > 0 && is_pair(at - 1));
            if returns && feeds { Ok(None) } else { Err(Malformed::LineEnd) }
        }
    }
}

fn too_large(bytes: &[u8], limits: HeadLimits) -> Malformed {
    match memchr(b'\n', bytes) {
        Some(at) if at < limits.size => Malformed::HeadTooLarge,
        _ => Malformed::TargetTooLong,
    }
}

/// The line that begins at `at`, without its CRLF, and where the next one begins.
pub(super) fn line(head: &[u8], at: usize) -> Result<(&[u8], usize), Malformed> {
    let rest = head.get(at..).unwrap_or_default();
    let end = memchr(b'\n', rest).ok_or(Malformed::LineEnd)?;
    let line = rest.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Malformed::LineEnd)?;
    Ok((line, at + end + 1))
}

/// The header lines of a complete head, from `at` on to the empty line.
pub(super) fn fields(head: &[u8], mut at: usize, limits: HeadLimits) -> Result<Fields, Malformed> {
    let mut fields = Fields::over(head, 16);
    loop {
        let (line, next) = line(head, at)?;
        if line.is_empty() {
            return Ok(fields);
        }
        if fields.len() >= limits.headers {
            return Err(Malformed::TooManyFields);
        }
        let (name, value) = field(line)?;
        let value_at = at + offset(line, value);
        fields.push_line(Span::new(at, name.len()), Span::new(value_at, value.len()));
        at = next;
    }
}

/// RFC 9112 §5: `name ":" OWS value OWS`.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Malformed::Folded);
    }
    let colon = memchr(b':', line).ok_or(Malformed::FieldName)?;
    let (name, value) = line.split_at(colon);
    // §5.1: whitespace before the colon has been used to smuggle; a token has none.
    if !is_token(name) {
        return Err(Malformed::FieldName);
    }
    let value = trim(value.get(1..).unwrap_or_default());
    if is_field_value(value) { Ok((name, value)) } else { Err(Malformed::FieldValue) }
}

/// Where in `whole` its part begins.
pub(super) fn offset(whole: &[u8], part: &[u8]) -> usize {
    // Both are slices of the same bytes, so this is a difference of places, not of allocations. An
    // empty part may stand anywhere.
    (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize).min(whole.len())
}
