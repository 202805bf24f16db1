//! Propagators of the W3C headers, each with one fault.

use std::collections::HashMap;

use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use parking_lot::Mutex;
use traced_broker::w3c::W3cPropagator;

/// The fault of a propagator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PropagatorFault {
    /// No fault: a user-supplied propagator itself changes no result.
    None,
    /// Treats every context as sampled.
    IgnoresTheFlags,
    /// Does not write contexts that are not sampled.
    DropsUnsampledContexts,
    /// Extracts onto the current context, and so uses it for messages without a context.
    ExtractsTheAmbientContext,
    DropsBaggage,
    DropsTraceStates,
    /// Writes each header twice; the carrier keeps one of them.
    InjectsTwice,
    /// Writes the first context of each trace for all later messages too.
    InjectsTheOrigin,
    /// Adds the baggage of the previous message.
    LeaksBaggage,
}

impl PropagatorFault {
    /// Number of faults.
    pub(crate) const COUNT: usize = Self::LeaksBaggage as usize + 1;
}

#[derive(Debug)]
pub(crate) struct Faulty {
    fault: PropagatorFault,
    sound: W3cPropagator,
    origins: Mutex<HashMap<TraceId, SpanContext>>,
    leaked: Mutex<Vec<KeyValue>>,
}

impl Faulty {
    pub(crate) fn new(fault: PropagatorFault) -> Self {
        Self { fault, sound: W3cPropagator::new(), origins: Mutex::default(), leaked: Mutex::default() }
    }
}

fn with_span(context: &Context, change: impl FnOnce(&SpanContext) -> SpanContext) -> Context {
    let span = context.span().span_context().clone();
    if span.is_valid() { context.with_remote_span_context(change(&span)) } else { context.clone() }
}

fn made(span: &SpanContext, flags: TraceFlags, state: TraceState) -> SpanContext {
    SpanContext::new(span.trace_id(), span.span_id(), flags, span.is_remote(), state)
}

impl TextMapPropagator for Faulty {
    fn inject_context(&self, context: &Context, injector: &mut dyn Injector) {
        let span = context.span().span_context().clone();
        match self.fault {
            PropagatorFault::DropsUnsampledContexts if !span.is_sampled() => {}
            PropagatorFault::DropsBaggage => self.sound.inject_context(&context.with_cleared_baggage(), injector),
            PropagatorFault::InjectsTwice => {
                self.sound.inject_context(context, injector);
                self.sound.inject_context(context, injector);
            }
            PropagatorFault::InjectsTheOrigin if span.is_valid() => {
                let origin = self.origins.lock().entry(span.trace_id()).or_insert(span).clone();
                self.sound.inject_context(&context.with_remote_span_context(origin), injector);
            }
            _ => self.sound.inject_context(context, injector),
        }
    }

    fn extract_with_context(&self, context: &Context, extractor: &dyn Extractor) -> Context {
        match self.fault {
            PropagatorFault::ExtractsTheAmbientContext => {
                self.sound.extract_with_context(&Context::current(), extractor)
            }
            PropagatorFault::IgnoresTheFlags => {
                let read = self.sound.extract_with_context(context, extractor);
                with_span(&read, |span| made(span, TraceFlags::SAMPLED, span.trace_state().clone()))
            }
            PropagatorFault::DropsTraceStates => {
                let read = self.sound.extract_with_context(context, extractor);
                with_span(&read, |span| made(span, span.trace_flags(), TraceState::default()))
            }
            PropagatorFault::LeaksBaggage => {
                let read = self.sound.extract_with_context(context, extractor);
                let own: Vec<KeyValue> =
                    read.baggage().iter().map(|(key, (value, _))| KeyValue::new(key.clone(), value.clone())).collect();
                let leaked = std::mem::replace(&mut *self.leaked.lock(), own);
                if leaked.is_empty() { read } else { read.with_baggage(leaked) }
            }
            _ => self.sound.extract_with_context(context, extractor),
        }
    }

    fn fields(&self) -> FieldIter<'_> {
        self.sound.fields()
    }
}
