//! The thread that follows registries: it tells backends who serves them now, and asks a registry that is
//! elsewhere. One of its own, because the control thread compiles components meanwhile.

use super::{probes::Probes, remote, traffic::witness};
use crate::{metrics::Metrics, snapshot::Snapshot};
use std::{
    io,
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::Duration,
};
use tokio::{
    runtime,
    sync::{Notify, watch},
    time::{Instant, sleep},
};

/// How long changes are collected before backends are told: many come at once.
const TOGETHER: Duration = Duration::from_millis(10);

/// The share of its time that may go into telling backends: one in so many.
const SHARE: u32 = 10;

/// The way to the thread. Dropped, it ends it.
#[derive(Debug)]
pub(in crate::server) struct Discovery {
    snapshot: Option<watch::Sender<Arc<Snapshot>>>,
    told: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Discovery {
    /// Starts it.
    ///
    /// # Errors
    /// Fails where there is no thread to be had.
    pub(in crate::server) fn start(snapshot: &Arc<Snapshot>, metrics: &Arc<Metrics>) -> io::Result<Self> {
        let (sender, mut received) = watch::channel(Arc::clone(snapshot));
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (told, metrics) = (Arc::new(Notify::new()), Arc::clone(metrics));
        let of_thread = Arc::clone(&told);
        let run = move || runtime.block_on(run(&mut received, &of_thread, &metrics));
        let thread = Builder::new().name("vers-discovery".to_owned()).spawn(run)?;
        Ok(Self { snapshot: Some(sender), told, thread: Some(thread) })
    }

    /// Follows what this snapshot wants from now on.
    pub(in crate::server) fn apply(&self, snapshot: &Arc<Snapshot>) {
        if let Some(sender) = &self.snapshot {
            sender.send_replace(Arc::clone(snapshot));
        }
    }

    /// Waits until some backend was told of other servers.
    pub(in crate::server) async fn told(&self) {
        self.told.notified().await;
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.snapshot = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn run(snapshots: &mut watch::Receiver<Arc<Snapshot>>, told: &Notify, metrics: &Metrics) {
    let mut asking = remote::Asking::default();
    let mut probes = None;
    loop {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        asking.apply(snapshot.remote.as_ref(), metrics);
        probes = Probes::of(snapshot.registry.as_ref(), probes, metrics);
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            () = asking.ask() => {}
            () = probe(probes.as_mut()) => {}
            () = follow(&snapshot, told) => {}
            () = witness(&snapshot) => {}
        }
    }
}

/// Tells backends of servers that come and go. Never ends.
async fn follow(snapshot: &Snapshot, told: &Notify) {
    let directory = snapshot.directory().filter(|_| !snapshot.discovered.is_empty());
    let Some(directory) = directory else { return std::future::pending().await };
    // First, so that no change comes between looking and waiting.
    let mut changes = directory.subscribe();
    loop {
        changes.mark_unchanged();
        let began = Instant::now();
        let changed = snapshot.discovered.iter().filter(|discovered| discovered.look(&directory)).count();
        if changed > 0 {
            told.notify_one();
        }
        sleep(TOGETHER.max(began.elapsed() * SHARE)).await;
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Asks services whether they work. Never ends. May be dropped at any time, and goes on where it was.
async fn probe(probes: Option<&mut Probes>) {
    match probes {
        Some(probes) => probes.run().await,
        None => std::future::pending().await,
    }
}
