//! A cookie is found by its whole name, where there is one.

use super::{request::fields_of, shown};
use vers_gateway::{headers::cookie, message::trim};

/// Panics where a rule is broken. The bytes are header lines; `id` is looked for.
pub(crate) fn check(bytes: &[u8]) {
    let Some(fields) = fields_of(bytes) else { return };
    let lines: Vec<u8> = fields.all_named(b"cookie").collect::<Vec<_>>().join(&b";"[..]);
    let pairs = lines.split(|byte| *byte == b';').map(|pair| trim(pair).to_vec());
    let expected = pairs.filter(|pair| pair.starts_with(b"id=")).map(|pair| pair[3..].to_vec()).next();
    assert_eq!(cookie(&fields, b"id"), expected.as_deref(), "{}", shown(bytes));
}
