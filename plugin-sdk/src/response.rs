//! The answer that a hook sees.

use crate::{
    EditError, Exchange, Headers,
    host::types,
    log,
    message::{Edits, Message, refused},
};
use std::cell::OnceCell;

/// An answer without its body, to look at and to change until the hook returns: the backend's, or
/// the one that a plugin gave instead.
///
/// ```
/// use vers_plugin::testing;
///
/// let mut resp = testing::response(200).header("server", "nginx").build();
/// resp.remove_header("server");
/// resp.set_header("x-served-by", "vers-gateway");
/// assert_eq!(resp.header("server"), None);
/// ```
#[derive(Debug)]
pub struct Response {
    handle: types::Response,
    headers: OnceCell<Headers>,
    exchange: OnceCell<Exchange>,
}

impl Response {
    pub(crate) fn new(handle: types::Response) -> Self {
        Self { handle, headers: OnceCell::new(), exchange: OnceCell::new() }
    }

    /// Status code, 100 to 599.
    pub fn status(&self) -> u16 {
        self.handle.status()
    }

    /// Replaces the status by one of 200 to 599.
    ///
    /// # Errors
    /// [`EditError::InvalidValue`] for other numbers, and for a change from or to 101, 204 or 304,
    /// which frame the body.
    pub fn set_status(&mut self, status: u16) -> Result<(), EditError> {
        Ok(self.handle.set_status(status)?)
    }

    /// The header fields, to read and to change.
    pub fn headers(&self) -> &Headers {
        self.headers.get_or_init(|| Headers::new(self.handle.headers()))
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<Vec<u8>> {
        self.headers().get(name)
    }

    /// The first value of a header, if it is UTF-8.
    pub fn header_str(&self, name: &str) -> Option<String> {
        self.headers().get_str(name)
    }

    /// Replaces all values of a header by one. A refusal is logged: use
    /// [`headers`](Self::headers)`().set` to act on it.
    pub fn set_header(&mut self, name: &str, value: impl AsRef<[u8]>) {
        log::refusal(name, self.headers().set(name, value));
    }

    /// Removes all values of a header. A refusal is logged.
    pub fn remove_header(&mut self, name: &str) {
        log::refusal(name, self.headers().remove(name));
    }

    /// The exchange that this answer closes.
    pub fn exchange(&self) -> &Exchange {
        self.exchange.get_or_init(|| Exchange::new(self.handle.exchange()))
    }
}

impl Message for Response {
    fn headers(&self) -> &Headers {
        self.headers()
    }

    fn exchange(&self) -> &Exchange {
        self.exchange()
    }

    fn edit_headers(&self, edits: &Edits<'_>) -> Vec<(String, EditError)> {
        refused(self.handle.edit_headers(edits.remove, edits.set, edits.append))
    }
}
