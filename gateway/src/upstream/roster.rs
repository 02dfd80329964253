//! Servers that somebody else tells: they come and go while their backend stays.

use super::{Backend, Server, Settings};
use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

/// The servers of a backend as they are now. Written by who follows them; a worker takes the lock when
/// they have changed since it looked last, and reads one number else.
#[derive(Debug)]
pub(super) struct Roster {
    version: AtomicU64,
    now: RwLock<Arc<Backend>>,
}

impl Roster {
    pub(super) fn new(now: Backend) -> Self {
        Self { version: AtomicU64::new(1), now: RwLock::new(Arc::new(now)) }
    }

    /// Grows with each change.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The backend with the servers of now.
    pub(super) fn now(&self) -> Arc<Backend> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// These are its servers from now on. What is known of those that stay is kept. Returns whether that
    /// changed anything.
    pub(super) fn set(&self, settings: &Settings, servers: Vec<Server>) -> bool {
        let before = self.now();
        if before.settings.servers == servers {
            return false;
        }
        let next = Backend::new(Settings { servers, ..settings.clone() }, Some(&before));
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        self.version.fetch_add(1, Ordering::Release);
        true
    }
}
