//! `[log]`: what the gateway writes about its work.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the gateway writes about its work, on standard error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Whether each request and each raw TCP connection gets a line.
    pub access: bool,
    /// How a line looks.
    pub format: LogFormat,
    /// The least urgent lines that are written.
    pub level: LogLevel,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For a person at a terminal.
    #[default]
    Human,
    /// One JSON object a line, for programs.
    Json,
}

/// How urgent a line of the log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Something does not work.
    Error,
    /// Something an operator should act on.
    Warn,
    /// What happened.
    #[default]
    Info,
    /// Why it happened; disconnects too.
    Debug,
    /// Every step.
    Trace,
}

impl LogLevel {
    /// The word, as in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { access: true, format: LogFormat::default(), level: LogLevel::default() }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
