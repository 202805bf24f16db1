//! The attributes that samplers saw: one that is set after the start of its span cannot affect a
//! decision.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use opentelemetry::trace::{Link, SpanKind, TraceId};
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingResult, ShouldSample, SpanData};
use parking_lot::Mutex;

use super::attributes::ATTRIBUTES;
use super::span::operation;

/// The attribute names that spans of one trace and one name began with; rarely more than one set.
type Starts = BTreeSet<Vec<Key>>;

/// The names of the attributes that spans began with, by their trace and name.
#[derive(Debug, Clone, Default)]
pub(in crate::conformance) struct SeenAtStart(Arc<Mutex<HashMap<(TraceId, String), Starts>>>);

/// A sampler that decides like that of most applications, and records the attributes it was shown.
#[derive(Debug, Clone)]
pub(in crate::conformance) struct Watching {
    seen: SeenAtStart,
    decides: Sampler,
}

impl Watching {
    pub(in crate::conformance) fn new(seen: SeenAtStart) -> Self {
        Self { seen, decides: Sampler::ParentBased(Box::new(Sampler::AlwaysOn)) }
    }
}

impl ShouldSample for Watching {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let keys = attributes.iter().map(|pair| pair.key.clone()).collect();
        self.seen.0.lock().entry((trace, name.to_owned())).or_default().insert(keys);
        self.decides.should_sample(parent, trace, name, kind, attributes, links)
    }
}

impl SeenAtStart {
    /// Returns a complaint if the span has an attribute that it should have had when it began.
    pub(in crate::conformance) fn check(&self, span: &SpanData) -> Vec<String> {
        if span.instrumentation_scope.name() != env!("CARGO_PKG_NAME") {
            return Vec::new();
        }
        let operation = operation(span).unwrap_or_default();
        let early =
            ATTRIBUTES.iter().filter(|attribute| attribute.at_start & operation != 0).map(|attribute| attribute.name);
        let has = |name: &&str| span.attributes.iter().any(|pair| pair.key.as_str() == *name);
        let early: Vec<&str> = early.filter(has).collect();
        let seen = self.0.lock();
        let starts = seen.get(&(span.span_context.trace_id(), span.name.to_string()));
        let missing =
            |keys: &Vec<Key>| early.iter().find(|name| !keys.iter().any(|key| key.as_str() == **name)).copied();
        // Spans of one name in one trace cannot be told apart; one of the starts belongs to this
        // span.
        let complaint = match starts.map(|starts| starts.iter().map(missing).collect::<Vec<_>>()) {
            Some(missing) if missing.iter().any(Option::is_none) => return Vec::new(),
            Some(missing) => {
                format!("{} is there when the span begins", missing.first().copied().flatten().unwrap_or_default())
            }
            None => "a sampler was asked".to_owned(),
        };
        vec![format!("{} ({:?}): {complaint}", span.name, span.span_kind)]
    }
}
