//! The head of an answer.

use super::Fields;
use http::{StatusCode, Version};

/// The head of an answer: its status, and the header fields.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// Its status.
    pub status: StatusCode,
    /// As the backend speaks it.
    pub version: Version,
    /// The header fields.
    pub fields: Fields,
}

impl ResponseHead {
    /// A head with this status and these fields.
    pub fn new(status: StatusCode, fields: Fields) -> Self {
        Self { status, version: Version::HTTP_11, fields }
    }
}
