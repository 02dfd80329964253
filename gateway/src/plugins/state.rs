//! What the host keeps for one instance: the data of its store.

use super::{clock::CpuClock, exchange::Exchange, guest_text::GuestText, plugin::Plugin};
use crate::metrics::Cell;
use std::{collections::HashMap, sync::Arc, time::Instant};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

/// The data of one store.
pub(super) struct State {
    pub(super) plugin: Arc<Plugin>,
    pub(super) services: Arc<dyn super::Services>,
    pub(super) exchange: Box<Exchange>,
    pub(super) memory: MemoryLimit,
    pub(super) clock: Arc<CpuClock>,
    pub(super) text: GuestText,
    pub(super) log: LogBudget,
    /// Series of the plugin's metrics that this instance has met; no more than it may have.
    pub(super) series: HashMap<(u32, Vec<String>), Cell>,
    /// While its background work ends: the plugin that goes on with it.
    pub(super) successor: Option<Arc<Plugin>>,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl State {
    pub(super) fn new(plugin: Arc<Plugin>, services: Arc<dyn super::Services>) -> Self {
        let text = GuestText::default();
        Self {
            memory: MemoryLimit::new(plugin.limits.memory),
            clock: CpuClock::new(plugin.limits.cpu),
            // An empty sandbox: no files, no sockets, no environment, no arguments.
            wasi: WasiCtx::builder()
                .stdout(text.clone())
                .stderr(text.clone())
                .max_random_size(RANDOM)
                .build(),
            table: bounded_table(),
            exchange: Box::default(),
            log: LogBudget::new(),
            series: HashMap::new(),
            successor: None,
            text,
            services,
            plugin,
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// What a guest opens and never closes lies in the host's memory.
pub(super) fn bounded_table() -> ResourceTable {
    let mut table = ResourceTable::new();
    table.set_max_capacity(HANDLES);
    table
}

/// Random bytes at a time: nothing ends a guest while the host makes them.
pub(super) const RANDOM: u64 = 64 * 1024;

/// Streams, timers and the like that an instance may hold.
const HANDLES: usize = 1024;

/// Bounds an instance's memory, and remembers that it was refused more: the trap that follows says
/// only that the guest gave up.
pub(super) struct MemoryLimit {
    most: usize,
    /// What it has.
    pub(super) held: usize,
    pub(super) denied: bool,
}

/// Entries that an instance's tables may have; generous for any compiler's output.
const MAX_TABLE: usize = 100_000;

impl MemoryLimit {
    /// So many bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { most, held: 0, denied: false }
    }
}

impl wasmtime::ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let granted = desired <= self.most;
        self.denied |= !granted;
        if granted {
            self.held = desired;
        }
        Ok(granted)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE)
    }
}

/// Lines that an instance may still log within the current second.
#[derive(Debug)]
pub(super) struct LogBudget {
    second: Instant,
    lines: u32,
}

/// Lines per second and instance.
const LOG_LINES: u32 = 50;

impl LogBudget {
    pub(super) fn new() -> Self {
        Self { second: Instant::now(), lines: 0 }
    }

    /// Whether one more line may be written. The first line that may not says so.
    pub(super) fn take(&mut self) -> LogVerdict {
        if self.second.elapsed().as_secs() >= 1 {
            *self = Self::new();
        }
        self.lines = self.lines.saturating_add(1);
        match self.lines {
            0..=LOG_LINES => LogVerdict::Write,
            lines if lines == LOG_LINES + 1 => LogVerdict::SaySo,
            _ => LogVerdict::Drop,
        }
    }
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LogVerdict {
    Write,
    SaySo,
    Drop,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_said_once() {
        let mut budget = LogBudget::new();
        let verdicts: Vec<_> = (0..LOG_LINES + 5).map(|_| budget.take()).collect();
        assert_eq!(verdicts.iter().filter(|v| **v == LogVerdict::Write).count() as u32, LOG_LINES);
        assert_eq!(verdicts.iter().filter(|v| **v == LogVerdict::SaySo).count(), 1);
    }
}
