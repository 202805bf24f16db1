//! What a capture holds: every span that was started for it, ended or not.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{self as sdk, SdkTracerProvider, SpanData, SpanProcessor};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::routes;
use crate::exported;
use crate::verify::{Span, SpanRef, TraceId, Traces};

/// How many spans a [`Capture`](super::Capture) keeps. Those that come later are counted, and fail every assertion.
pub const MOST_SPANS: usize = 100_000;

/// The spans of one capture.
#[derive(Debug, Default)]
pub(super) struct Spans {
    state: Mutex<State>,
    /// Notified whenever a span has ended.
    ended: Arc<Notify>,
    /// By service.
    providers: Mutex<HashMap<Box<str>, SdkTracerProvider>>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<SpanRef, Span>,
    ended: Vec<Span>,
    services: HashMap<SpanRef, Arc<str>>,
    traces: HashSet<TraceId>,
    /// How many there was no room for.
    lost: usize,
}

impl Spans {
    /// The provider of a service, made if there is none yet.
    pub(super) fn provider(&self, service: &str, make: impl FnOnce() -> SdkTracerProvider) -> SdkTracerProvider {
        let mut providers = self.providers.lock();
        if let Some(provider) = providers.get(service) {
            return provider.clone();
        }
        providers.entry(service.into()).or_insert_with(make).clone()
    }

    /// All spans so far; those that have not ended have no end.
    pub(super) fn traces(&self) -> Traces {
        let state = self.state.lock();
        state.ended.iter().chain(state.open.values()).cloned().collect()
    }

    /// The spans that have not ended.
    pub(super) fn open(&self) -> Vec<Span> {
        let mut open: Vec<Span> = self.state.lock().open.values().cloned().collect();
        open.sort_by_key(|span| (span.start, span.span_id));
        open
    }

    /// How many spans there was no room for.
    pub(super) fn lost(&self) -> usize {
        self.state.lock().lost
    }

    /// The service that the span belongs to, if it is one of these.
    pub(super) fn service_of(&self, span: SpanRef) -> Option<Arc<str>> {
        self.state.lock().services.get(&span).cloned()
    }

    /// Completes when a span has ended after the call.
    pub(super) fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.ended).notified_owned()
    }

    fn start(self: &Arc<Self>, mut span: Span) {
        // The SDK gives a span that is under way its start as end.
        span.end = 0;
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
            routes::claim(reference.trace_id, self);
        }
    }

    fn end(&self, span: Span) {
        let mut state = self.state.lock();
        // One that was lost when it started stays lost.
        if state.open.remove(&span.reference()).is_some() {
            state.ended.push(span);
        }
        drop(state);
        self.ended.notify_waiters();
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        routes::forget_the_dead();
    }
}

/// The way from the SDK into a capture, for the spans of one service.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) service: Arc<str>,
    /// Weak, for the capture keeps the provider that this belongs to.
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
