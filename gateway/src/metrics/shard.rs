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

/// One shard. Written by one thread only, so an addition is a load and a store.
///
/// Most are counters. Theirs is in place: where there are thousands of routes, each piece of memory
/// that a request touches is one that has to be fetched.
#[derive(Debug)]
pub(super) struct Cells {
    /// The counter, the gauge (as two's complement) or a histogram's sum in nanoseconds.
    value: AtomicU64,
    /// A histogram's buckets.
    buckets: Box<[AtomicU64]>,
}

impl Cells {
    pub(super) fn new(kind: Kind) -> Self {
        let buckets = if kind == Kind::Histogram { BOUNDS.len() + 1 } else { 0 };
        Self { value: AtomicU64::new(0), buckets: (0..buckets).map(|_| AtomicU64::new(0)).collect() }
    }

    fn bump(&self, by: u64) {
        bump(&self.value, by);
    }

    fn bump_bucket(&self, bucket: usize) {
        if let Some(bucket) = self.buckets.get(bucket) {
            bump(bucket, 1);
        }
    }

    pub(super) fn add(&self, other: &Self) {
        self.bump(other.value());
        for (mine, theirs) in self.buckets.iter().zip(other.buckets()) {
            bump(mine, theirs);
        }
    }

    pub(super) fn value(&self) -> u64 {
        self.value.load(Relaxed)
    }

    pub(super) fn buckets(&self) -> impl Iterator<Item = u64> + '_ {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed))
    }
}

fn bump(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(by), Relaxed);
}

/// One thread's share of a counter. Clones share the cell and must stay on the same thread.
#[derive(Debug, Clone)]
pub struct Counter(pub(super) Arc<Cells>);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds any number.
    pub fn add(&self, by: u64) {
        self.0.bump(by);
    }
}

/// One thread's share of a gauge; the gauge is the sum of all shares.
#[derive(Debug, Clone)]
pub struct Gauge(pub(super) Arc<Cells>);

impl Gauge {
    /// Adds one.
    pub fn inc(&self) {
        self.0.bump(1);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.0.bump(u64::MAX);
    }

    /// Replaces this share.
    pub fn set(&self, value: u64) {
        self.0.bump(value.wrapping_sub(self.0.value()));
    }
}

/// One thread's share of a histogram of durations.
#[derive(Debug, Clone)]
pub struct Histogram(pub(super) Arc<Cells>);

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.0.bump_bucket(bucket);
        self.0.bump(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }
}
