//! The contents of a capture: every span that was started for it, ended or not.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use opentelemetry::{Context, KeyValue, trace};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{self as sdk, IdGenerator, Sampler, SdkTracerProvider, SpanData, SpanProcessor};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use crate::testing::exported;
use crate::verify::{Span, SpanRef, TraceId, Traces};

/// Maximum number of spans in a [`Capture`](super::Capture). Further spans are counted, and fail
/// every assertion.
pub const MOST_SPANS: usize = 100_000;

/// The spans of one capture.
#[derive(Debug, Default)]
pub(super) struct Spans {
    state: Mutex<State>,
    /// Notified when a span has ended.
    ended: Arc<Notify>,
    /// The providers by service.
    providers: Mutex<HashMap<Box<str>, SdkTracerProvider>>,
    /// The clock of the spans, if they have virtual times.
    clock: Option<VirtualClock>,
}

/// The time of a paused tokio runtime. Each reading is later than the one before, so that spans
/// have a length.
#[derive(Debug)]
struct VirtualClock {
    began: Instant,
    last: AtomicU64,
}

impl VirtualClock {
    /// Returns the time, in nanoseconds since the epoch.
    fn now(&self) -> u64 {
        let passed = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or_default();
        let last = self.last.load(Ordering::Relaxed);
        let now = (VIRTUAL_EPOCH + passed).max(last + 1);
        self.last.store(now, Ordering::Relaxed);
        now
    }
}

/// The virtual time at which a simulation begins, in nanoseconds since the epoch: 2020-01-01.
const VIRTUAL_EPOCH: u64 = 1_577_836_800_000_000_000;

#[derive(Debug, Default)]
struct State {
    open: HashMap<SpanRef, Span>,
    ended: Vec<Span>,
    services: HashMap<SpanRef, Arc<str>>,
    traces: HashSet<TraceId>,
    /// The number of spans that did not fit.
    lost: usize,
}

impl Spans {
    /// Creates a capture in the virtual time of the current tokio runtime, whose ids are drawn from
    /// the random numbers of the thread.
    pub(super) fn in_virtual_time() -> Self {
        let mut spans = Self::default();
        spans.clock = Some(VirtualClock { began: Instant::now(), last: AtomicU64::new(0) });
        spans
    }

    /// Returns the provider of a service, created if there is none yet.
    pub(super) fn provider(self: &Arc<Self>, service: &str) -> SdkTracerProvider {
        let mut providers = self.providers.lock();
        let provider = providers.entry(service.into()).or_insert_with(|| {
            let service: Arc<str> = Arc::from(service);
            let resource =
                Resource::builder_empty().with_attribute(KeyValue::new("service.name", Arc::clone(&service)));
            let builder = SdkTracerProvider::builder()
                .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
                .with_resource(resource.build())
                .with_span_processor(Sink { service, spans: Arc::downgrade(self) });
            if self.clock.is_some() { builder.with_id_generator(DrawnIds).build() } else { builder.build() }
        });
        provider.clone()
    }

    /// Returns all spans so far; those that have not ended have no end.
    pub(super) fn traces(&self) -> Traces {
        let state = self.state.lock();
        state.ended.iter().chain(state.open.values()).cloned().collect()
    }

    /// Returns the spans that have not ended.
    pub(super) fn open(&self) -> Vec<Span> {
        let mut open: Vec<Span> = self.state.lock().open.values().cloned().collect();
        open.sort_by_key(|span| (span.start, span.span_id));
        open
    }

    /// Returns the number of spans that did not fit.
    pub(super) fn lost(&self) -> usize {
        self.state.lock().lost
    }

    /// Returns the service of the span, if it is one of these.
    pub(super) fn service_of(&self, span: SpanRef) -> Option<Arc<str>> {
        self.state.lock().services.get(&span).cloned()
    }

    /// Completes when a span has ended after the call.
    pub(super) fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.ended).notified_owned()
    }

    fn start(self: &Arc<Self>, mut span: Span) {
        // The SDK gives an open span its start as end.
        span.end = 0;
        if let Some(clock) = &self.clock {
            span.start = clock.now();
        }
        let (reference, mut state) = (span.reference(), self.state.lock());
        if state.services.len() >= MOST_SPANS {
            state.lost += 1;
            return;
        }
        state.services.insert(reference, Arc::clone(&span.service));
        let new = state.traces.insert(span.trace_id);
        state.open.insert(reference, span);
        drop(state);
        if new {
            claim(reference.trace_id, self);
        }
    }

    fn end(&self, mut span: Span) {
        let mut state = self.state.lock();
        // A span that was lost at its start stays lost.
        if let Some(open) = state.open.remove(&span.reference()) {
            if let Some(clock) = &self.clock {
                (span.start, span.end) = (open.start, clock.now());
            }
            state.ended.push(span);
        }
        drop(state);
        self.ended.notify_waiters();
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        forget_the_dead();
    }
}

/// The owner of each trace. An entry is removed with its capture.
static TRACES: LazyLock<Mutex<HashMap<TraceId, Weak<Spans>>>> = LazyLock::new(Mutex::default);

/// Returns the capture that owns a trace.
pub(super) fn owner_of(trace: TraceId) -> Option<Arc<Spans>> {
    TRACES.lock().get(&trace).and_then(Weak::upgrade)
}

/// Assigns the trace to `spans`, unless a live capture already owns it.
fn claim(trace: TraceId, spans: &Arc<Spans>) {
    let mut traces = TRACES.lock();
    let owner = traces.entry(trace).or_default();
    if owner.strong_count() == 0 {
        *owner = Arc::downgrade(spans);
    }
}

/// Removes the traces of captures that are gone.
fn forget_the_dead() {
    TRACES.lock().retain(|_, spans| spans.strong_count() > 0);
}

/// Ids from the random numbers of the thread, which a seed determines.
#[derive(Debug)]
struct DrawnIds;

impl IdGenerator for DrawnIds {
    fn new_trace_id(&self) -> trace::TraceId {
        trace::TraceId::from(fastrand::u128(1..))
    }

    fn new_span_id(&self) -> trace::SpanId {
        trace::SpanId::from(fastrand::u64(1..))
    }
}

/// The processor that hands the SDK's spans of one service to a capture.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) service: Arc<str>,
    /// Weak, because the capture keeps the provider that owns this.
    pub(super) spans: Weak<Spans>,
}

impl SpanProcessor for Sink {
    fn on_start(&self, span: &mut sdk::Span, _: &Context) {
        if let (Some(spans), Some(data)) = (self.spans.upgrade(), span.exported_data()) {
            spans.start(exported::span(data, &self.service));
        }
    }

    fn on_end(&self, data: SpanData) {
        if let Some(spans) = self.spans.upgrade() {
            spans.end(exported::span(data, &self.service));
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
