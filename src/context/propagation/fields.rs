//! The headers that may carry context.

use std::sync::Arc;

use opentelemetry::propagation::TextMapPropagator;

use crate::headers::{Headers, starts_with};

/// Every header that may carry context, and is replaced when a message is published anew. A name
/// that ends with a hyphen stands for all headers that begin so, such as Jaeger's `uberctx-tenant`.
#[derive(Debug, Clone)]
pub(crate) struct Fields(Arc<[String]>);

impl Fields {
    /// Returns the headers of these propagators.
    pub(crate) fn of(propagators: &[&dyn TextMapPropagator]) -> Self {
        let names = propagators.iter().flat_map(|propagator| propagator.fields().map(str::to_owned));
        Self(names.collect())
    }

    /// Returns `true` if a header of this name may carry context.
    pub(crate) fn contain(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|field| if is_family(field) { starts_with(name, field) } else { field.eq_ignore_ascii_case(name) })
    }

    /// Removes them all.
    pub(crate) fn remove_from(&self, headers: &mut Headers) {
        if headers.is_empty() {
            return;
        }
        for field in self.0.iter() {
            if is_family(field) {
                headers.retain(|name, _| !starts_with(name, field));
            } else {
                headers.remove(field);
            }
        }
    }
}

fn is_family(field: &str) -> bool {
    field.ends_with('-')
}
