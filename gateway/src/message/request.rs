//! The head of a request.

use super::{Fields, Span};
use http::{Method, Version};

/// The head of a request: what is asked for, and the header fields.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// `GET`, `POST`, …
    pub method: Method,
    /// As the client speaks it: [`Version::HTTP_10`] or later.
    pub version: Version,
    /// The header fields; they hold the text of the target, too.
    pub fields: Fields,
    authority: Option<Span>,
    path: Span,
    query: Option<Span>,
}

impl RequestHead {
    /// A head whose target stands in the text of `fields`: path and query (or `*`), and the
    /// authority where it was an absolute one.
    pub fn new(
        method: Method,
        version: Version,
        fields: Fields,
        target: Span,
        authority: Option<Span>,
    ) -> Self {
        let mut head = Self { method, version, fields, authority, path: target, query: None };
        head.split();
        head
    }

    fn split(&mut self) {
        let target = self.path;
        let text = self.fields.text(target);
        if let Some(at) = text.iter().position(|byte| *byte == b'?') {
            let (path, query) = target.split_around(at);
            (self.path, self.query) = (path, Some(query));
        }
    }

    /// The authority of an absolute target (RFC 9112 §3.2.2).
    pub fn authority(&self) -> Option<&[u8]> {
        self.authority.map(|span| self.fields.text(span))
    }

    /// The path, as sent: starts with `/`, or is `*`.
    pub fn path(&self) -> &str {
        self.text(self.path)
    }

    /// What follows the `?`, as sent.
    pub fn query(&self) -> Option<&str> {
        self.query.map(|span| self.text(span))
    }

    /// Replaces path and query by text that [`super::is_target`] takes.
    pub fn set_target(&mut self, target: &[u8]) {
        self.path = self.fields.keep(target);
        self.query = None;
        self.split();
    }

    fn text(&self, span: Span) -> &str {
        // Targets are ASCII; the parser takes no other.
        std::str::from_utf8(self.fields.text(span)).unwrap_or_default()
    }
}
