//! The body of a message, out of its framing (RFC 9112 §6, §7.1).

use super::{BodyLength, HeadLimits, Malformed, head};
use crate::message::Fields;
use memchr::memchr;
use std::ops::Range;

/// Bytes of a chunk's first line: 16 digits of its size, and extensions, which nobody uses.
const CHUNK_LINE: usize = 16 + 256;

/// Limits of the trailers.
const TRAILERS: HeadLimits = HeadLimits { size: 16 * 1024, headers: 64 };

/// Takes the body of one message out of its framing.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Bytes that may still come of a body whose length is not told.
    budget: u64,
    trailers: Option<Box<Fields>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes are left.
    Exact(u64),
    UntilClose,
    /// A chunk's first line comes next.
    Size,
    /// So many bytes of the chunk are left.
    Chunk(u64),
    /// The chunk's CRLF comes next.
    ChunkEnd,
    Trailers,
    Ended,
}

/// What was found in some bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Where the bytes of the body lie now.
    pub data: Range<usize>,
    /// How many bytes are done with; what is behind them belongs to what comes next.
    pub consumed: usize,
}

impl Decoder {
    /// For a body that ends in this way.
    pub fn new(length: BodyLength) -> Self {
        Self::limited(length, u64::MAX)
    }

    /// The same, where a body whose length is not told has at most so many bytes. Of a body whose length is told,
    /// who reads its head knows whether it is too long.
    pub fn limited(length: BodyLength, limit: u64) -> Self {
        let state = match length {
            BodyLength::None => State::Ended,
            BodyLength::Exact(bytes) => State::Exact(bytes),
            BodyLength::Chunked => State::Size,
            BodyLength::UntilClose => State::UntilClose,
        };
        Self { state, budget: limit, trailers: None }
    }

    /// Whether the body has ended.
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// How many bytes are left of a body whose length was told.
    pub fn left(&self) -> Option<u64> {
        match self.state {
            State::Exact(left) => Some(left),
            _ => None,
        }
    }

    /// Counts bytes of such a body that went by without being decoded: there is nothing to take them
    /// out of.
    pub fn pass(&mut self, bytes: u64) {
        if let State::Exact(left) = &mut self.state {
            *left = left.saturating_sub(bytes);
            if *left == 0 {
                self.state = State::Ended;
            }
        }
    }

    /// The trailers, once the body has ended.
    pub fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.trailers.take()
    }

    /// Whether there are any.
    pub fn has_trailers(&self) -> bool {
        self.trailers.is_some()
    }

    /// Trailers that came apart from the body.
    pub fn put_trailers(&mut self, trailers: Box<Fields>) {
        self.trailers = Some(trailers);
    }

    /// The sender's connection has ended.
    ///
    /// # Errors
    /// Fails where more was to come.
    pub fn end_of_input(&mut self) -> Result<(), Malformed> {
        match self.state {
            State::UntilClose | State::Ended => {
                self.state = State::Ended;
                Ok(())
            }
            _ => Err(Malformed::Truncated),
        }
    }

    /// Takes the body's bytes out of these. Those of several chunks are moved together.
    ///
    /// # Errors
    /// Fails where the framing is broken. What came before that is lost with it.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, Malformed> {
        let mut data = 0..0;
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            match self.state {
                State::Ended => break,
                State::Size => {
                    let Some((size, length)) = chunk_line(rest)? else { break };
                    at += length;
                    self.budget = self.budget.checked_sub(size).ok_or(Malformed::BodyTooLarge)?;
                    self.state = if size == 0 { State::Trailers } else { State::Chunk(size) };
                }
                State::ChunkEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        at += 2;
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => break,
                    _ => return Err(Malformed::Chunk),
                },
                State::Trailers => {
                    let Some(length) = self.read_trailers(rest)? else { break };
                    at += length;
                    self.state = State::Ended;
                }
                State::UntilClose | State::Exact(_) | State::Chunk(_) => {
                    if rest.is_empty() {
                        break;
                    }
                    let taken = self.take(rest.len());
                    if self.state == State::UntilClose {
                        self.budget = self.budget.checked_sub(taken as u64).ok_or(Malformed::BodyTooLarge)?;
                    }
                    if data.is_empty() {
                        data = at..at;
                    }
                    bytes.copy_within(at..at + taken, data.end);
                    data.end += taken;
                    at += taken;
                }
            }
        }
        Ok(Decoded { data, consumed: at })
    }

    /// Counts bytes of the body that are there, and returns how many.
    fn take(&mut self, available: usize) -> usize {
        let (State::Exact(left) | State::Chunk(left)) = &mut self.state else { return available };
        let taken = usize::try_from(*left).map_or(available, |left| left.min(available));
        *left -= taken as u64;
        if *left == 0 {
            let is_chunk = matches!(self.state, State::Chunk(_));
            self.state = if is_chunk { State::ChunkEnd } else { State::Ended };
        }
        taken
    }

    /// Reads the trailer section (§7.1.2), once it is whole, and returns its length.
    fn read_trailers(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        if bytes.starts_with(b"\r\n") {
            return Ok(Some(2));
        }
        if bytes.len() < 2 && b"\r\n".starts_with(bytes) {
            return Ok(None);
        }
        let Some(length) = head::length(bytes, TRAILERS).map_err(of_trailers)? else { return Ok(None) };
        let section = bytes.get(..length).unwrap_or_default();
        let fields = head::fields(section, 0, TRAILERS).map_err(of_trailers)?;
        self.trailers = Some(Box::new(fields));
        Ok(Some(length))
    }
}

/// What is too large for a head is too large for trailers, and something else to whoever sent it.
fn of_trailers(error: Malformed) -> Malformed {
    match error {
        Malformed::TargetTooLong | Malformed::HeadTooLarge | Malformed::TooManyFields => Malformed::Trailers,
        error => error,
    }
}

/// The size that a chunk's first line tells, and the length of the line (§7.1); none where the line
/// is not whole.
fn chunk_line(bytes: &[u8]) -> Result<Option<(u64, usize)>, Malformed> {
    let Some(end) = memchr(b'\n', bytes.get(..CHUNK_LINE.min(bytes.len())).unwrap_or_default()) else {
        return if bytes.len() < CHUNK_LINE { Ok(None) } else { Err(Malformed::Chunk) };
    };
    let line = bytes.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Malformed::Chunk)?;
    let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, extension) = line.split_at(digits);
    // Extensions are dropped, as §7.1.1 has it; they must not hide the end of a line.
    let is_extension =
        extension.is_empty() || (extension.starts_with(b";") && crate::message::is_field_value(extension));
    let text = std::str::from_utf8(digits).map_err(|_| Malformed::Chunk)?;
    let size = u64::from_str_radix(text, 16).ok().filter(|size| *size <= i64::MAX as u64);
    match size {
        Some(size) if is_extension && digits.len() <= 16 => Ok(Some((size, end + 1))),
        _ => Err(Malformed::Chunk),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out when the bytes arrive in pieces of this size, and how many are left over.
    fn decode(length: BodyLength, bytes: &[u8], piece: usize) -> Result<(Vec<u8>, usize, bool), Malformed> {
        let mut decoder = Decoder::new(length);
        let (mut held, mut body) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            held.extend_from_slice(piece);
            let decoded = decoder.decode(&mut held)?;
            body.extend_from_slice(&held[decoded.data]);
            held.drain(..decoded.consumed);
        }
        Ok((body, held.len(), decoder.is_ended()))
    }

    #[track_caller]
    fn check(length: BodyLength, bytes: &[u8], expected: Result<(&[u8], usize, bool), Malformed>) {
        for piece in [1, 2, 3, 7, bytes.len().max(1)] {
            let got = decode(length, bytes, piece);
            let got =
                got.as_ref().map(|(body, left, ended)| (body.as_slice(), *left, *ended)).map_err(|e| *e);
            assert_eq!(got, expected, "{:?} in pieces of {piece}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn bodies_of_known_length() {
        check(BodyLength::None, b"GET", Ok((b"", 3, true)));
        check(BodyLength::Exact(3), b"ab", Ok((b"ab", 0, false)));
        check(BodyLength::Exact(3), b"abcGET", Ok((b"abc", 3, true)));
        check(BodyLength::UntilClose, b"abc", Ok((b"abc", 0, false)));
    }

    #[test]
    fn chunks_become_one_body() {
        let chunked = BodyLength::Chunked;
        check(chunked, b"3\r\nabc\r\n0a\r\n0123456789\r\n0\r\n\r\nGET", Ok((b"abc0123456789", 3, true)));
        check(chunked, b"1;a=\"b c\";d\r\nx\r\n000\r\n\r\n", Ok((b"x", 0, true)));
        check(chunked, b"5\r\nab", Ok((b"ab", 0, false)));
    }

    #[test]
    fn trailers_are_kept() {
        let mut decoder = Decoder::new(BodyLength::Chunked);
        let mut bytes = b"1\r\nx\r\n0\r\nX-Sum: 7\r\n\r\nrest".to_vec();
        let decoded = decoder.decode(&mut bytes).expect("a body");
        assert_eq!(decoded.consumed, bytes.len() - 4);
        let trailers = decoder.take_trailers().expect("trailers");
        assert_eq!(trailers.get_named(b"x-sum"), Some(b"7".as_slice()));
    }

    #[test]
    fn broken_chunks() {
        for bytes in [
            &b"\r\n"[..],
            b"g\r\n",
            b"+1\r\nx",
            b"-1\r\nx",
            b"0x1\r\nx",
            b" 1\r\nx",
            b"1 \r\nx",
            b"1\nx\r\n",
            b"1\r\nxx",
            b"1\r\nx\n0",
            b"1\r\nx\rx",
            b"8000000000000000\r\n",
            b"00000000000000001\r\n",
            b"fffffffffffffffff\r\n",
            b"1;\x00\r\n",
            b"1;\r\r\n",
            b"1x\r\n",
            b"0\r\nno colon\r\n\r\n",
            b"0\r\na : b\r\n\r\n",
            b"0\r\n\n",
        ] {
            let got = decode(BodyLength::Chunked, bytes, bytes.len());
            assert!(got.is_err(), "{:?}: {got:?}", String::from_utf8_lossy(bytes));
        }
        let endless = [b'1'; CHUNK_LINE + 1];
        assert!(decode(BodyLength::Chunked, &endless, 7).is_err(), "a line without end");
    }

    #[test]
    fn chunks_over_the_limit_are_told_by_their_first_line() {
        let decode = |limit, bytes: &[u8]| {
            let mut decoder = Decoder::limited(BodyLength::Chunked, limit);
            decoder.decode(&mut bytes.to_vec()).map(|decoded| decoded.data.len())
        };
        assert_eq!(decode(5, b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"), Ok(5));
        assert_eq!(decode(5, b"2\r\nab\r\n4\r\n"), Err(Malformed::BodyTooLarge));
        assert_eq!(decode(5, b"6\r\n"), Err(Malformed::BodyTooLarge));
        assert_eq!(decode(0, b"0\r\n\r\n"), Ok(0));
        assert_eq!(decode(u64::MAX, b"7fffffffffffffff\r\nx"), Ok(1));
    }

    #[test]
    fn an_end_before_the_end_is_told() {
        for (length, expected) in [
            (BodyLength::None, Ok(())),
            (BodyLength::UntilClose, Ok(())),
            (BodyLength::Exact(1), Err(Malformed::Truncated)),
            (BodyLength::Chunked, Err(Malformed::Truncated)),
        ] {
            assert_eq!(Decoder::new(length).end_of_input(), expected, "{length:?}");
        }
    }
}
