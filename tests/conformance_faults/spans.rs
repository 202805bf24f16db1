//! Exporters in front of the kit's that damage spans as a faulty telemetry layer would.

use std::collections::HashMap;
use std::time::Duration;

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceId, TraceState};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use parking_lot::Mutex;
use traced_broker::conformance::Spans;

/// The fault of the spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanFault {
    /// No fault: the wrapper itself changes no result.
    None,
    /// Create spans are never exported, so that their messages are children of missing spans.
    LosesCreateSpans,
    /// Process spans are children of the parent of the span that sent their message.
    TakesTheOriginForTheParent,
    /// Process spans end when they start.
    ProcessesEndAtOnce,
    /// Process spans start when they end.
    ProcessesStartLate,
    /// Send and create spans end when they start.
    SendsEndAtOnce,
    /// No span has a link.
    DropsLinks,
    /// No span has more than a hundred links.
    KeepsAHundredLinks,
    /// No span records an error.
    ForgetsErrors,
    /// Cancelled spans never end.
    LosesCancelledSpans,
    /// Each attempt after the first begins a new trace.
    RetriesInNewTraces,
    /// All attempts after the first share one id.
    RetriesUnderOneId,
    /// The span that is current when a message is processed becomes its parent.
    TakesTheAmbientParent,
    /// Messages that a handler publishes begin new traces.
    PublishesAsRoots,
    /// Spans of the handlers' work are outside of their process spans.
    WorkOutside,
    /// Messages without a context become children of the previous message.
    KeepsTheContextBefore,
    /// Spans that should be linked become children.
    LinksAsParents,
    /// No span records the dialect of its context.
    ForgetsDialects,
    /// Batches are children of their last message.
    BatchesAsChildren,
    /// A transfer of a message that has a context is recorded as a producer.
    TransfersAsProducers,
    ForgetsTheQueue,
    /// The reported time in the queue is a second too short.
    CountsTheQueueShort,
}

impl SpanFault {
    /// Number of faults.
    pub(crate) const COUNT: usize = Self::CountsTheQueueShort as usize + 1;
}

#[derive(Debug)]
pub(crate) struct Spoiling {
    fault: SpanFault,
    kept: Spans,
    /// The parents of send and create spans.
    origins: Mutex<HashMap<SpanId, SpanId>>,
    before: Mutex<Option<(TraceId, SpanId)>>,
}

impl Spoiling {
    pub(crate) fn new(fault: SpanFault, kept: Spans) -> Self {
        Self { fault, kept, origins: Mutex::default(), before: Mutex::default() }
    }
}

impl SpanExporter for Spoiling {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spoilt = batch.into_iter().filter_map(|span| self.spoil(span)).collect();
        self.kept.export(spoilt).await
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

const QUEUE: &str = "traced_broker.queue.duration";

impl Spoiling {
    /// Returns the span to export, or `None` if it is lost.
    fn spoil(&self, mut span: SpanData) -> Option<SpanData> {
        let is_process = span.span_kind == SpanKind::Consumer;
        let is_batch = is_process && text(&span, "messaging.batch.message_count").is_some();
        let is_retry =
            is_process && text(&span, "traced_broker.delivery.attempt").is_some_and(|attempt| attempt != "1");
        let is_publish = matches!(span.span_kind, SpanKind::Producer | SpanKind::Client);
        match self.fault {
            SpanFault::LosesCreateSpans if span.name.starts_with("create ") => return None,
            SpanFault::TakesTheOriginForTheParent => self.take_origin(&mut span, is_process),
            SpanFault::ProcessesEndAtOnce if is_process => span.end_time = span.start_time,
            SpanFault::ProcessesStartLate if is_process => span.start_time = span.end_time,
            SpanFault::SendsEndAtOnce if is_publish => span.end_time = span.start_time,
            SpanFault::DropsLinks => span.links.links.clear(),
            SpanFault::KeepsAHundredLinks if span.links.len() > 100 => {
                span.links.dropped_count += span.links.len() as u32 - 100;
                span.links.links.truncate(100);
            }
            SpanFault::ForgetsErrors => {
                span.status = Status::Unset;
                span.attributes.retain(|pair| pair.key.as_str() != "error.type");
            }
            SpanFault::LosesCancelledSpans if text(&span, "error.type").as_deref() == Some("cancelled") => return None,
            SpanFault::RetriesInNewTraces if is_retry => begin_a_trace(&mut span),
            SpanFault::RetriesUnderOneId if is_retry => {
                let trace = span.span_context.trace_id();
                rename(&mut span, trace, SpanId::from(0x1d));
            }
            SpanFault::TakesTheAmbientParent if is_process && !is_batch => take_last_link_as_parent(&mut span),
            SpanFault::PublishesAsRoots if is_publish && span.parent_span_id != SpanId::INVALID => {
                begin_a_trace(&mut span);
            }
            SpanFault::WorkOutside
                if span.span_kind == SpanKind::Internal && span.parent_span_id != SpanId::INVALID =>
            {
                begin_a_trace(&mut span);
            }
            SpanFault::KeepsTheContextBefore if is_process && !is_batch => self.keep_context(&mut span),
            SpanFault::BatchesAsChildren if is_batch => take_last_link_as_parent(&mut span),
            SpanFault::LinksAsParents if text(&span, "traced_broker.context.policy").is_some() => {
                take_last_link_as_parent(&mut span);
            }
            SpanFault::ForgetsDialects => {
                span.attributes.retain(|pair| pair.key.as_str() != "traced_broker.context.dialect");
            }
            SpanFault::TransfersAsProducers if span.span_kind == SpanKind::Client => {
                span.span_kind = SpanKind::Producer
            }
            SpanFault::ForgetsTheQueue => span.attributes.retain(|pair| pair.key.as_str() != QUEUE),
            SpanFault::CountsTheQueueShort => shorten_the_queue(&mut span.attributes),
            _ => {}
        }
        Some(span)
    }

    fn take_origin(&self, span: &mut SpanData, is_process: bool) {
        let mut origins = self.origins.lock();
        if !is_process {
            origins.insert(span.span_context.span_id(), span.parent_span_id);
        } else if let Some(origin) = origins.get(&span.parent_span_id) {
            span.parent_span_id = *origin;
        }
    }

    fn keep_context(&self, span: &mut SpanData) {
        let mut before = self.before.lock();
        match (*before, span.parent_span_id) {
            (Some((trace, parent)), SpanId::INVALID) => {
                let own = span.span_context.span_id();
                rename(span, trace, own);
                span.parent_span_id = parent;
            }
            _ => *before = Some((span.span_context.trace_id(), span.parent_span_id)),
        }
    }
}

fn text(span: &SpanData, key: &str) -> Option<String> {
    span.attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| pair.value.as_str().into_owned())
}

fn rename(span: &mut SpanData, trace: TraceId, id: SpanId) {
    let flags = span.span_context.trace_flags();
    span.span_context = SpanContext::new(trace, id, flags, false, TraceState::default());
}

fn begin_a_trace(span: &mut SpanData) {
    let id = span.span_context.span_id();
    rename(span, TraceId::from(u128::from_be_bytes([[0xab; 8], id.to_bytes()].concat().try_into().unwrap())), id);
    span.parent_span_id = SpanId::INVALID;
}

fn take_last_link_as_parent(span: &mut SpanData) {
    if let Some(link) = span.links.last() {
        let (trace, parent, own) =
            (link.span_context.trace_id(), link.span_context.span_id(), span.span_context.span_id());
        rename(span, trace, own);
        span.parent_span_id = parent;
    }
}

fn shorten_the_queue(attributes: &mut [KeyValue]) {
    for pair in attributes.iter_mut().filter(|pair| pair.key.as_str() == QUEUE) {
        if let Value::F64(seconds) = pair.value {
            pair.value = Value::F64(seconds - 1.0);
        }
    }
}
