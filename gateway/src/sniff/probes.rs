//! One function for each protocol that can be told from its first bytes.

use super::{ENOUGH, Guess};

/// RFC 4253 §4.2. Version 1 is long gone, and still SSH.
pub(super) fn ssh(bytes: &[u8]) -> Guess {
    begins(bytes, b"SSH-")
}

/// RFC 9113 §3.4.
pub(super) fn http2(bytes: &[u8]) -> Guess {
    begins(bytes, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
}

/// RFC 8446 §5.1: a record of a handshake, of which the first message is a `ClientHello` (§4). The
/// versions are those that records have had since SSL 3.0.
pub(super) fn tls(bytes: &[u8]) -> Guess {
    let is_so = |at: usize, byte: u8| match at {
        0 => byte == 22,
        1 => byte == 3,
        2 => byte <= 4,
        5 => byte == 1,
        _ => true,
    };
    match bytes.iter().take(6).enumerate().all(|(at, byte)| is_so(at, *byte)) {
        false => Guess::No,
        true if bytes.len() < 6 => Guess::More,
        true => Guess::Match,
    }
}

/// RFC 9112 §3: `method SP target SP HTTP/1.x`, as a whole line. Memcached's and Redis' commands begin
/// with `GET` too, and only the end of the line tells.
///
/// What is no request line and could be taken for one counts as one (RFC 9112 §2.2, §3): whoever reads
/// on refuses it, and a lenient server behind never sees it with fields that only a proxy may set.
pub(super) fn http1(bytes: &[u8]) -> Guess {
    let begin = bytes.iter().take_while(|byte| is_blank(**byte) || **byte == b'\n').count();
    let bytes = bytes.get(begin..).unwrap_or_default();
    let unfinished = if begin >= ENOUGH { Guess::Match } else { Guess::More };
    let method = bytes.iter().take_while(|byte| is_token(**byte)).count();
    let target = match bytes.get(method) {
        None if method <= LONGEST_METHOD => return unfinished,
        Some(byte) if is_blank(*byte) && *byte != b'\r' && (1..=LONGEST_METHOD).contains(&method) => {
            let rest = bytes.get(method..).unwrap_or_default();
            rest.get(rest.iter().take_while(|byte| is_blank(**byte)).count()..).unwrap_or_default()
        }
        _ => return Guess::No,
    };
    let is_connect = bytes.starts_with(b"CONNECT");
    if !is_connect && !target.first().is_none_or(|first| matches!(first, b'/' | b'*' | b'h' | b'H')) {
        return Guess::No;
    }
    match target.iter().position(|byte| *byte == b'\n') {
        Some(end) if names_a_version(target.get(..end).unwrap_or_default()) => Guess::Match,
        Some(_) => Guess::No,
        // Whoever reads on finds out that the target is too long.
        None if bytes.len() >= ENOUGH => Guess::Match,
        None => unfinished,
    }
}

/// Whether a line has `HTTP/` at the beginning of a word.
fn names_a_version(line: &[u8]) -> bool {
    let mut words = line.split(|byte| is_blank(*byte));
    words.any(|word| word.get(..5).is_some_and(|begin| begin.eq_ignore_ascii_case(b"HTTP/")))
}

/// RFC 9112 §3: what lenient recipients take for a space, and a bare CR.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | b'\r')
}

/// As `http1` reads them.
const LONGEST_METHOD: usize = 32;

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn begins(bytes: &[u8], with: &[u8]) -> Guess {
    if bytes.starts_with(with) {
        Guess::Match
    } else if with.starts_with(bytes) {
        Guess::More
    } else {
        Guess::No
    }
}
