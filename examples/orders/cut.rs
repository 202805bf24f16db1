//! Ways to break a trace on purpose, to test that `traced-broker verify` finds the break.

use clap::ValueEnum;
use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use traced_broker::names::header::TRACEPARENT;
use traced_broker::w3c::W3cPropagator;

/// A fault of all services of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cut {
    /// They publish without a context.
    NoInject,
    /// They publish an invalid context.
    Garble,
    /// They ignore the context of received messages.
    NoExtract,
    /// They sample no span.
    NotSampled,
    /// Their spans are not sent to the Collector.
    NotExported,
}

/// The W3C propagator with a fault.
#[derive(Debug)]
pub(crate) struct CutPropagator(pub(crate) Cut);

impl TextMapPropagator for CutPropagator {
    fn inject_context(&self, context: &Context, injector: &mut dyn Injector) {
        match self.0 {
            Cut::NoInject => {}
            Cut::Garble => injector.set(TRACEPARENT, "00-the trace id got lost-01".to_owned()),
            _ => W3cPropagator::new().inject_context(context, injector),
        }
    }

    fn extract_with_context(&self, context: &Context, extractor: &dyn Extractor) -> Context {
        match self.0 {
            Cut::NoExtract => context.clone(),
            _ => W3cPropagator::new().extract_with_context(context, extractor),
        }
    }

    fn fields(&self) -> FieldIter<'_> {
        static W3C: W3cPropagator = W3cPropagator::new();
        W3C.fields()
    }
}
