//! Why a plugin could not be loaded, and why a call of it failed.

use std::fmt;

/// Why a call failed. It costs that call and the instance, nothing else.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What kind of fault: for metrics, status and the answer's reason code.
    pub kind: FaultKind,
    /// What the guest said and where it was; for the log only.
    pub detail: String,
}

/// Kinds of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// The guest trapped; a panic is one.
    Trap,
    /// It used up its CPU time.
    Cpu,
    /// It was not done within its wall-clock time.
    Wall,
    /// It wanted more memory than it may have.
    Memory,
    /// All its instances are in use, and nobody else may wait for one.
    Busy,
    /// It waited too long for its turn.
    Queue,
    /// Its breaker is open: it was not called.
    Open,
    /// No instance could be made.
    Start,
    /// It sent a request to a backend that it may not send requests to.
    Route,
    /// It asked for a body, and has no hook for it.
    Body,
    /// It broke off a body that it transformed, or returned too much of it.
    Transform,
    /// It asked for first bytes of a connection, and has no hook for them, or there can be no more.
    Bytes,
    /// Its own answer has a head that is too large.
    Response,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::Trap,
        Self::Cpu,
        Self::Wall,
        Self::Memory,
        Self::Busy,
        Self::Queue,
        Self::Open,
        Self::Start,
        Self::Route,
        Self::Body,
        Self::Transform,
        Self::Bytes,
        Self::Response,
    ];

    /// Whether it cost an instance, or there was none: what a breaker counts.
    pub fn is_of_instance(self) -> bool {
        matches!(self, Self::Trap | Self::Cpu | Self::Wall | Self::Memory | Self::Start)
    }

    /// The name in metrics, status and reason codes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Cpu => "cpu",
            Self::Wall => "wall",
            Self::Memory => "memory",
            Self::Busy => "busy",
            Self::Queue => "queue",
            Self::Open => "open",
            Self::Start => "start",
            Self::Route => "route",
            Self::Body => "body",
            Self::Transform => "transform",
            Self::Bytes => "bytes",
            Self::Response => "response",
        }
    }
}

/// One of which nothing else is to be said.
impl From<FaultKind> for Fault {
    fn from(kind: FaultKind) -> Self {
        Self { kind, detail: String::new() }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trap => "it trapped",
            Self::Cpu => "it used up its CPU time (`limits.cpu`)",
            Self::Wall => "it was not done in time (`limits.wall`)",
            Self::Memory => "it wanted more memory than `limits.memory`",
            Self::Busy => {
                "it is called as often at a time as it may be (`limits.instances`, `concurrency`, `queue`)"
            }
            Self::Queue => "it had too much to do for too long (`limits.queue_timeout`)",
            Self::Open => "it failed too often on this route, and is left alone for a while (`breaker`)",
            Self::Start => "no instance of it could be made",
            Self::Body => "it asked for a body, and does not export `request-body-filter`",
            Self::Transform => {
                "it broke off a body that it transformed, or returned more of it at a time than 1 MiB"
            }
            Self::Bytes => "it asked for first bytes that cannot come, or does not export `tcp-bytes-filter`",
            Self::Route => "it chose a backend that it is not granted (`grants.backends`)",
            Self::Response => "its answer has more headers than an answer may have",
        })
    }
}

/// Why a plugin cannot be used; found when a configuration is built, never by a request.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    /// Not a component, or not one that this gateway can compile.
    #[error("`{component}` is not a WebAssembly component: {reason}")]
    Compile {
        /// The file.
        component: String,
        /// The compiler's words.
        reason: String,
    },
    /// It does not export `lifecycle`.
    #[error("`{component}` is no plugin for this gateway: it does not export `{missing}`")]
    NotAPlugin {
        /// The file.
        component: String,
        /// The interface that every plugin exports.
        missing: String,
    },
    /// It imports what only a grant gives.
    #[error("it imports `{import}`, which is not granted")]
    NotGranted {
        /// The interface.
        import: String,
        /// The TOML that would grant it.
        grant: &'static str,
    },
    /// It imports what this gateway does not have.
    #[error("it imports `{import}`, which this gateway does not offer")]
    UnknownImport {
        /// The interface.
        import: String,
    },
    /// Its imports or exports have other types than the interface says.
    #[error("it does not fit the interface: {reason}")]
    Mismatch {
        /// The linker's words.
        reason: String,
    },
    /// It refused its configuration.
    #[error("it refuses its configuration")]
    Config(Vec<ConfigProblem>),
    /// It failed while it was configured.
    #[error("it failed while being configured: {}", .0.kind)]
    Fault(Fault),
}

impl LoadError {
    /// What a call fails with that there is no instance for.
    pub(super) fn into_fault(self) -> Fault {
        let detail = match self {
            // It is not its fault.
            Self::Fault(fault) if fault.kind == FaultKind::Busy => return fault,
            Self::Fault(fault) => format!("{}\n{}", fault.kind, fault.detail),
            Self::Config(problems) => {
                let lines = problems.iter().map(|problem| format!("\n{}: {}", problem.path, problem.message));
                format!("it refuses its configuration{}", lines.collect::<String>())
            }
            error => error.to_string(),
        };
        Fault { kind: FaultKind::Start, detail }
    }
}

/// One thing that a plugin says is wrong with its `config` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Keys below `config`, separated by dots; empty for the table as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
}
