//! What the gateway ends without an answer that could tell why: the reasons, and how often.

use crate::metrics::Counter;

/// Why a connection was ended without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// No request came within the listener's time.
    KeepAlive,
    /// A head that is not the first was not finished in time.
    Head,
    /// An answer that was begun stopped moving, or a client stopped reading.
    Idle,
    /// The request's time was over when its answer was begun.
    Total,
    /// The backend broke off its answer.
    Upstream,
    /// The rest of the request's body turned out malformed or too large when the answer was begun.
    Body,
    /// Nothing moved in a tunnel for its route's time.
    Tunnel,
    /// A connection that carries no requests, and has no route.
    Route,
    /// A plugin refused a connection that carries no requests.
    Refused,
    /// A plugin failed on one, or in the middle of a body.
    Plugin,
    /// A client of HTTP/2 sent what is of no use, or gave up what it asked for, again and again.
    Flood,
}

impl Cut {
    /// All reasons.
    pub const ALL: [Self; 11] = [
        Self::KeepAlive,
        Self::Head,
        Self::Idle,
        Self::Total,
        Self::Upstream,
        Self::Body,
        Self::Tunnel,
        Self::Route,
        Self::Refused,
        Self::Plugin,
        Self::Flood,
    ];

    /// As it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive",
            Self::Head => "head",
            Self::Idle => "idle",
            Self::Total => "total",
            Self::Upstream => "upstream",
            Self::Body => "body",
            Self::Tunnel => "tunnel",
            Self::Route => "route",
            Self::Refused => "refused",
            Self::Plugin => "plugin",
            Self::Flood => "flood",
        }
    }
}

/// How often each reason was one.
#[derive(Debug)]
pub(super) struct CutCounters([Counter; Cut::ALL.len()]);

impl CutCounters {
    pub(super) fn from_fn(counter: impl FnMut(Cut) -> Counter) -> Self {
        Self(Cut::ALL.map(counter))
    }

    pub(super) fn count(&self, cut: Cut) {
        if let Some(counter) = Cut::ALL.iter().position(|known| *known == cut).and_then(|at| self.0.get(at)) {
            counter.inc();
        }
    }
}
