//! The text that `/metrics` answers: OpenMetrics, which Prometheus scrapes.

use super::{Book, Cell, Declared, Family, Kind, Labels, Metrics, PREFIX, Series, shard::BOUNDS};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError},
};

/// Content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Metrics {
    /// All series as text, summed over their shards.
    pub fn render(self: &Arc<Self>) -> String {
        self.prune();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(self)));
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = text::encode(&mut out, &registry);
        out
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let families = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        for family in families.values() {
            let (name, metric_type) = (family.name, metric_type(family.name.kind));
            let metric = encoder.encode_descriptor(name.name, name.help, None, metric_type)?;
            encode_family(metric, family)?;
        }
        drop(families);
        encode_custom(&mut encoder, &self.all_books())
    }
}

/// A series of a plugin's own, with its labels.
type Labelled = (Vec<(String, String)>, Cell);

/// What plugins name themselves: of one name, all plugins together.
fn encode_custom(encoder: &mut DescriptorEncoder<'_>, books: &[Arc<Book>]) -> fmt::Result {
    let mut families: BTreeMap<String, (Declared, Vec<Labelled>)> = BTreeMap::new();
    for book in books {
        for (declared, series) in book.all() {
            let family = families.entry(declared.name.clone());
            let (first, all) = family.or_insert_with(|| (declared.clone(), Vec::new()));
            if first.kind == declared.kind {
                all.extend(series.into_iter().map(|(values, cell)| {
                    let plugin = ("plugin".to_owned(), escaped(&book.plugin));
                    let values =
                        declared.labels.iter().cloned().zip(values.iter().map(|value| escaped(value)));
                    (std::iter::once(plugin).chain(values).collect(), cell)
                }));
            }
        }
    }
    for (name, (declared, mut series)) in families {
        let (name, kind) = (format!("{PREFIX}{name}"), declared.kind);
        let mut metric = encoder.encode_descriptor(&name, &declared.help, None, metric_type(kind))?;
        series.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (labels, cell) in series {
            let mut metric = metric.encode_family(&labels)?;
            match (kind, cell.values().as_slice()) {
                (Kind::Gauge, [bits, ..]) => metric.encode_gauge(&f64::from_bits(*bits))?,
                (_, cells) => encode_cells(&mut metric, kind, cells)?,
            }
        }
    }
    Ok(())
}

fn encode_family(mut metric: MetricEncoder<'_>, family: &Family) -> fmt::Result {
    for (labels, series) in &family.series {
        if labels.is_empty() {
            encode_series(&mut metric, family.name.kind, series)?;
        } else {
            let labels: Labels = labels.iter().map(|(name, value)| (*name, escaped(value))).collect();
            encode_series(&mut metric.encode_family(&labels)?, family.name.kind, series)?;
        }
    }
    Ok(())
}

/// The encoder writes label values as they are, and names in a configuration are any text.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn encode_series(metric: &mut MetricEncoder<'_>, kind: Kind, series: &Series) -> fmt::Result {
    encode_cells(metric, kind, &series.total())
}

fn encode_cells(metric: &mut MetricEncoder<'_>, kind: Kind, cells: &[u64]) -> fmt::Result {
    let (value, buckets) = cells.split_first().map_or((0, &[][..]), |(value, rest)| (*value, rest));
    match kind {
        Kind::Counter => metric.encode_counter::<NoLabelSet, u64, u64>(&value, None),
        // A gauge that fell more than it rose is a bug elsewhere; it still prints as what it is.
        Kind::Gauge => metric.encode_gauge(&value.cast_signed()),
        Kind::Histogram => {
            let bounds = BOUNDS.iter().copied().chain([f64::MAX]);
            let buckets: Vec<(f64, u64)> = bounds.zip(buckets.iter().copied()).collect();
            let count = buckets.iter().map(|(_, n)| n).sum();
            let seconds = std::time::Duration::from_nanos(value).as_secs_f64();
            metric.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)
        }
    }
}

fn metric_type(kind: Kind) -> MetricType {
    match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    }
}
