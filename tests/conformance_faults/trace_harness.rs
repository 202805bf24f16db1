//! Runs the kit with one fault in how contexts are carried, read or written, or in the spans.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_sdk::trace::{SdkTracerProvider, TracerProviderBuilder};
use traced_broker::adapters::memory::Memory;
use traced_broker::conformance::{Harness, Spans};
use traced_broker::driver::Driver;
use traced_broker::{Broker, Result};

use crate::headers::{self, HeaderFault};
use crate::propagators::{self, PropagatorFault};
use crate::spans::{self, SpanFault};

/// The fault of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TraceFault {
    Header(HeaderFault),
    Propagator(PropagatorFault),
    Span(SpanFault),
}

pub(crate) struct TraceHarness {
    fault: TraceFault,
    url: String,
    /// Keeps the broker alive.
    _anchor: Memory,
}

impl TraceHarness {
    pub(crate) fn new(fault: TraceFault) -> Self {
        let (kind, name) = match fault {
            TraceFault::Header(fault) => ("header", format!("{fault:?}")),
            TraceFault::Propagator(fault) => ("propagator", format!("{fault:?}")),
            TraceFault::Span(fault) => ("span", format!("{fault:?}")),
        };
        let url = format!("memory://{kind}{name}");
        let _anchor = Memory::connect(&url.parse().unwrap()).unwrap();
        Self { fault, url, _anchor }
    }
}

#[async_trait]
impl Harness for TraceHarness {
    fn name(&self) -> &str {
        "faulty"
    }

    async fn connect(&self) -> Result<Arc<dyn Driver>> {
        let memory = Memory::connect(&self.url.parse()?)?;
        Ok(match self.fault {
            TraceFault::Header(fault) => Arc::new(headers::Spoiling::new(fault, memory)),
            _ => Arc::new(memory),
        })
    }

    fn tracer_provider(&self, builder: TracerProviderBuilder, spans: Spans) -> SdkTracerProvider {
        match self.fault {
            TraceFault::Span(fault) => builder.with_simple_exporter(spans::Spoiling::new(fault, spans)),
            _ => builder.with_simple_exporter(spans),
        }
        .build()
    }

    fn set_up(&self, broker: Broker) -> Broker {
        match self.fault {
            TraceFault::Propagator(fault) => broker.with_propagator(propagators::Faulty::new(fault)),
            _ => broker,
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn many(&self) -> usize {
        2_000
    }
}
