//! Counters that cost a request one plain addition.
//!
//! Each counter handed out is a shard of its own, written by one thread and read by whoever renders
//! the metrics: no locked instruction, no cache line that two workers write. Shards with the same
//! name and labels are summed when somebody asks.

pub mod names;
pub mod render;
mod shard;

pub use names::{Kind, Name};
pub use shard::{Counter, Gauge, Histogram};

use shard::Cells;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

type Labels = Vec<(&'static str, String)>;

/// All metrics of a gateway.
#[derive(Debug, Default)]
pub struct Metrics {
    series: Mutex<BTreeMap<&'static str, Family>>,
}

#[derive(Debug)]
struct Family {
    name: &'static Name,
    series: BTreeMap<Labels, Series>,
}

#[derive(Debug)]
struct Series {
    shards: Vec<Arc<Cells>>,
    /// What shards had counted whose owners are gone, so that a counter never goes backwards.
    retired: Cells,
}

impl Metrics {
    /// No series yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new shard of a counter.
    pub fn counter(&self, name: &'static Name, labels: &[(&'static str, &str)]) -> Counter {
        Counter(self.shard(name, labels))
    }

    /// A new shard of a gauge; the gauge is the sum of its shards.
    pub fn gauge(&self, name: &'static Name, labels: &[(&'static str, &str)]) -> Gauge {
        Gauge(self.shard(name, labels))
    }

    /// A new shard of a histogram of seconds.
    pub fn histogram(&self, name: &'static Name, labels: &[(&'static str, &str)]) -> Histogram {
        Histogram(self.shard(name, labels))
    }

    /// The sum over all shards of one series; 0 where there is none.
    pub fn value(&self, name: &'static Name, labels: &[(&'static str, &str)]) -> u64 {
        let families = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        families
            .get(name.name)
            .and_then(|family| family.series.get(&owned(labels)))
            .map_or(0, |series| series.total(name.kind).value())
    }

    fn shard(&self, name: &'static Name, labels: &[(&'static str, &str)]) -> Arc<Cells> {
        let cells = Arc::new(Cells::new(name.kind));
        let mut families = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        families
            .entry(name.name)
            .or_insert_with(|| Family { name, series: BTreeMap::new() })
            .series
            .entry(owned(labels))
            .or_insert_with(|| Series { shards: Vec::new(), retired: Cells::new(name.kind) })
            .shards
            .push(Arc::clone(&cells));
        cells
    }

    /// Forgets series that nobody owns any more, such as those of a removed route.
    pub fn prune(&self) {
        let mut families = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        for family in families.values_mut() {
            family.series.retain(|_, series| {
                series.retire();
                !series.shards.is_empty()
            });
        }
    }
}

impl Series {
    fn retire(&mut self) {
        let retired = &self.retired;
        self.shards.retain(|shard| {
            let owned = Arc::strong_count(shard) > 1;
            if !owned {
                retired.add(shard);
            }
            owned
        });
    }

    fn total(&self, kind: Kind) -> Cells {
        let total = Cells::new(kind);
        total.add(&self.retired);
        self.shards.iter().for_each(|shard| total.add(shard));
        total
    }
}

fn owned(labels: &[(&'static str, &str)]) -> Labels {
    labels.iter().map(|(key, value)| (*key, (*value).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    static TEST: Name = Name { name: "vers_test", help: "A test.", kind: Kind::Counter };

    #[test]
    fn shards_are_summed_and_survive_their_owners() {
        let metrics = Metrics::new();
        let (a, b) = (metrics.counter(&TEST, &[("route", "x")]), metrics.counter(&TEST, &[("route", "x")]));
        a.inc();
        b.add(2);
        drop(b);
        assert_eq!(metrics.value(&TEST, &[("route", "x")]), 3);
        metrics.prune();
        assert_eq!(metrics.value(&TEST, &[("route", "x")]), 3, "a retired shard still counts");
        drop(a);
        metrics.prune();
        assert_eq!(metrics.value(&TEST, &[("route", "x")]), 0, "nobody owns the series any more");
    }

    #[test]
    fn the_text_has_help_type_and_values() {
        let metrics = Arc::new(Metrics::new());
        let counter = metrics.counter(&TEST, &[("route", "a\"b")]);
        counter.inc();
        let text = metrics.render();
        assert!(text.contains("# HELP vers_test A test."), "{text}");
        assert!(text.contains("vers_test_total{route=\"a\\\"b\"} 1"), "{text}");
    }
}
