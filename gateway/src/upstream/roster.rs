//! Servers that somebody else tells: they come and go while their backend stays.

use super::{Backend, Server, Settings};
use std::sync::Arc;
use tokio::sync::watch;

/// The servers of a backend as they are now. Written by who follows them; a worker reads one number, and more
/// where they have changed since it looked last.
#[derive(Debug)]
pub(super) struct Roster {
    now: watch::Sender<Arc<Backend>>,
}

impl Roster {
    pub(super) fn new(now: Backend) -> Self {
        Self { now: watch::Sender::new(Arc::new(now)) }
    }

    /// The backend with the servers of now.
    pub(super) fn now(&self) -> Arc<Backend> {
        Arc::clone(&self.now.borrow())
    }

    /// The same, for who asks often.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Backend>> {
        self.now.subscribe()
    }

    /// These are its servers from now on. What is known of those that stay is kept. Returns whether that
    /// changed anything.
    pub(super) fn set(&self, settings: &Settings, servers: Vec<Server>) -> bool {
        let before = self.now();
        if before.settings.servers == servers {
            return false;
        }
        let next = Backend::new(Settings { servers, ..settings.clone() }, Some(&before));
        self.now.send_replace(Arc::new(next));
        true
    }
}
