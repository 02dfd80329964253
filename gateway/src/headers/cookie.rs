//! One cookie of a request (RFC 6265 §4.2).

use crate::message::{Fields, trim};

/// The value of the first cookie of this name, as it was sent. Names of cookies have a case.
pub fn cookie<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    let mut pairs = fields.all_named(b"cookie").flat_map(|line| line.split(|byte| *byte == b';'));
    pairs.find_map(|pair| trim(pair).strip_prefix(name)?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        for (lines, expected) in [
            (&["session=a"][..], Some("a")),
            (&["other=1; session=a=b;x=2"], Some("a=b")),
            (&["other=1", "session=a; session=b"], Some("a")),
            (&["my-session=1; sessions=2; Session=3; x=session=4"], None),
            (&["session"], None),
            (&["session="], Some("")),
            (&[], None),
        ] {
            let fields = Fields::from_iter(lines.iter().map(|line| ("Cookie", *line)));
            assert_eq!(cookie(&fields, b"session"), expected.map(str::as_bytes), "{lines:?}");
        }
    }
}
