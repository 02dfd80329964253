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

impl Kind {
    /// Cells that a series of this kind has.
    pub const fn width(self) -> usize {
        match self {
            Self::Counter | Self::Gauge => 1,
            Self::Histogram => 1 + BOUNDS.len() + 1,
        }
    }
}

/// One thread's share of several series, side by side in memory: what a request counts together should be
/// fetched together. Clones share the cells and must stay on the same thread.
#[derive(Debug, Clone)]
pub struct Strip(pub(super) Cells);

impl Strip {
    /// Cells for series of these kinds, in this order. They belong to no series yet: who makes thousands
    /// makes them one after the other, before anything else comes between them in memory.
    pub fn new(kinds: impl IntoIterator<Item = Kind>) -> Self {
        let cells = kinds.into_iter().map(Kind::width).sum();
        Self((0..cells).map(|_| AtomicU64::new(0)).collect())
    }

    /// Adds one to the counter whose cell this is.
    pub fn inc(&self, at: usize) {
        bump(&self.0, at, 1);
    }

    /// Counts a duration in the histogram whose first cell this is.
    pub fn record(&self, at: usize, duration: Duration) {
        record(&self.0, at, duration);
    }

    /// The share of the series whose first cell this is, alone.
    pub fn shard(&self, at: usize) -> Shard {
        Shard { cells: Arc::clone(&self.0), at }
    }
}

fn bump(cells: &[AtomicU64], at: usize, by: u64) {
    if let Some(cell) = cells.get(at) {
        cell.store(cell.load(Relaxed).wrapping_add(by), Relaxed);
    }
}

fn record(cells: &[AtomicU64], at: usize, duration: Duration) {
    let seconds = duration.as_secs_f64();
    let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
    bump(cells, at + 1 + bucket, 1);
    bump(cells, at, u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
}

/// One thread's share of one series. Clones share the cells and must stay on the same thread.
#[derive(Debug, Clone)]
pub struct Shard {
    pub(super) cells: Cells,
    /// Its first.
    pub(super) at: usize,
}

impl Shard {
    fn add(&self, by: u64) {
        bump(&self.cells, self.at, by);
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
        self.0.add(by);
    }
}

/// One thread's share of a gauge; the gauge is the sum of all shares.
#[derive(Debug, Clone)]
pub struct Gauge(pub(super) Shard);

impl Gauge {
    /// Adds one.
    pub fn inc(&self) {
        self.0.add(1);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.0.add(u64::MAX);
    }

    /// Replaces this share.
    pub fn set(&self, value: u64) {
        self.0.add(value.wrapping_sub(self.0.value()));
    }
}

/// One thread's share of a histogram of durations.
#[derive(Debug, Clone)]
pub struct Histogram(pub(super) Shard);

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        record(&self.0.cells, self.0.at, duration);
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
