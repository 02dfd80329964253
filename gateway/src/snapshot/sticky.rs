//! What requests that go to the same server have in common.

use crate::{headers::cookie, message::Fields, upstream};

/// What requests that go to the same server have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sticky {
    /// The value of this header.
    Header(Box<str>),
    /// The value of this cookie.
    Cookie(Box<str>),
}

impl Sticky {
    /// The key of a request; none where the request does not have what counts.
    pub fn key(&self, fields: &Fields) -> Option<u64> {
        let value = match self {
            Self::Header(name) => fields.get_named(name.as_bytes()),
            Self::Cookie(name) => cookie(fields, name.as_bytes()),
        };
        value.filter(|value| !value.is_empty()).map(upstream::key)
    }
}
