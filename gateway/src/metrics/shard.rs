//! The cells that a shard consists of, and the handles that write them.

use super::Kind;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Upper bounds of the histogram's buckets, in seconds; one more bucket holds the rest.
pub(super) const BOUNDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Cells of one or more series, written by one thread only, so an addition is a load and a store.
///
/// A counter has one cell, and a gauge, as two's complement. A histogram's first cell is its sum in
/// nanoseconds, and its buckets follow.
pub(super) type Cells = Arc<[AtomicU64]>;

/// Cells that a series of this kind has.
pub(super) fn width(kind: Kind) -> usize {
    match kind {
        Kind::Counter | Kind::Gauge => 1,
        Kind::Histogram => 1 + BOUNDS.len() + 1,
    }
}

/// One thread's share of one series. Clones share the cells and must stay on the same thread.
#[derive(Debug, Clone)]
pub struct Shard {
    pub(super) cells: Cells,
    /// Its first.
    pub(super) at: usize,
}

impl Shard {
    fn bump(&self, cell: usize, by: u64) {
        if let Some(cell) = self.cells.get(self.at + cell) {
            cell.store(cell.load(Relaxed).wrapping_add(by), Relaxed);
        }
    }

    fn value(&self) -> u64 {
        self.cells.get(self.at).map_or(0, |cell| cell.load(Relaxed))
    }
}

/// One thread's share of a counter. Clones share the cell and must stay on the same thread.
#[derive(Debug, Clone)]
pub struct Counter(pub(super) Shard);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds any number.
    pub fn add(&self, by: u64) {
        self.0.bump(0, by);
    }
}

/// One thread's share of a gauge; the gauge is the sum of all shares.
#[derive(Debug, Clone)]
pub struct Gauge(pub(super) Shard);

impl Gauge {
    /// Adds one.
    pub fn inc(&self) {
        self.0.bump(0, 1);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.0.bump(0, u64::MAX);
    }

    /// Replaces this share.
    pub fn set(&self, value: u64) {
        self.0.bump(0, value.wrapping_sub(self.0.value()));
    }
}

/// One thread's share of a histogram of durations.
#[derive(Debug, Clone)]
pub struct Histogram(pub(super) Shard);

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.0.bump(1 + bucket, 1);
        self.0.bump(0, u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }
}

macro_rules! from_shard {
    ($($handle:ident),*) => {$(
        impl From<Shard> for $handle {
            fn from(shard: Shard) -> Self {
                Self(shard)
            }
        }
    )*};
}

from_shard!(Counter, Gauge, Histogram);
