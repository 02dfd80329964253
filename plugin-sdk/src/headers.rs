//! Header fields: reading and changing those of a head, and checking names and values beforehand.

use crate::host::types;
use std::fmt;

/// The header fields of a request or an answer. Names match without regard to case.
///
/// Every method asks the gateway; only what you ask for crosses the boundary.
///
/// Many backends read `X_Team` as `X-Team`. On a request, [`set`](Self::set) and [`remove`](Self::remove) therefore take
/// both for one name, so that no client can say itself what a plugin says.
///
/// ```
/// # let req = vers_plugin::testing::request("GET", "/").header("X_Team", "forged").build();
/// req.headers().set("x-team", "red")?;
/// assert_eq!(req.headers().get_str("X-Team").as_deref(), Some("red"));
/// assert_eq!(req.headers().get("x_team"), None);
/// # Ok::<(), vers_plugin::EditError>(())
/// ```
#[derive(Debug)]
pub struct Headers(types::Headers);

impl Headers {
    pub(crate) fn new(handle: types::Headers) -> Self {
        Self(handle)
    }

    /// The first value of this name.
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.0.get(name)
    }

    /// The first value of this name, if it is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<String> {
        String::from_utf8(self.get(name)?).ok()
    }

    /// All values of this name, in order.
    pub fn get_all(&self, name: &str) -> Vec<Vec<u8>> {
        self.0.get_all(name)
    }

    /// Whether there is a header of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.has(name)
    }

    /// Replaces all values of this name by one; of a request, also those of names that differ by `_` for `-` only.
    ///
    /// # Errors
    /// See [`EditError`].
    pub fn set(&self, name: &str, value: impl AsRef<[u8]>) -> Result<(), EditError> {
        Ok(self.0.set(name, value.as_ref())?)
    }

    /// Adds a value, and keeps those that are there.
    ///
    /// # Errors
    /// See [`EditError`].
    pub fn append(&self, name: &str, value: impl AsRef<[u8]>) -> Result<(), EditError> {
        Ok(self.0.append(name, value.as_ref())?)
    }

    /// Removes all values of this name; that there are none is no error. Of a request, also those of names that differ
    /// by `_` for `-` only.
    ///
    /// # Errors
    /// See [`EditError`].
    pub fn remove(&self, name: &str) -> Result<(), EditError> {
        Ok(self.0.remove(name)?)
    }

    /// All headers in order, names in lower case.
    pub fn entries(&self) -> Vec<(String, Vec<u8>)> {
        self.0.entries()
    }
}

/// Why the gateway refused a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EditError {
    /// The name is no header name.
    InvalidName,
    /// The value holds bytes that do not belong there.
    InvalidValue,
    /// Framing, hop-by-hop and forwarding headers, Host, Expect and Via belong to the gateway.
    Forbidden,
    /// The change would exceed a limit of the gateway.
    TooLarge,
    /// The head has left already.
    Gone,
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidName => "not a valid header name",
            Self::InvalidValue => "not a valid value",
            Self::Forbidden => "belongs to the gateway",
            Self::TooLarge => "over the gateway's limit",
            Self::Gone => "the head has left already",
        })
    }
}

impl std::error::Error for EditError {}

impl From<types::EditError> for EditError {
    fn from(error: types::EditError) -> Self {
        match error {
            types::EditError::InvalidName => Self::InvalidName,
            types::EditError::InvalidValue => Self::InvalidValue,
            types::EditError::Forbidden => Self::Forbidden,
            types::EditError::TooLarge => Self::TooLarge,
            types::EditError::Gone => Self::Gone,
        }
    }
}

/// Checks a header name that comes from the configuration: a token of RFC 9110 §5.6.2, and none of
/// the fields that belong to the gateway.
///
/// ```
/// use vers_plugin::{EditError, headers::check_name};
///
/// assert_eq!(check_name("x-team"), Ok(()));
/// assert_eq!(check_name("x team"), Err(EditError::InvalidName));
/// assert_eq!(check_name("Connection"), Err(EditError::Forbidden));
/// assert_eq!(check_name("Client-Cert"), Err(EditError::Forbidden));
/// ```
///
/// # Errors
/// [`EditError::InvalidName`] or [`EditError::Forbidden`], as an edit of this name would give.
pub fn check_name(name: &str) -> Result<(), EditError> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(EditError::InvalidName);
    }
    // As frameworks read them: `X_Forwarded_For` is `X-Forwarded-For` to many.
    let name = name.to_ascii_lowercase().replace('_', "-");
    if RESERVED.contains(&name.as_str()) || name.starts_with("x-forwarded") {
        return Err(EditError::Forbidden);
    }
    Ok(())
}

/// Checks a header value that comes from the configuration (RFC 9110 §5.5).
///
/// ```
/// use vers_plugin::headers::check_value;
///
/// assert!(check_value("red, green").is_ok());
/// assert!(check_value("red\r\nx-admin: 1").is_err());
/// ```
///
/// # Errors
/// [`EditError::InvalidValue`] for control characters other than a tab.
pub fn check_value(value: impl AsRef<[u8]>) -> Result<(), EditError> {
    let is_allowed = |b: &u8| *b == b'\t' || (*b >= 0x20 && *b != 0x7f);
    value.as_ref().iter().all(is_allowed).then_some(()).ok_or(EditError::InvalidValue)
}

const RESERVED: [&str; 18] = [
    "client-cert",
    "client-cert-chain",
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-real-ip",
];
