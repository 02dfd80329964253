//! The text that `/metrics` answers: OpenMetrics, which Prometheus scrapes.

use super::{Family, Kind, Labels, Metrics, Series, shard::BOUNDS};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};
use std::{
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
        Ok(())
    }
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
    let cells = series.total();
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
