//! Which bytes may stand where (RFC 9110 §5.5, §5.6.2; RFC 3986 §3.3).

/// Whether these bytes are a token, as names of fields and methods are.
pub fn is_token(bytes: &[u8]) -> bool {
    // Without an early exit: names are short.
    let is_tchar = |byte: &u8| IS_TCHAR.get(usize::from(*byte)).copied().unwrap_or(false);
    !bytes.is_empty() && bytes.iter().fold(true, |valid, byte| valid & is_tchar(byte))
}

/// By byte, whether it is a `tchar` (RFC 9110 §5.6.2).
#[expect(clippy::indexing_slicing, reason = "looked at by the compiler, and there is a place for every byte")]
static IS_TCHAR: [bool; 256] = {
    let mut is_tchar = [false; 256];
    let mut byte: u8 = b'!';
    while byte < 0x7f {
        is_tchar[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    is_tchar
};

/// Whether these bytes may be a field's value, without the whitespace around it: visible characters,
/// space, tab and obs-text; no other control character.
pub fn is_field_value(bytes: &[u8]) -> bool {
    // Without an early exit, so that the compiler looks at many bytes at a time.
    bytes.iter().fold(true, |valid, byte| valid & ((*byte >= b' ' && *byte != 0x7f) | (*byte == b'\t')))
}

/// Whether these bytes may be a request's target: visible ASCII, and no fragment, which is never
/// sent (RFC 9112 §3.2).
pub fn is_target(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.iter().fold(true, |valid, byte| valid & (*byte > b' ') & (*byte < 0x7f) & (*byte != b'#'))
}

/// The host of `host[:port]` as a Host header has it (RFC 9112 §3.2), without a final dot; an IPv6 address
/// keeps its brackets. None where it is something else.
pub fn host_of(authority: &[u8]) -> Option<&str> {
    let full = std::str::from_utf8(authority).ok()?;
    let (host, port) = match full.strip_prefix('[') {
        Some(rest) => {
            let (v6, after) = rest.split_once(']')?;
            v6.parse::<std::net::Ipv6Addr>().ok()?;
            // The brackets are ASCII: the name in them and around them is a slice of `full`.
            (full.get(..v6.len() + 2)?, after.strip_prefix(':').or(after.is_empty().then_some(""))?)
        }
        None => full.split_once(':').unwrap_or((full, "")),
    };
    let port_is_valid =
        port.is_empty() || port.parse::<u16>().is_ok() && port.bytes().all(|b| b.is_ascii_digit());
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_host = !host.is_empty() && (host.starts_with('[') || host.bytes().all(is_host_byte));
    (port_is_valid && is_host).then_some(host)
}

/// reg-name of RFC 3986 §3.2.2, less the percent-encoding and sub-delimiters that no host name has.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Without the optional whitespace around it (RFC 9110 §5.6.3): spaces and tabs, nothing else.
pub fn trim(bytes: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let Some(start) = bytes.iter().position(|byte| !is_blank(byte)) else { return &[] };
    let end = bytes.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    bytes.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        for good in ["a", "X-Forwarded-For", "!#$%&'*+-.^_`|~09az"] {
            assert!(is_token(good.as_bytes()), "{good:?}");
        }
        for bad in ["", "a b", "a:", "a\t", "\u{e9}", "a\0", "(", "a/b", "\"a\"", "a\u{7f}"] {
            assert!(!is_token(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn values() {
        for good in [&b""[..], b"a b\tc", b"\xe9\x80\xff", b"\"quoted\""] {
            assert!(is_field_value(good), "{good:?}");
        }
        for bad in [&b"\0"[..], b"a\rb", b"a\nb", b"\x0b", b"\x1f", b"\x7f"] {
            assert!(!is_field_value(bad), "{bad:?}");
        }
    }

    #[test]
    fn targets() {
        for good in ["/", "*", "/a?b=c", "http://a/", "/%00|{}\"<>\\^`"] {
            assert!(is_target(good.as_bytes()), "{good:?}");
        }
        for bad in ["", "/ ", "/#a", "/\t", "/\u{e9}", "/\u{7f}", "/\0"] {
            assert!(!is_target(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn trimming() {
        assert_eq!(trim(b" \t a b \t"), b"a b");
        assert_eq!(trim(b" \t "), b"");
        assert_eq!(trim(b"\x0ba"), b"\x0ba", "a vertical tab is no blank");
    }
}
