//! What the registry's calls are, for machines. A test holds it to what they do.

/// An OpenAPI 3.1 document.
pub const OPENAPI: &str = include_str!("openapi.json");
