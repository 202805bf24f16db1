//! A propagator as applications may configure it: one that writes header names as HTTP does.
//!
//! The kit uses the parser and writer of the library's propagators, because its cases compare with
//! headers that are spelled out in full. Only the case of the names is the kit's, because the
//! library writes lower case, and a broker must accept both.

use std::collections::HashMap;
use std::sync::LazyLock;

use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};

use crate::context::propagators::B3;

/// B3 in several headers, with names such as `X-B3-TraceId`.
#[derive(Debug, Clone, Copy)]
pub(super) struct CapitalB3;

const NAMES: [&str; 4] = ["X-B3-TraceId", "X-B3-SpanId", "X-B3-Sampled", "X-B3-Flags"];

fn capital(name: &str) -> &str {
    NAMES.into_iter().find(|capital| capital.eq_ignore_ascii_case(name)).unwrap_or(name)
}

struct Capital<'e>(&'e dyn Extractor);

impl Extractor for Capital<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(capital(key))
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys()
    }
}

impl TextMapPropagator for CapitalB3 {
    fn inject_context(&self, context: &Context, injector: &mut dyn Injector) {
        let mut headers = HashMap::new();
        B3::Multi.inject_context(context, &mut headers);
        headers.into_iter().for_each(|(name, value)| injector.set(capital(&name), value));
    }

    fn extract_with_context(&self, context: &Context, extractor: &dyn Extractor) -> Context {
        B3::Multi.extract_with_context(context, &Capital(extractor))
    }

    fn fields(&self) -> FieldIter<'_> {
        static FIELDS: LazyLock<[String; 4]> = LazyLock::new(|| NAMES.map(str::to_owned));
        FieldIter::new(&*FIELDS)
    }
}
