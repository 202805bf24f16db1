//! The metrics exported while a case ran, with queries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use parking_lot::Mutex;

use super::failure::{Checked, Failure};

/// The exported values of one set of attributes.
#[derive(Debug, Clone)]
pub(super) struct Point {
    /// Values by name.
    pub(super) attributes: BTreeMap<String, opentelemetry::Value>,
    /// Number of values of a histogram, or the value of a counter.
    pub(super) count: u64,
    /// Sum of a histogram, in its unit.
    pub(super) sum: f64,
    pub(super) bounds: Vec<f64>,
}

/// A metric as it was exported.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) scope: String,
    pub(super) is_histogram: bool,
    pub(super) points: Vec<Point>,
}

/// An exporter that keeps the metrics of one case, and the provider that feeds it.
#[derive(Debug, Clone)]
pub(super) struct Measurements {
    provider: SdkMeterProvider,
    kept: Kept,
}

#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<Measured>>>);

impl Measurements {
    pub(super) fn new() -> Self {
        let kept = Kept::default();
        // Exports only when flushed; the interval is longer than any case.
        let reader = PeriodicReader::builder(kept.clone()).with_interval(Duration::from_secs(3600)).build();
        Self { provider: SdkMeterProvider::builder().with_reader(reader).build(), kept }
    }

    pub(super) fn provider(&self) -> &SdkMeterProvider {
        &self.provider
    }

    /// Returns all metrics measured so far.
    pub(super) fn all(&self) -> Checked<Vec<Measured>> {
        self.provider.force_flush().map_err(|error| Failure::new(format!("metrics are exported: {error}")))?;
        Ok(self.kept.0.lock().clone())
    }

    /// Returns the points of a metric that have the attribute.
    pub(super) fn points(&self, name: &str, attribute: (&str, &str)) -> Checked<Vec<Point>> {
        let metrics = self.all()?.into_iter().filter(|metric| metric.name == name);
        let points = metrics.flat_map(|metric| metric.points);
        Ok(points.filter(|point| point.text(attribute.0) == attribute.1).collect())
    }

    /// Shuts the provider down; it measures nothing afterwards.
    pub(super) fn close(&self) {
        // It may be shut down already.
        let _ = self.provider.shutdown();
    }
}

impl Point {
    /// Returns the attribute as text, or an empty text if it is missing.
    pub(super) fn text(&self, name: &str) -> String {
        self.attributes.get(name).map(|value| value.as_str().into_owned()).unwrap_or_default()
    }
}

/// Returns the sum of the counts of the points.
pub(super) fn total(points: &[Point]) -> u64 {
    points.iter().map(|point| point.count).sum()
}

impl PushMetricExporter for Kept {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let scopes = metrics.scope_metrics();
        let all = scopes.flat_map(|scope| {
            let name = scope.scope().name().to_owned();
            scope.metrics().map(move |metric| {
                let (is_histogram, points) = points(metric.data());
                let (unit, scope) = (metric.unit().to_owned(), name.clone());
                Measured { name: metric.name().to_owned(), unit, scope, is_histogram, points }
            })
        });
        *self.0.lock() = all.collect();
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

/// Returns `true` for a histogram, and the points. Kinds that this library does not use have no
/// points.
fn points(data: &AggregatedMetrics) -> (bool, Vec<Point>) {
    match data {
        AggregatedMetrics::F64(MetricData::Histogram(histogram)) => {
            let points = histogram.data_points().map(|point| Point {
                attributes: named(point.attributes()),
                count: point.count(),
                sum: point.sum(),
                bounds: point.bounds().collect(),
            });
            (true, points.collect())
        }
        AggregatedMetrics::U64(MetricData::Sum(sum)) => {
            let points = sum.data_points().map(|point| Point {
                attributes: named(point.attributes()),
                count: point.value(),
                sum: 0.0,
                bounds: Vec::new(),
            });
            (false, points.collect())
        }
        AggregatedMetrics::I64(MetricData::Sum(sum)) => {
            let points = sum.data_points().map(|point| Point {
                attributes: named(point.attributes()),
                count: 1,
                sum: point.value() as f64,
                bounds: Vec::new(),
            });
            (false, points.collect())
        }
        _ => (false, Vec::new()),
    }
}

fn named<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> BTreeMap<String, opentelemetry::Value> {
    attributes.map(|pair| (pair.key.to_string(), pair.value.clone())).collect()
}
