//! Which bytes may stand where (RFC 9110 §5.5, §5.6.2; RFC 3986 §3.3).

/// Whether these bytes are a token, as names of fields and methods are.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_tchar(*byte))
}

fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
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
        )
}

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
