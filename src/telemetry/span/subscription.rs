//! The telemetry of one subscription: its span templates and its counts.

use std::sync::{Arc, OnceLock};

use opentelemetry::KeyValue;

use super::Operation;
use super::template::{SettleTemplates, SpanTemplate};
use crate::context::propagation::Hop;
use crate::driver::{Destination, Identity};
use crate::message::{Received, Topic};
use crate::names::attribute;
use crate::telemetry::metrics::with;
use crate::telemetry::rejections::Rejections;
use crate::telemetry::tracer::Telemetry;

/// The telemetry that the deliveries of one subscription share.
#[derive(Debug)]
pub(crate) struct SubscriptionTelemetry {
    pub(crate) telemetry: Arc<Telemetry>,
    pub(super) process: SpanTemplate,
    pub(super) settle: SettleTemplates,
    topic: Topic,
    rejections: Rejections,
    /// The attributes of the measurements of what waits, by reason.
    waiting: OnceLock<[Arc<[KeyValue]>; 2]>,
}

/// The reason why a message waits in this process.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WaitingReason {
    /// For its next attempt.
    Retry,
    /// Behind an earlier message of its key.
    Lane,
}

/// The number of messages of one consumer that wait for one reason. It is zero once this is
/// dropped.
#[derive(Debug)]
pub(crate) struct WaitingGauge {
    telemetry: Arc<SubscriptionTelemetry>,
    reason: WaitingReason,
    /// The number that was measured last.
    told: usize,
}

impl WaitingGauge {
    pub(crate) fn new(telemetry: &Arc<SubscriptionTelemetry>, reason: WaitingReason) -> Self {
        Self { telemetry: Arc::clone(telemetry), reason, told: 0 }
    }

    /// Measures the number if it has changed.
    pub(crate) fn tell(&mut self, now: usize) {
        if now != self.told && self.telemetry.wait(self.reason, now as i64 - self.told as i64) {
            self.told = now;
        }
    }
}

impl Drop for WaitingGauge {
    fn drop(&mut self) {
        self.tell(0);
    }
}

impl SubscriptionTelemetry {
    /// Creates the span templates of a subscription to `topic`.
    pub(crate) fn new(
        telemetry: Arc<Telemetry>,
        identity: &Identity,
        topic: &Topic,
        destination: &Destination,
        group: Option<&str>,
    ) -> Self {
        let name = topic.to_shared();
        let template = |operation| SpanTemplate::new(operation, identity, &name, destination, group);
        Self {
            process: template(Operation::Process),
            settle: SettleTemplates::new(template),
            topic: topic.clone(),
            rejections: Rejections::default(),
            waiting: OnceLock::new(),
            telemetry,
        }
    }

    /// Counts headers that were not used. Logs the first of each kind only, because a foreign
    /// producer may send one with every message.
    pub(crate) fn reject(&self, header: &'static str, reason: &'static str, count: usize) {
        if self.rejections.is_new(header, reason) {
            tracing::warn!(
                topic = %self.topic, header, reason,
                "a context was not used; more of this kind are counted, not logged"
            );
        }
        if let Some(instruments) = self.telemetry.metrics.instruments() {
            let kind =
                [KeyValue::new(attribute::CONTEXT_HEADER, header), KeyValue::new(attribute::CONTEXT_REASON, reason)];
            instruments.rejected.add(count as u64, &with(&self.process.counted.at(None), kind));
        }
    }

    /// Measures by how many the number of messages that wait has changed. Returns `false` if
    /// nothing is measured.
    fn wait(&self, reason: WaitingReason, change: i64) -> bool {
        let Some(instruments) = self.telemetry.metrics.instruments() else { return false };
        let [retry, lane] = self.waiting.get_or_init(|| {
            let base = self.process.counted.at(None);
            ["retry", "lane"].map(|reason| with(&base, [KeyValue::new(attribute::WAITING_REASON, reason)]))
        });
        let attributes = match reason {
            WaitingReason::Retry => retry,
            WaitingReason::Lane => lane,
        };
        instruments.waiting.add(change, attributes);
        true
    }

    /// Counts a message that was rejected and is kept nowhere.
    pub(crate) fn discard(&self, message: &Received, error_type: Option<&'static str>) {
        let Some(instruments) = self.telemetry.metrics.instruments() else { return };
        let error = error_type.map(|kind| KeyValue::new(attribute::ERROR_TYPE, kind));
        instruments.discarded.add(1, &with(&self.process.counted.at(message.partition()), error));
    }

    /// Records the metrics of a delivery that is handed out.
    pub(crate) fn count(&self, message: &Received) {
        let Some(instruments) = self.telemetry.metrics.instruments() else { return };
        let attributes = self.process.counted.at(message.partition());
        instruments.consumed.add(1, &attributes);
        let (Some(queued), Some(timestamp)) = (message.queued, message.timestamp()) else { return };
        let clock = KeyValue::new(attribute::QUEUE_CLOCK, timestamp.source.as_str());
        let attributes = match message.origin().hop {
            Hop::Direct => with(&attributes, [clock]),
            hop => with(&attributes, [clock, KeyValue::new(attribute::HOP, hop.as_str())]),
        };
        instruments.queue_duration.record(queued.time.as_secs_f64(), &attributes);
        if queued.is_skewed {
            instruments.skewed.add(1, &attributes);
        }
    }
}
