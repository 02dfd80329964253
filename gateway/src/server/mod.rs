//! The composition root: the one place that knows every part.
//!
//! [`start`] reads a configuration, builds a snapshot, binds its listeners, and starts the workers
//! and the control thread. The workers carry traffic and do nothing else; the control thread
//! reloads, compiles, answers operators and runs plugins' background work, and carries no traffic.

mod acme;
mod admin;
mod background;
mod certificates;
mod control;
mod health;
mod listeners;
mod load;
mod registry;
mod status;
mod watch;
mod worker;

pub use control::{Reloaded, Running, StartError, start};
pub(crate) use watch::FileWatch;

pub use load::{Checked, ConfigSource, Prepared, Refused, check, prepare};

use crate::{listen::Bound, snapshot::Snapshot};
use std::{path::PathBuf, sync::Arc};

/// What a gateway is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the configuration is.
    pub source: ConfigSource,
    /// Whether changes of its files are noticed.
    pub watch: bool,
}

impl Options {
    /// Runs a file, and follows its changes.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { source: ConfigSource::File(path.into()), watch: true }
    }
}

/// A snapshot with its sockets: what workers run.
#[derive(Debug)]
pub(crate) struct Generation {
    /// Counts from 1.
    pub(crate) number: u64,
    pub(crate) snapshot: Arc<Snapshot>,
    /// In the order of the snapshot's listeners.
    pub(crate) sockets: Vec<Arc<Bound>>,
}
