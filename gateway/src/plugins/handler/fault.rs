//! Why a component gave no answer.

use crate::http1::Malformed;
use std::fmt;

/// Why a component failed on a request. It costs that request and its instance, nothing else.
#[derive(Debug, Clone)]
pub struct HandlerFault {
    /// What kind of fault: for metrics and the log.
    pub kind: HandlerFaultKind,
    /// Where the guest was, and what the host says of it; for the log only.
    pub detail: String,
}

/// Kinds of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandlerFaultKind {
    /// The guest trapped; a panic is one.
    Trap,
    /// It used up its CPU time.
    Cpu,
    /// It was not done within its wall-clock time.
    Wall,
    /// It wanted more memory than it may have.
    Memory,
    /// There was no place for another instance.
    Full,
    /// It returned without an answer.
    Silent,
    /// It gave an error instead of an answer.
    Refused,
}

impl HandlerFaultKind {
    /// All kinds.
    pub const ALL: [Self; 7] =
        [Self::Trap, Self::Cpu, Self::Wall, Self::Memory, Self::Full, Self::Silent, Self::Refused];

    /// The name in metrics and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Cpu => "cpu",
            Self::Wall => "wall",
            Self::Memory => "memory",
            Self::Full => "full",
            Self::Silent => "silent",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for HandlerFaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trap => "it trapped",
            Self::Cpu => "it used up its CPU time (`limits.cpu`)",
            Self::Wall => "it was not done in time (`limits.wall`)",
            Self::Memory => "it wanted more memory than `limits.memory`",
            Self::Full => "all places for instances are taken",
            Self::Silent => "it returned without an answer",
            Self::Refused => "it gave an error instead of an answer",
        })
    }
}

/// One of which nothing else is to be said.
impl From<HandlerFaultKind> for HandlerFault {
    fn from(kind: HandlerFaultKind) -> Self {
        Self { kind, detail: String::new() }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// It is none that could be passed on.
    Malformed(Malformed),
    /// The component failed.
    Failed(HandlerFaultKind),
}
