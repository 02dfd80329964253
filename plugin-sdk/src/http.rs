//! HTTP requests to elsewhere, as far as `grants = { http = ["https://host:port", …] }` goes.
//!
//! ```
//! use vers_plugin::{http, testing::MockHost};
//!
//! let host = MockHost::new().reply(200, r#"{"active":true}"#);
//! let answer = http::post("https://auth.example.com/introspect").bearer("t0ken").body("token=abc").send()?;
//! assert!(answer.is_success());
//! assert_eq!(host.sent()[0].header_str("authorization"), Some("Bearer t0ken"));
//! # Ok::<(), http::Error>(())
//! ```

use crate::host::outbound_http as wit;
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, time::Duration};

/// A request with this method to an absolute `http` or `https` URL.
pub fn request(method: &str, url: &str) -> Request {
    Request {
        wit: wit::Request {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout_ms: 3_000,
        },
        defect: None,
    }
}

/// A GET request.
pub fn get(url: &str) -> Request {
    request("GET", url)
}

/// A POST request.
pub fn post(url: &str) -> Request {
    request("POST", url)
}

/// A PATCH request.
pub fn patch(url: &str) -> Request {
    request("PATCH", url)
}

/// A DELETE request.
pub fn delete(url: &str) -> Request {
    request("DELETE", url)
}

/// A request that is being put together.
#[derive(Debug, Clone)]
#[must_use = "nothing goes out before `send`"]
pub struct Request {
    wit: wit::Request,
    defect: Option<String>,
}

impl Request {
    /// Adds a header. `host` and framing are the gateway's.
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.wit.headers.push((name.into(), value.into()));
        self
    }

    /// Adds `Authorization: Bearer <token>`.
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.wit.body = body.into();
        self
    }

    /// Sets body and `content-type` for JSON.
    pub fn json(mut self, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(json) => self.header("content-type", "application/json").body(json),
            Err(error) => {
                self.defect = Some(error.to_string());
                self
            }
        }
    }

    /// How long the exchange may take; 3 s if not set. It must stay below the plugin's wall-clock limit,
    /// which ends the call and the instance; that is 5 s if the TOML does not say otherwise.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.wit.timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        self
    }

    /// Sends the request and waits for the whole answer. Redirects are not followed.
    ///
    /// # Errors
    /// See [`Error`]. An answer with any status, 500 too, is no error.
    pub fn send(self) -> Result<Response, Error> {
        match self.defect {
            Some(defect) => Err(Error::InvalidRequest(defect)),
            None => Ok(Response(wit::send(&self.wit)?)),
        }
    }
}

/// The answer to a request.
#[derive(Debug, Clone)]
pub struct Response(wit::Response);

impl Response {
    /// Status code.
    pub fn status(&self) -> u16 {
        self.0.status
    }

    /// Whether the status is 200 to 299.
    pub fn is_success(&self) -> bool {
        matches!(self.0.status, 200..=299)
    }

    /// Takes an answer with another status for an error that says it.
    ///
    /// ```
    /// use vers_plugin::{http, testing::MockHost};
    ///
    /// let _host = MockHost::new().reply(200, "").reply(503, "no space left\n");
    /// let beat = || http::post("https://example.com/heartbeat").send()?.error_for_status();
    /// assert!(beat().is_ok());
    /// assert_eq!(beat().unwrap_err().to_string(), "answered 503 no space left");
    /// ```
    ///
    /// # Errors
    /// [`Error::Status`] where the status is not 200 to 299.
    pub fn error_for_status(self) -> Result<Self, Error> {
        if self.is_success() {
            return Ok(self);
        }
        let body = String::from_utf8_lossy(&self.0.body);
        Err(Error::Status(self.0.status, body.trim().chars().take(200).collect()))
    }

    /// The first value of a header, if it is UTF-8.
    pub fn header_str(&self, name: &str) -> Option<&str> {
        find(&self.0.headers, name)
    }

    /// The whole body, at most 1 MiB.
    pub fn body(&self) -> &[u8] {
        &self.0.body
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// For the log: where the body is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.0.body).map_err(|error| error.to_string())
    }
}

/// Why there is no answer, or not the one that is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// No grant names this origin.
    NotGranted,
    /// The request is malformed.
    InvalidRequest(String),
    /// Name resolution, connection or TLS failed.
    Connect(String),
    /// The time is over.
    Timeout,
    /// The answer's body is over the limit.
    TooLarge,
    /// The exchange broke off.
    Protocol(String),
    /// There is an answer, with this status and a body that begins so. Only
    /// [`Response::error_for_status`] takes it for an error.
    Status(u16, String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGranted => f.write_str("no grant for this origin"),
            Self::InvalidRequest(detail) => write!(f, "invalid request: {detail}"),
            Self::Connect(detail) => write!(f, "no connection: {detail}"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::TooLarge => f.write_str("the answer is too large"),
            Self::Protocol(detail) => write!(f, "broken off: {detail}"),
            Self::Status(status, body) => write!(f, "answered {status} {body}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<wit::Error> for Error {
    fn from(error: wit::Error) -> Self {
        match error {
            wit::Error::NotGranted => Self::NotGranted,
            wit::Error::InvalidRequest(detail) => Self::InvalidRequest(detail),
            wit::Error::Connect(detail) => Self::Connect(detail),
            wit::Error::Timeout => Self::Timeout,
            wit::Error::TooLarge => Self::TooLarge,
            wit::Error::Protocol(detail) => Self::Protocol(detail),
        }
    }
}

pub(crate) fn find<'a>(headers: &'a [(String, Vec<u8>)], name: &str) -> Option<&'a str> {
    let (_, value) = headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(value).ok()
}
