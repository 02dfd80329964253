//! Metrics of the plugin's own: the gateway prints them as `vers_plugin_custom_NAME`, with the label `plugin`.
//!
//! Each is a `static`. All instances of the plugin write the same ones, and a reload keeps them. There are at
//! most 64, and as many series (a metric with certain values of its labels) as `limits = { series = 100 }`
//! says; values of others are dropped and counted. What clients choose freely, such as paths, is no label.
//!
//! ```
//! use vers_plugin::{metrics, testing::MockHost};
//!
//! static LOOKUPS: metrics::Counter<1> =
//!     metrics::Counter::new("lookups", "Teams looked up, by outcome.", ["outcome"]);
//!
//! let host = MockHost::new();
//! LOOKUPS.add(1, ["found"]);
//! LOOKUPS.add(2, ["found"]);
//! assert_eq!(host.metric("lookups", &["found"]), Some(3.0));
//! ```

use crate::host::metrics::{self, Kind};
use std::time::Duration;

/// What only grows, printed with `_total` behind its name; `N` labels.
#[derive(Debug)]
pub struct Counter<const N: usize = 0>(Metric<N>);

/// A number that goes up and down; `N` labels. What was set last counts, by whichever instance.
#[derive(Debug)]
pub struct Gauge<const N: usize = 0>(Metric<N>);

/// Durations, by bucket; `N` labels.
#[derive(Debug)]
pub struct Histogram<const N: usize = 0>(Metric<N>);

impl<const N: usize> Counter<N> {
    /// Lower-case letters, digits and `_`; one sentence for the operator; names of labels.
    ///
    /// ```
    /// use vers_plugin::metrics::Counter;
    ///
    /// static HITS: Counter = Counter::new("hits", "Answers from the cache.", []);
    /// ```
    pub const fn new(name: &'static str, help: &'static str, labels: [&'static str; N]) -> Self {
        Self(Metric::new(Kind::Counter, name, help, labels))
    }

    /// Adds to the series with these values of the labels.
    pub fn add(&self, by: u64, values: [&str; N]) {
        self.0.with(values, |metric, values| metrics::add(metric, by, values));
    }
}

impl<const N: usize> Gauge<N> {
    /// As [`Counter::new`].
    pub const fn new(name: &'static str, help: &'static str, labels: [&'static str; N]) -> Self {
        Self(Metric::new(Kind::Gauge, name, help, labels))
    }

    /// Sets the series with these values of the labels. What is not finite is not taken.
    ///
    /// ```
    /// use vers_plugin::{metrics::Gauge, testing::MockHost};
    ///
    /// static KEYS: Gauge = Gauge::new("keys", "Keys that are known.", []);
    /// let host = MockHost::new();
    /// KEYS.set(3.0, []);
    /// assert_eq!(host.metric("keys", &[]), Some(3.0));
    /// ```
    pub fn set(&self, value: f64, values: [&str; N]) {
        self.0.with(values, |metric, values| metrics::set(metric, value, values));
    }
}

impl<const N: usize> Histogram<N> {
    /// As [`Counter::new`]; the name should end in `_seconds`.
    pub const fn new(name: &'static str, help: &'static str, labels: [&'static str; N]) -> Self {
        Self(Metric::new(Kind::Histogram, name, help, labels))
    }

    /// Counts a duration in the series with these values of the labels.
    ///
    /// ```
    /// use std::time::Duration;
    /// use vers_plugin::{metrics::Histogram, testing::MockHost};
    ///
    /// static TOOK: Histogram<1> = Histogram::new("fetch_seconds", "How long keys take.", ["from"]);
    /// let host = MockHost::new();
    /// TOOK.observe(Duration::from_millis(20), ["issuer"]);
    /// assert_eq!(host.metric("fetch_seconds", &["issuer"]), Some(1.0));
    /// ```
    pub fn observe(&self, time: Duration, values: [&str; N]) {
        self.0.with(values, |metric, values| metrics::observe(metric, time.as_secs_f64(), values));
    }
}

#[derive(Debug)]
struct Metric<const N: usize> {
    kind: Kind,
    name: &'static str,
    help: &'static str,
    labels: [&'static str; N],
    /// Its number, once it is declared; none where it cannot be.
    #[cfg(target_family = "wasm")]
    number: std::sync::OnceLock<Option<u32>>,
}

impl<const N: usize> Metric<N> {
    const fn new(kind: Kind, name: &'static str, help: &'static str, labels: [&'static str; N]) -> Self {
        Self {
            kind,
            name,
            help,
            labels,
            #[cfg(target_family = "wasm")]
            number: std::sync::OnceLock::new(),
        }
    }

    fn with(&self, values: [&str; N], write: impl FnOnce(u32, &[String])) {
        // Each test has a gateway of its own, and they share this.
        #[cfg(not(target_family = "wasm"))]
        let number = self.declare();
        #[cfg(target_family = "wasm")]
        let number = *self.number.get_or_init(|| self.declare());
        if let Some(number) = number {
            write(number, &values.map(String::from));
        }
    }

    fn declare(&self) -> Option<u32> {
        let labels = self.labels.map(String::from);
        let declared = metrics::declare(self.kind, self.name, self.help, &labels);
        let told = |error| crate::log::error(format!("metric {} is not counted: {error:?}", self.name));
        declared.map_err(told).ok()
    }
}
