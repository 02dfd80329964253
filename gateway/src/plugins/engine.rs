//! The one wasmtime engine, and the thread that drives its epochs.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    thread,
    time::Duration,
};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

/// How often a running guest is looked at: the longest it can hold its worker at a stretch.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// Ticks without any call after which the ticker sleeps.
const IDLE_TICKS: u32 = 250;

/// Instances that may live at once, for each processor; and in all, whatever there are: each takes address space, of
/// which there is an end.
const INSTANCES_EACH: u32 = 128;
const MOST_INSTANCES: std::ops::RangeInclusive<u32> = 1024..=8192;

/// Instances that may live at once, of all plugins and workers together. Workers have one at least of each plugin that
/// they call, so there are more where there are many of those.
pub(super) fn most_instances() -> u32 {
    let processors =
        thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1));
    processors.saturating_mul(INSTANCES_EACH).clamp(*MOST_INSTANCES.start(), *MOST_INSTANCES.end())
}

/// An engine for so many instances.
pub(super) fn engine(instances: u32) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        // Plugins use plain functions only, and without it a call is a microsecond cheaper.
        .concurrency_support(false)
        .wasm_backtrace_details(WasmBacktraceDetails::Enable);
    // A slot of 4 GiB costs address space only, and spares the guest its bounds checks.
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances * 4)
        .total_memories(instances)
        .total_tables(instances * 4)
        .total_stacks(instances)
        .max_memories_per_component(1)
        .linear_memory_keep_resident(64 * 1024)
        .table_keep_resident(4 * 1024);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config).or_else(|error| {
        tracing::warn!(%error, "cannot reserve address space for a pool of plugin instances; they will be slower to make");
        config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
        Engine::new(&config)
    })
}

/// Advances the engine's epoch while any guest runs.
///
/// It is a thread of the operating system: were it a task, a guest that never yields could keep its
/// own watchdog from running. When no guest has run for a while it sleeps, so that an idle gateway
/// does not wake up 500 times a second for nothing.
#[derive(Debug)]
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: thread::Thread,
    handle: Option<thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    awake: AtomicBool,
    stop: AtomicBool,
    slots: Mutex<Vec<Arc<Slot>>>,
}

/// Where one thread notes that it calls guests; no other thread writes here.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Slot {
    started: AtomicU64,
    ended: AtomicU64,
}

/// One thread's way to tell the ticker that a guest runs.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    slot: Arc<Slot>,
    shared: Arc<Shared>,
    thread: thread::Thread,
}

impl Ticker {
    pub(super) fn start(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread =
            thread::Builder::new().name("vers-epoch".to_owned()).spawn(move || tick(&engine, &of_thread))?;
        Ok(Self { shared, thread: thread.thread().clone(), handle: Some(thread) })
    }

    /// For one thread, which alone uses it.
    pub(super) fn caller(&self) -> Caller {
        let slot = Arc::new(Slot::default());
        let mut slots = self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|slot| Arc::strong_count(slot) > 1);
        slots.push(Arc::clone(&slot));
        Caller { slot, shared: Arc::clone(&self.shared), thread: self.thread.clone() }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
        if let Some(handle) = self.handle.take() {
            // It ends within a tick; a panic in it has been printed already.
            let _ = handle.join();
        }
    }
}

/// A guest runs, until this is dropped.
#[derive(Debug)]
pub(super) struct Calling<'a>(&'a Caller);

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        let ended = &self.0.slot.ended;
        ended.store(ended.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

impl Caller {
    /// A guest is about to run.
    pub(super) fn calling(&self) -> Calling<'_> {
        let started = &self.slot.started;
        started.store(started.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        // Either the ticker sees this call when it makes up its mind to sleep, or this sees that it
        // has; the fences on both sides rule out that both look away.
        fence(Ordering::SeqCst);
        if !self.shared.awake.load(Ordering::Relaxed) {
            self.shared.awake.store(true, Ordering::SeqCst);
            self.thread.unpark();
        }
        Calling(self)
    }
}

impl Shared {
    /// Calls begun so far, and whether one runs now.
    fn calls(&self) -> (u64, bool) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.iter().fold((0, false), |(sum, running), slot| {
            let started = slot.started.load(Ordering::Relaxed);
            (sum.wrapping_add(started), running || started != slot.ended.load(Ordering::Relaxed))
        })
    }
}

fn tick(engine: &Engine, shared: &Shared) {
    let (mut seen, mut idle) = (0, 0);
    while !shared.stop.load(Ordering::SeqCst) {
        if !shared.awake.load(Ordering::SeqCst) {
            thread::park();
            continue;
        }
        thread::sleep(TICK);
        engine.increment_epoch();
        let (calls, running) = shared.calls();
        idle = if running || calls != seen { 0 } else { idle + 1 };
        seen = calls;
        if idle >= IDLE_TICKS {
            shared.awake.store(false, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            if shared.calls() != (seen, false) {
                shared.awake.store(true, Ordering::SeqCst);
            }
        }
    }
}
