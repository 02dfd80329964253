//! One worker: a thread with its own runtime, sockets, connections and plugin instances.

use super::{Generation, listeners::Listeners};
use crate::{
    metrics::Metrics,
    plugins::Host,
    proxy,
    snapshot::{Outbound, Parts},
};
use std::{
    io,
    rc::Rc,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};
use tokio::{
    runtime::{Builder, LocalOptions, RuntimeMetrics},
    sync::watch,
    task::spawn_local,
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};

/// How often unused connections to backends are looked through.
const SWEEP: Duration = Duration::from_secs(5);

/// How long plugins may take, after the time of a stop, for what it has cut.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A worker's thread.
pub(super) struct WorkerThread {
    thread: thread::JoinHandle<()>,
    runtime: RuntimeMetrics,
}

/// What a worker is told.
#[derive(Clone)]
pub(super) struct Orders {
    /// What to run.
    pub(super) generation: watch::Receiver<Arc<Generation>>,
    /// When to have stopped, once that is decided.
    pub(super) stop: watch::Receiver<Option<Instant>>,
}

impl WorkerThread {
    /// Starts a worker, and returns once it has a runtime: without one, nobody would accept the
    /// connections on its sockets.
    pub(super) fn start(
        index: usize,
        orders: Orders,
        host: Arc<Host>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let (ready, started) = mpsc::channel();
        let thread = thread::Builder::new().name(format!("vers-worker-{index}")).spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .thread_name("vers-blocking")
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => {
                    // Whoever starts workers waits for this.
                    let _ = ready.send(Ok(runtime.handle().metrics()));
                    runtime.block_on(run(index, orders, &host, &metrics));
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        let ended = |_| Err(io::Error::other("it ended before it was ready"));
        let runtime = started.recv().unwrap_or_else(ended)?;
        Ok(Self { thread, runtime })
    }

    /// What its runtime counts itself.
    pub(super) fn runtime(&self) -> &RuntimeMetrics {
        &self.runtime
    }

    /// Waits for its end. A panic in it was printed when it happened.
    pub(super) fn join(self) {
        let _ = self.thread.join();
    }
}

async fn run(index: usize, mut orders: Orders, host: &Host, metrics: &Arc<Metrics>) {
    let outbound = Outbound::default();
    let parts = Parts { host, metrics, outbound: &outbound };
    let first = Arc::clone(&orders.generation.borrow_and_update());
    let worker = Rc::new(proxy::Worker::new(Arc::clone(&first.snapshot), parts));
    let mut listeners = Listeners::new(index, Rc::clone(&worker), Arc::clone(metrics));
    let journal = Rc::clone(worker.journal());
    // It holds no connection; what it has begun is waited for below.
    spawn_local(Rc::clone(&journal).run());
    listeners.apply(&first, &worker.local());
    drop(first);
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let deadline = loop {
        tokio::select! {
            changed = orders.generation.changed() => {
                if changed.is_err() {
                    break None;
                }
                let next = Arc::clone(&orders.generation.borrow_and_update());
                let previous = worker.local();
                worker.swap(Arc::clone(&next.snapshot), parts);
                listeners.apply(&next, &previous);
            }
            _ = orders.stop.changed() => break *orders.stop.borrow_and_update(),
            _ = sweep.tick() => worker.local().sweep(),
        }
    };
    listeners.drain();
    let Some(deadline) = deadline else { return };
    let done = timeout_at(deadline, async {
        listeners.drained().await;
        journal.finished().await;
    });
    if done.await.is_err() {
        tracing::warn!(worker = index, "connections were cut: they were not done within the time for a stop");
        worker.cut_off();
        // What is cut is told, too: plugins that count bytes would miss the longest tunnels of all.
        let _ = timeout(LAST_LINES, journal.finished()).await;
    }
}
