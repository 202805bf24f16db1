//! Ways to break a trace on purpose, to see whether it is noticed and what is said of it.

use clap::ValueEnum;
use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use traced_broker::Broker;
use traced_broker::w3c::{TRACEPARENT, W3cPropagator};

/// What the services of a process do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cut {
    /// They publish without a context.
    NoInject,
    /// They publish a context that is none.
    Garble,
    /// They do not look at the context of what they receive.
    NoExtract,
    /// They sample nothing.
    NotSampled,
    /// Their spans do not get to the Collector.
    NotExported,
}

impl Cut {
    /// The broker, with contexts cut as they are to be.
    pub(crate) fn apply(self, broker: Broker) -> Broker {
        match self {
            Self::NoInject | Self::Garble | Self::NoExtract => broker.with_propagator(CutPropagator(self)),
            Self::NotSampled | Self::NotExported => broker,
        }
    }
}

/// The W3C's headers, but for what is cut.
#[derive(Debug)]
struct CutPropagator(Cut);

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
