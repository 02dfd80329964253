//! From the text of a `config` table to a plugin, or to the list of what is wrong with it.

use crate::Plugin;
use serde_path_to_error::Segment;
use std::{borrow::Cow, fmt};

/// Something wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigProblem {
    /// Path below the `config` table, keys separated by dots (`services.0.port`); empty for the
    /// table as a whole.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// Collects what [`validate`](crate::HttpFilter::validate) finds.
///
/// ```
/// use vers_plugin::prelude::*;
///
/// fn validate(ports: &[u16], problems: &mut Problems) {
///     for (i, _) in ports.iter().enumerate().filter(|(_, port)| **port == 0) {
///         problems.add(format!("ports.{i}"), "0 is not a port; expected 1 to 65535");
///     }
/// }
/// ```
#[derive(Debug, Default)]
pub struct Problems(Vec<ConfigProblem>);

impl Problems {
    /// Reports a problem: where (keys separated by dots), and what would be right.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(ConfigProblem { path: path.into(), message: message.into() });
    }
}

/// Why a text is not what a configuration asks for there: a pattern, a template, a URL, a duration. It
/// shows itself in the words of a [`ConfigProblem`]: what is wrong, or what would be right.
///
/// ```
/// use vers_plugin::url::BaseUrl;
///
/// let error = "infra:3000".parse::<BaseUrl>().unwrap_err();
/// assert_eq!(error.to_string(), "expected a URL such as \"https://infra.vm.example.com:3000\"");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError(Cow<'static, str>);

impl ParseError {
    pub(crate) fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseError {}

/// Reads the JSON text of a `config` table.
pub(crate) fn parse<P: Plugin>(json: &str) -> Result<P, Vec<ConfigProblem>> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let plugin: P = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().iter().filter_map(key).collect::<Vec<_>>().join(".");
        vec![ConfigProblem { path, message: message(error.inner()) }]
    })?;
    let mut problems = Problems::default();
    plugin.validate_hooks(&mut problems);
    if problems.0.is_empty() { Ok(plugin) } else { Err(problems.0) }
}

fn key(segment: &Segment) -> Option<String> {
    match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(key.clone()),
        Segment::Enum { variant } => Some(variant.clone()),
        Segment::Unknown => None,
    }
}

/// Without the position, which is one in a text that nobody wrote.
fn message(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    if let Some(position) = text.rfind(" at line ") {
        text.truncate(position);
    }
    text
}
