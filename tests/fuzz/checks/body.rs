//! Bodies: the same bytes and the same verdict whatever the pieces, and as a plain reader has it.

use super::{Lines, lines, shown};
use vers_gateway::http1::{BodyLength, Decoder, Malformed};

/// Panics where a rule is broken. The first byte says how the body ends, the second how many of the
/// bytes behind it are sizes of pieces; the rest is what arrives.
pub(crate) fn check(input: &[u8]) {
    let [length, pieces, rest @ ..] = input else { return };
    let length = match length % 8 {
        0 => BodyLength::None,
        1 => BodyLength::UntilClose,
        2 => BodyLength::Exact(1 + u64::from(*pieces)),
        _ => BodyLength::Chunked,
    };
    let (pieces, bytes) = rest.split_at(rest.len().min(usize::from(pieces % 8)));
    in_pieces(length, bytes, pieces);
}

/// Panics where the pieces change anything.
pub(crate) fn in_pieces(length: BodyLength, bytes: &[u8], pieces: &[u8]) {
    let whole = decode(length, bytes, &[]);
    let single = decode(length, bytes, &[1]);
    assert_eq!(whole.as_ref().ok(), single.as_ref().ok(), "byte by byte: {length:?}, {}", shown(bytes));
    let some = decode(length, bytes, pieces);
    assert_eq!(whole.as_ref().ok(), some.as_ref().ok(), "{pieces:?}: {length:?}, {}", shown(bytes));
    if length == BodyLength::Chunked {
        limited(bytes, whole.as_ref().ok());
        as_read_plainly(bytes, whole.as_ref().ok());
    } else {
        let most = if let BodyLength::Exact(most) = length { most as usize } else { usize::MAX };
        let most = if length == BodyLength::None { 0 } else { most.min(bytes.len()) };
        let body = whole.expect("nothing can be wrong with it");
        assert_eq!(body.data, bytes[..most]);
        assert_eq!((body.consumed, body.trailers), (most, None));
    }
}

/// What came out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Body {
    /// Its bytes.
    pub(crate) data: Vec<u8>,
    /// Bytes that it took.
    pub(crate) consumed: usize,
    /// Whether it has ended.
    pub(crate) ended: bool,
    /// What follows it.
    pub(crate) trailers: Option<Lines>,
}

/// Decodes bytes that arrive in pieces of these sizes, over and over; all at once where there are
/// none.
pub(crate) fn decode(length: BodyLength, bytes: &[u8], pieces: &[u8]) -> Result<Body, Malformed> {
    decode_with(Decoder::new(length), length, bytes, pieces)
}

fn decode_with(
    mut decoder: Decoder,
    length: BodyLength,
    bytes: &[u8],
    pieces: &[u8],
) -> Result<Body, Malformed> {
    let mut body = Body { data: Vec::new(), consumed: 0, ended: false, trailers: None };
    let (mut held, mut left) = (Vec::new(), bytes);
    let mut sizes = pieces.iter().cycle();
    loop {
        let size = sizes.next().map_or(left.len(), |size| usize::from(*size).max(1)).min(left.len());
        let (piece, rest) = left.split_at(size);
        left = rest;
        held.extend_from_slice(piece);
        let before = held.clone();
        let decoded = decoder.decode(&mut held)?;
        assert!(decoded.data.start <= decoded.data.end && decoded.data.end <= decoded.consumed);
        assert_eq!(held[decoded.consumed..], before[decoded.consumed..], "what is left was changed");
        body.data.extend_from_slice(&held[decoded.data]);
        body.consumed += decoded.consumed;
        held.drain(..decoded.consumed);
        if left.is_empty() {
            break;
        }
    }
    body.ended = decoder.is_ended();
    body.trailers = decoder.take_trailers().map(|trailers| lines(&trailers));
    let can_end = decoder.end_of_input().is_ok();
    assert_eq!(can_end, body.ended || length == BodyLength::UntilClose, "an end was taken for the end");
    Ok(body)
}

/// A limit changes nothing about bodies within it, and lets no byte more through.
fn limited(bytes: &[u8], whole: Option<&Body>) {
    let Some(body) = whole else { return };
    let limit = |limit: usize| {
        decode_with(Decoder::limited(BodyLength::Chunked, limit as u64), BodyLength::Chunked, bytes, &[])
    };
    if body.ended {
        assert_eq!(limit(body.data.len()).as_ref(), Ok(body), "{}", shown(bytes));
    }
    if let Some(less) = body.data.len().checked_sub(1) {
        assert_eq!(limit(less).err(), Some(Malformed::BodyTooLarge), "{}", shown(bytes));
    }
}

/// RFC 9112 §7.1 once more, in the simplest way, on all bytes at once; sizes and trailers are
/// httparse's.
fn as_read_plainly(bytes: &[u8], ours: Option<&Body>) {
    let (mut data, mut at) = (Vec::new(), 0);
    let wrong = |why: &str| assert_eq!(ours, None, "{why}: {}", shown(bytes));
    loop {
        let rest = &bytes[at..];
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            // A line of 272 bytes and more has no end.
            return if rest.len() >= 272 { wrong("an endless line") } else { open(ours, &data, at, bytes) };
        };
        let line = &rest[..end];
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = httparse::parse_chunk_size(rest);
        let Ok(httparse::Status::Complete((length, size))) = size else { return wrong("no size") };
        let is_strict = end < 272 && size < 1 << 63 && matches!(line[digits..], [b'\r'] | [b';', ..]);
        let is_text = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
        if !is_strict || !line.ends_with(b"\r") || !line[..line.len() - 1].iter().all(is_text) {
            return wrong("an odd size");
        }
        assert_eq!(length, end + 1);
        at += length;
        if size == 0 {
            return trailers(ours, &data, at, bytes);
        }
        let here = usize::try_from(size).unwrap_or(usize::MAX).min(bytes.len() - at);
        data.extend_from_slice(&bytes[at..at + here]);
        at += here;
        match &bytes[at..] {
            [b'\r', b'\n', ..] if here as u64 == size => at += 2,
            [] | [b'\r'] => return open(ours, &data, at, bytes),
            _ => return wrong("no end of a chunk"),
        }
    }
}

fn open(ours: Option<&Body>, data: &[u8], at: usize, bytes: &[u8]) {
    let ours = ours.unwrap_or_else(|| panic!("refused: {}", shown(bytes)));
    assert_eq!(shown(&ours.data), shown(data));
    assert_eq!((ours.consumed, ours.ended), (at, false), "{}", shown(bytes));
}

fn trailers(ours: Option<&Body>, data: &[u8], at: usize, bytes: &[u8]) {
    let mut room = [httparse::EMPTY_HEADER; 128];
    let theirs = httparse::parse_headers(&bytes[at..], &mut room);
    let Some(ours) = ours else { return };
    assert_eq!(shown(&ours.data), shown(data));
    if !ours.ended {
        return assert!(!matches!(theirs, Ok(httparse::Status::Complete(_))), "whole: {}", shown(bytes));
    }
    let Ok(httparse::Status::Complete((length, fields))) = theirs else {
        panic!("httparse refuses the trailers: {}", shown(bytes))
    };
    assert_eq!(ours.consumed, at + length);
    let fields: Lines = fields.iter().map(|h| (h.name.as_bytes().to_vec(), h.value.to_vec())).collect();
    assert_eq!(ours.trailers.clone().unwrap_or_default(), fields);
}
