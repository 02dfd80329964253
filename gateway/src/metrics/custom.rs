//! Metrics that plugins name themselves: bounded in number, shared by all threads.

use super::{Counter, Kind, Metrics, names, shard::BOUNDS};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

/// What the names of plugins' metrics begin with.
pub const PREFIX: &str = "vers_plugin_custom_";

/// Metrics of one plugin.
const MOST_METRICS: usize = 64;

/// Labels of one metric.
const MOST_LABELS: usize = 8;

/// Bytes of a name, of a metric or a label.
const NAME: usize = 64;

/// Bytes of a help text; the rest is cut.
const HELP: usize = 256;

/// Bytes of a label's value; the rest is cut.
pub const LABEL_VALUE: usize = 128;

/// The metrics of the plugins of one name, whatever their tables and threads.
#[derive(Debug)]
pub struct Book {
    pub(super) plugin: String,
    most: AtomicUsize,
    pages: Mutex<Pages>,
}

#[derive(Debug)]
struct Pages {
    metrics: Vec<Declared>,
    series: HashMap<(u32, Vec<String>), Cell>,
    /// Values that belong to no series; this lock makes its writers one at a time.
    dropped: Counter,
}

/// A metric, as a plugin has declared it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// What it is. Of a histogram's values, each is in seconds.
    pub kind: Kind,
    /// Its name, without [`PREFIX`] and `_total`.
    pub name: String,
    /// One sentence for the operator.
    pub help: String,
    /// Names of its labels.
    pub labels: Vec<String>,
}

/// A metric, and its series with the values of their labels.
pub(super) type Page = (Declared, Vec<(Vec<String>, Cell)>);

/// Why a metric is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeclareError {
    /// It is not lower-case letters, digits and `_` that begin with a letter, is too long, or ends as
    /// those of parts of metrics do.
    Name,
    /// The same of a label; or there are too many, or two of one name.
    Label,
    /// Another one has this name: of this plugin, or of another and of another kind.
    Conflict,
    /// There are too many.
    Full,
}

/// One series. Any thread may write it.
#[derive(Debug, Clone)]
pub struct Cell {
    kind: Kind,
    /// A counter's sum; the bits of a gauge's number; a histogram's sum in nanoseconds, and its buckets.
    cells: Arc<[AtomicU64]>,
}

impl Cell {
    fn new(kind: Kind) -> Self {
        Self { kind, cells: (0..kind.width()).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Adds to a counter.
    pub fn add(&self, by: u64) {
        if let (Kind::Counter, Some(sum)) = (self.kind, self.cells.first()) {
            sum.fetch_add(by, Relaxed);
        }
    }

    /// Sets a gauge to what is a number.
    pub fn set(&self, value: f64) {
        // The format has words for what is no number, and nobody has a use for them.
        if let (Kind::Gauge, true, Some(last)) = (self.kind, value.is_finite(), self.cells.first()) {
            last.store(value.to_bits(), Relaxed);
        }
    }

    /// Counts so many seconds in a histogram. What is no time is not counted.
    pub fn observe(&self, seconds: f64) {
        let (Kind::Histogram, Ok(time)) = (self.kind, std::time::Duration::try_from_secs_f64(seconds)) else {
            return;
        };
        let bucket = 1 + BOUNDS.partition_point(|bound| *bound < seconds);
        if let (Some(sum), Some(bucket)) = (self.cells.first(), self.cells.get(bucket)) {
            sum.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
            bucket.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn values(&self) -> Vec<u64> {
        self.cells.iter().map(|cell| cell.load(Relaxed)).collect()
    }
}

impl Book {
    pub(super) fn new(metrics: &Metrics, plugin: &str, most: usize) -> Self {
        let dropped = metrics.counter(&names::PLUGIN_SERIES_DROPPED, &[("plugin", plugin)]);
        let pages = Pages { metrics: Vec::new(), series: HashMap::new(), dropped };
        Self { plugin: plugin.to_owned(), most: AtomicUsize::new(most), pages: Mutex::new(pages) }
    }

    /// From now on, so many series. Those that are there stay.
    pub fn limit(&self, most: usize) {
        self.most.store(most, Relaxed);
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn kind_of(&self, name: &str) -> Option<Kind> {
        self.pages().metrics.iter().find(|known| known.name == name).map(|known| known.kind)
    }

    /// The number of a metric, which it has already or gets now.
    pub(super) fn declare(&self, declared: Declared) -> Result<u32, DeclareError> {
        let mut pages = self.pages();
        if let Some(at) = pages.metrics.iter().position(|known| known.name == declared.name) {
            // Another version of the plugin may describe it in other words.
            let same = pages
                .metrics
                .get_mut(at)
                .filter(|known| (known.kind, &known.labels) == (declared.kind, &declared.labels));
            let known = same.ok_or(DeclareError::Conflict)?;
            known.help = declared.help;
            return u32::try_from(at).map_err(|_| DeclareError::Full);
        }
        let number = pages.metrics.len();
        if number >= MOST_METRICS {
            return Err(DeclareError::Full);
        }
        pages.metrics.push(declared);
        u32::try_from(number).map_err(|_| DeclareError::Full)
    }

    /// The series of a metric with these values of its labels; none where there may be no more, or they
    /// do not fit, which is counted.
    pub fn series(&self, metric: u32, values: &[String]) -> Option<Cell> {
        let mut pages = self.pages();
        if values.len() > MOST_LABELS {
            pages.dropped.inc();
            return None;
        }
        let values: Vec<String> = values.iter().map(|value| cut(value, LABEL_VALUE).to_owned()).collect();
        let declared = usize::try_from(metric).ok().and_then(|at| pages.metrics.get(at));
        let kind = declared.filter(|declared| declared.labels.len() == values.len()).map(|it| it.kind);
        let key = (metric, values);
        if let Some(known) = pages.series.get(&key) {
            return Some(known.clone());
        }
        let Some(kind) = kind.filter(|_| pages.series.len() < self.most.load(Relaxed)) else {
            pages.dropped.inc();
            return None;
        };
        let cell = Cell::new(kind);
        pages.series.insert(key, cell.clone());
        Some(cell)
    }

    /// Every series, by metric.
    pub(super) fn all(&self) -> Vec<Page> {
        let pages = self.pages();
        let mut all: Vec<Page> =
            pages.metrics.iter().map(|declared| (declared.clone(), Vec::new())).collect();
        for ((metric, values), cell) in &pages.series {
            if let Some((_, series)) = usize::try_from(*metric).ok().and_then(|at| all.get_mut(at)) {
                series.push((values.clone(), cell.clone()));
            }
        }
        all
    }
}

impl Declared {
    /// Checks it, and cuts what is too long.
    pub(super) fn checked(mut self) -> Result<Self, DeclareError> {
        const PARTS: [&str; 5] = ["_total", "_bucket", "_count", "_sum", "_created"];
        if !is_name(&self.name) || PARTS.iter().any(|part| self.name.ends_with(part)) {
            return Err(DeclareError::Name);
        }
        let is_own = |label: &String| label == "plugin" || label == "le";
        let is_twice = |at: usize, label: &String| self.labels.iter().take(at).any(|known| known == label);
        let mut labels = self.labels.iter().enumerate();
        if self.labels.len() > MOST_LABELS
            || labels.any(|(at, label)| !is_name(label) || is_own(label) || is_twice(at, label))
        {
            return Err(DeclareError::Label);
        }
        self.help = cut(&self.help, HELP).replace(['\n', '\r'], " ");
        Ok(self)
    }
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let is_first = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase());
    is_first
        && text.len() <= NAME
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(kind: Kind, name: &str, labels: &[&str]) -> Declared {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        Declared { kind, name: name.to_owned(), help: "A test.".to_owned(), labels }
    }

    #[test]
    fn names_are_those_that_scrapers_take() {
        let check = |name: &str, labels: &[&str]| declared(Kind::Counter, name, labels).checked().err();
        for name in ["lookups", "a1_b"] {
            assert_eq!(check(name, &["outcome", "b_2"]), None, "{name}");
        }
        for name in ["", "Lookups", "1st", "_x", "a-b", "a b", "lookups_total", "x_sum", &"x".repeat(65)] {
            assert_eq!(check(name, &[]), Some(DeclareError::Name), "{name}");
        }
        for labels in [&["plugin"][..], &["le"], &["a", "a"], &["A"], &["a\"b"], &["a"; 9]] {
            assert_eq!(check("x", labels), Some(DeclareError::Label), "{labels:?}");
        }
    }

    #[test]
    fn series_and_metrics_are_bounded_and_what_is_over_is_counted() {
        let metrics = Arc::new(Metrics::new());
        let book = metrics.book("p", 2);
        let declare =
            |kind, name: &str, labels: &[&str]| metrics.declare(&book, declared(kind, name, labels));
        assert_eq!(declare(Kind::Counter, "a", &["l"]), Ok(0));
        assert_eq!(declare(Kind::Counter, "a", &["l"]), Ok(0), "the same again");
        assert_eq!(declare(Kind::Gauge, "a", &["l"]), Err(DeclareError::Conflict));
        assert_eq!(declare(Kind::Counter, "a", &["m"]), Err(DeclareError::Conflict));
        let series = |value: &str| book.series(0, &[value.to_owned()]);
        series("x").expect("a series").add(2);
        series("x").expect("the same").add(3);
        series("y").expect("another").add(1);
        assert!(series("z").is_none(), "one too many");
        assert!(book.series(0, &[]).is_none(), "a label without value");
        assert!(book.series(7, &[]).is_none(), "no such metric");
        assert_eq!(metrics.value(&names::PLUGIN_SERIES_DROPPED, &[("plugin", "p")]), 3);
        let text = metrics.render();
        assert!(text.contains("vers_plugin_custom_a_total{plugin=\"p\",l=\"x\"} 5"), "{text}");
        for at in 1..MOST_METRICS {
            assert_eq!(declare(Kind::Gauge, &format!("g{at}"), &[]), Ok(at as u32));
        }
        assert_eq!(declare(Kind::Gauge, "more", &[]), Err(DeclareError::Full));
    }

    #[test]
    fn plugins_share_names_of_one_kind_only() {
        let metrics = Arc::new(Metrics::new());
        let (one, two) = (metrics.book("one", 9), metrics.book("two", 9));
        let hits = || declared(Kind::Counter, "hits", &[]);
        assert_eq!(metrics.declare(&one, hits()), Ok(0));
        assert_eq!(metrics.declare(&two, declared(Kind::Gauge, "hits", &[])), Err(DeclareError::Conflict));
        assert_eq!(metrics.declare(&two, hits()), Ok(0));
        one.series(0, &[]).expect("a series").add(1);
        two.series(0, &[]).expect("a series").add(2);
        let text = metrics.render();
        assert_eq!(text.matches("# TYPE vers_plugin_custom_hits counter").count(), 1, "{text}");
        for line in ["hits_total{plugin=\"one\"} 1", "hits_total{plugin=\"two\"} 2"] {
            assert!(text.contains(line), "{text}");
        }
        drop(one);
        assert!(!metrics.render().contains("plugin=\"one\""), "they go with the plugin");
    }

    #[test]
    fn gauges_and_histograms_are_printed_as_they_are() {
        let metrics = Arc::new(Metrics::new());
        let book = metrics.book("p", 9);
        let level = metrics.declare(&book, declared(Kind::Gauge, "level", &["at"])).expect("a gauge");
        let took = metrics.declare(&book, declared(Kind::Histogram, "took", &[])).expect("a histogram");
        book.series(level, &["a\"b".to_owned()]).expect("a series").set(-1.5);
        let series = book.series(took, &[]).expect("a series");
        for seconds in [0.002, 100.0, -1.0, f64::NAN] {
            series.observe(seconds);
        }
        // Of the wrong kind.
        series.add(7);
        series.set(7.0);
        let text = metrics.render();
        for line in [
            "vers_plugin_custom_level{plugin=\"p\",at=\"a\\\"b\"} -1.5",
            "vers_plugin_custom_took_sum{plugin=\"p\"} 100.002",
            "vers_plugin_custom_took_count{plugin=\"p\"} 2",
            "vers_plugin_custom_took_bucket{le=\"0.0025\",plugin=\"p\"} 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
