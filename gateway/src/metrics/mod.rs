//! Counters that cost a request one plain addition.
//!
//! Each counter handed out is a shard of its own, written by one thread and read by whoever renders
//! the metrics: no locked instruction, no cache line that two workers write. Shards with the same
//! name and labels are summed when somebody asks.

mod custom;
pub mod names;
pub mod render;
mod shard;

pub use custom::{Book, Cell, DeclareError, Declared, LABEL_VALUE, PREFIX};
pub use names::{Kind, Name};
pub use shard::{Counter, Gauge, Histogram, Shard, Strip};

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak, atomic::Ordering::Relaxed},
};

/// A series to be: its name and labels.
pub type Wanted<'a> = (&'static Name, &'a [(&'static str, &'a str)]);

type Labels = Vec<(&'static str, String)>;

/// All metrics of a gateway.
#[derive(Debug, Default)]
pub struct Metrics {
    series: Mutex<BTreeMap<&'static str, Family>>,
    /// What plugins name themselves, by plugin.
    books: Mutex<BTreeMap<String, Weak<Book>>>,
}

#[derive(Debug)]
struct Family {
    name: &'static Name,
    series: BTreeMap<Labels, Series>,
}

#[derive(Debug)]
struct Series {
    shards: Vec<Part>,
    /// What shards had counted whose owners are gone, so that a counter never goes backwards.
    retired: Box<[u64]>,
}

/// A shard as the series has it.
#[derive(Debug)]
struct Part {
    shard: Shard,
    /// Series that have a part of the same cells, this one among them.
    siblings: usize,
}

impl Metrics {
    /// No series yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new shard of a counter.
    pub fn counter(&self, name: &'static Name, labels: &[(&'static str, &str)]) -> Counter {
        self.shard(name, labels).into()
    }

    /// A new shard of a gauge; the gauge is the sum of its shards.
    pub fn gauge(&self, name: &'static Name, labels: &[(&'static str, &str)]) -> Gauge {
        self.shard(name, labels).into()
    }

    /// A new shard of a histogram of seconds.
    pub fn histogram(&self, name: &'static Name, labels: &[(&'static str, &str)]) -> Histogram {
        self.shard(name, labels).into()
    }

    /// The sum over all shards of one series; 0 where there is none.
    pub fn value(&self, name: &'static Name, labels: &[(&'static str, &str)]) -> u64 {
        let families = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        families
            .get(name.name)
            .and_then(|family| family.series.get(&owned(labels)))
            .and_then(|series| series.total().first().copied())
            .unwrap_or(0)
    }

    /// The metrics that plugins of this name have named; with room for so many series where they are new. They are
    /// there as long as anybody holds them.
    pub fn book(&self, plugin: &str, most: usize) -> Arc<Book> {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(book) = books.get(plugin).and_then(Weak::upgrade) {
            return book;
        }
        let book = Arc::new(Book::new(self, plugin, most));
        books.retain(|_, book| book.strong_count() > 0);
        books.insert(plugin.to_owned(), Arc::downgrade(&book));
        book
    }

    /// The number of a plugin's metric, which it has already or gets now.
    ///
    /// # Errors
    /// Fails where it cannot be printed, or not beside others.
    pub fn declare(&self, book: &Book, declared: Declared) -> Result<u32, DeclareError> {
        let declared = declared.checked()?;
        let others = self.all_books();
        let is_other =
            |other: &Arc<Book>| other.kind_of(&declared.name).is_some_and(|kind| kind != declared.kind);
        if others.iter().any(is_other) {
            return Err(DeclareError::Conflict);
        }
        book.declare(declared)
    }

    fn all_books(&self) -> Vec<Arc<Book>> {
        let books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        books.values().filter_map(Weak::upgrade).collect()
    }

    /// Every series of a name that is not 0: its labels and the sum over its shards.
    pub fn series(&self, name: &'static Name) -> Vec<(Vec<(&'static str, String)>, u64)> {
        let families = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let series = families.get(name.name).into_iter().flat_map(|family| &family.series);
        let first = |series: &Series| series.total().first().copied().unwrap_or(0);
        series
            .map(|(labels, series)| (labels.clone(), first(series)))
            .filter(|(_, value)| *value != 0)
            .collect()
    }

    /// Makes the cells of a strip, in their order, shards of these series: all of them, and once.
    pub fn register(&self, strip: &Strip, wanted: &[Wanted<'_>]) {
        let mut families = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = 0;
        for (name, labels) in wanted {
            let shard = strip.shard(next);
            next += name.kind.width();
            families
                .entry(name.name)
                .or_insert_with(|| Family { name, series: BTreeMap::new() })
                .series
                .entry(owned(labels))
                .or_insert_with(|| Series {
                    shards: Vec::new(),
                    retired: vec![0; name.kind.width()].into_boxed_slice(),
                })
                .shards
                .push(Part { shard, siblings: wanted.len() });
        }
        debug_assert_eq!(next, strip.0.len(), "each cell is some series'");
    }

    fn shard(&self, name: &'static Name, labels: &[(&'static str, &str)]) -> Shard {
        let strip = Strip::new([name.kind]);
        self.register(&strip, &[(name, labels)]);
        strip.shard(0)
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
        let retired = &mut self.retired;
        self.shards.retain(|part| {
            // Each series has a reference, as long as none of them has let go.
            let owned = Arc::strong_count(&part.shard.cells) > part.siblings;
            if !owned {
                part.add_to(retired);
            }
            owned
        });
    }

    /// The sum of all shards, cell by cell.
    fn total(&self) -> Box<[u64]> {
        let mut total = self.retired.clone();
        self.shards.iter().for_each(|part| part.add_to(&mut total));
        total
    }
}

impl Part {
    fn add_to(&self, sums: &mut [u64]) {
        for (sum, cell) in sums.iter_mut().zip(self.shard.cells.iter().skip(self.shard.at)) {
            *sum = sum.wrapping_add(cell.load(Relaxed));
        }
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
    fn shards_side_by_side_are_counted_apart_and_go_together() {
        static SECONDS: Name = Name { name: "vers_seconds", help: "A test.", kind: Kind::Histogram };
        let metrics = Metrics::new();
        let strip = Strip::new([SECONDS.kind, TEST.kind]);
        metrics.register(&strip, &[(&SECONDS, &[]), (&TEST, &[])]);
        strip.record(0, std::time::Duration::from_secs(60));
        strip.inc(Kind::Histogram.width());
        let duration = Histogram::from(strip.shard(0));
        let requests = Counter::from(strip.shard(Kind::Histogram.width()));
        drop(strip);
        requests.inc();
        let value = |name| metrics.value(name, &[]);
        assert_eq!((value(&SECONDS), value(&TEST)), (60_000_000_000, 2));
        drop(duration);
        metrics.prune();
        assert_eq!(value(&SECONDS), 60_000_000_000, "the other one may be kept, and shares the cells");
        drop(requests);
        metrics.prune();
        assert_eq!((value(&SECONDS), value(&TEST)), (0, 0), "nobody owns them any more");
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
