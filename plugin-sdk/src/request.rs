//! The request that a hook sees.

use crate::{
    EditError, Exchange, Headers,
    host::{secrets, types},
    log,
    message::{Edits, Message, refused},
};
use std::cell::OnceCell;

/// A request without its body, to look at and to change until the hook returns.
///
/// Parts are fetched from the gateway when they are first asked for, and kept.
///
/// ```
/// use vers_plugin::testing;
///
/// let mut req = testing::request("GET", "/old?x=1").header("accept", "text/html").build();
/// assert_eq!((req.method(), req.path(), req.query()), ("GET", "/old", Some("x=1")));
/// req.set_path_and_query("/new")?;
/// assert_eq!((req.path(), req.query()), ("/new", None));
/// # Ok::<(), vers_plugin::EditError>(())
/// ```
#[derive(Debug)]
pub struct Request {
    handle: types::Request,
    headers: OnceCell<Headers>,
    exchange: OnceCell<Exchange>,
    method: OnceCell<String>,
    authority: OnceCell<String>,
    path: OnceCell<String>,
    query: OnceCell<Option<String>>,
}

impl Request {
    pub(crate) fn new(handle: types::Request) -> Self {
        Self {
            handle,
            headers: OnceCell::new(),
            exchange: OnceCell::new(),
            method: OnceCell::new(),
            authority: OnceCell::new(),
            path: OnceCell::new(),
            query: OnceCell::new(),
        }
    }

    /// `GET`, `POST`, …
    pub fn method(&self) -> &str {
        self.method.get_or_init(|| self.handle.method())
    }

    /// `host[:port]` as the client asked for it.
    pub fn authority(&self) -> &str {
        self.authority.get_or_init(|| self.handle.authority())
    }

    /// The path as sent, without the query: neither decoded nor normalised. It starts with `/`, or
    /// is `*`.
    pub fn path(&self) -> &str {
        self.path.get_or_init(|| self.handle.path())
    }

    /// What follows the `?`, as sent.
    pub fn query(&self) -> Option<&str> {
        self.query.get_or_init(|| self.handle.query()).as_deref()
    }

    /// Replaces path and query; the value starts with `/`. The route stays the one that matched.
    ///
    /// # Errors
    /// See [`EditError`].
    pub fn set_path_and_query(&mut self, value: &str) -> Result<(), EditError> {
        self.handle.set_path_and_query(value)?;
        self.path = OnceCell::new();
        self.query = OnceCell::new();
        Ok(())
    }

    /// Replaces the authority, `host[:port]`, that the backend is asked for. The client's own stays in
    /// `x-forwarded-host` and `forwarded`.
    ///
    /// ```
    /// use vers_plugin::testing;
    ///
    /// let mut req = testing::request("GET", "/").build();
    /// req.set_authority("app.internal:8080")?;
    /// assert_eq!(req.authority(), "app.internal:8080");
    /// assert!(req.set_authority("two words").is_err());
    /// # Ok::<(), vers_plugin::EditError>(())
    /// ```
    ///
    /// # Errors
    /// See [`EditError`].
    pub fn set_authority(&mut self, value: &str) -> Result<(), EditError> {
        self.handle.set_authority(value)?;
        self.authority = OnceCell::new();
        Ok(())
    }

    #[cfg(target_family = "wasm")]
    pub(crate) fn want_body(&self, most: u32) {
        self.handle.want_body(most);
    }

    /// Whether the request asks for another protocol, as WebSocket does.
    pub fn is_upgrade(&self) -> bool {
        self.handle.is_upgrade()
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

    /// Replaces all values of a header by one, those of `X_Team` too where it is `X-Team`. A refusal is logged: use
    /// [`headers`](Self::headers)`().set` to act on it.
    pub fn set_header(&mut self, name: &str, value: impl AsRef<[u8]>) {
        log::refusal(name, self.headers().set(name, value));
    }

    /// Removes all values of a header, those of `X_Team` too where it is `X-Team`. A refusal is logged.
    pub fn remove_header(&mut self, name: &str) {
        log::refusal(name, self.headers().remove(name));
    }

    /// The token of `Authorization: Bearer <token>` (RFC 6750 §2.1), the scheme in any case. None
    /// where there is no such header, another scheme, or more than one `Authorization` header, which
    /// could mean one thing to a plugin and another to the backend.
    ///
    /// Compare it with [`secrets::matches`](crate::secrets::matches); or, which costs less, use [`bearer_matches`](Self::bearer_matches).
    pub fn bearer(&self) -> Option<Vec<u8>> {
        let mut values = self.headers().get_all("authorization");
        let mut value = values.pop().filter(|_| values.is_empty())?;
        let token = bearer_token(&value)?.len();
        value.drain(..value.len() - token);
        Some(value)
    }

    /// Whether the request carries the secret of this name as its [bearer](Self::bearer) token. The
    /// comparison takes constant time inside the gateway; a secret that is not granted, not set or
    /// empty matches nothing.
    ///
    /// ```
    /// use vers_plugin::testing::{self, MockHost};
    ///
    /// let _host = MockHost::new().secret("fleet", "s3cret");
    /// let req = testing::request("GET", "/").header("authorization", "bearer s3cret").build();
    /// assert!(req.bearer_matches("fleet"));
    /// assert!(!req.bearer_matches("other"));
    /// ```
    pub fn bearer_matches(&self, secret: &str) -> bool {
        secrets::bearer_matches(secret, &self.handle)
    }

    /// The exchange that this request opens.
    pub fn exchange(&self) -> &Exchange {
        self.exchange.get_or_init(|| Exchange::new(self.handle.exchange()))
    }
}

impl Message for Request {
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

pub(crate) fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(b"bearer".len())?;
    let token = rest.strip_prefix(b" ")?.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_tokens() {
        fn check(value: &str, expected: Option<&str>) {
            let got = bearer_token(value.as_bytes());
            assert_eq!(got, expected.map(str::as_bytes), "{value:?}");
        }
        check("Bearer abc", Some("abc"));
        check("bearer abc", Some("abc"));
        check("BEARER  abc", Some("abc"));
        check("Bearer a b", Some("a b"));
        for none in ["", "Bearer", "Bearer ", "Bearer  ", "Bearerabc", "Basic abc", "Bearer\tabc"] {
            check(none, None);
        }
    }
}
