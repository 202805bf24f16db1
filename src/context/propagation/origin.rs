//! The origin of a delivery in terms of traces.

use std::sync::Arc;

use opentelemetry::Context;

use super::boundary::{TrustBoundary, carry_baggage};
use super::fields::Fields;
use super::policy::{Hop, TracePolicy, said_in};
use crate::context::dialect::Dialect;
use crate::headers::Headers;
use crate::names::header;

/// The creation context of a message, and the policy that the consumer applies to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    pub(crate) context: Context,
    pub(crate) hop: Hop,
    pub(crate) policy: TracePolicy,
    /// The dialect of another system from which the context was read.
    pub(crate) dialect: Option<Dialect>,
    /// `true` if the message crossed a trust boundary.
    pub(crate) is_foreign: bool,
    /// `true` if the context must not leave with a copy: it is foreign, or ignored by the consumer.
    pub(crate) is_withheld: bool,
    /// The headers of the propagator in use, if the context is withheld.
    pub(crate) fields: Option<Fields>,
}

impl Origin {
    /// Returns `true` if the copy at another broker keeps the creation context. A context that is
    /// foreign or ignored here must not count there.
    pub(crate) fn is_passed_on(&self) -> bool {
        !self.is_foreign && self.policy != TracePolicy::Ignore
    }

    /// Removes the sender's context and its requests from the headers of a copy, in every form that
    /// a reader could understand, if they are withheld.
    pub(crate) fn withhold(&self, headers: &mut Headers) {
        if !self.is_withheld || headers.is_empty() {
            return;
        }
        if let Some(fields) = &self.fields {
            fields.remove_from(headers);
        }
        let always =
            [header::TRACEPARENT, header::TRACESTATE, header::BAGGAGE, header::TRACE_HOP, header::TRACE_POLICY];
        for name in always {
            headers.remove(name);
        }
        for dialect in Dialect::ALL {
            if dialect.read(headers, None).is_some() {
                headers.retain(|name, _| !dialect.writes(name));
            }
        }
    }

    /// Returns the context in which the process span is started.
    pub(crate) fn parent(&self) -> Context {
        match self.policy {
            TracePolicy::Parent => self.context.clone(),
            TracePolicy::Link => carry_baggage(Context::new(), &self.context, |_| true),
            TracePolicy::Ignore => Context::new(),
        }
    }

    /// Returns the context to work in if no span can be made. Then there is no new trace to start,
    /// so that a link would lose the sender's trace; only a foreign trace must end here.
    pub(crate) fn context_without_spans(&self) -> Context {
        match self.policy {
            TracePolicy::Link if !self.is_foreign => self.context.clone(),
            _ => self.parent(),
        }
    }
}

/// The options of a subscription for reading the contexts of its messages.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reception {
    pub(crate) policy: Option<TracePolicy>,
    pub(crate) by_hop: Vec<(Hop, TracePolicy)>,
    pub(crate) boundary: Option<Arc<TrustBoundary>>,
    pub(crate) dialects: Vec<Dialect>,
    pub(crate) replay: bool,
}

impl Reception {
    /// Reads the context of a message whose usual headers contain none, in a dialect of the
    /// subscription.
    pub(crate) fn translate(&self, headers: &Headers, payload: Option<&[u8]>) -> Option<(Context, Dialect)> {
        if headers.is_empty() && self.dialects.is_empty() {
            return None;
        }
        // The header that NATS servers rename is read even if the dialect is not listed.
        let understood = std::iter::once(Dialect::NatsServer).chain(self.dialects.iter().copied());
        understood.into_iter().find_map(|dialect| Some((dialect.read(headers, payload)?, dialect)))
    }

    /// Applies the first of these that decides to a context that was read: the trust boundary, the
    /// subscription's policy, the sender's request (which cannot know of a replay), the
    /// subscription's policy for the kind of hop, the default of the hop.
    pub(crate) fn receive(
        &self,
        context: Context,
        dialect: Option<Dialect>,
        headers: &Headers,
        is_replayed: bool,
    ) -> Origin {
        let (hop, asked) = if headers.is_empty() { (Hop::Direct, None) } else { said_in(headers) };
        let hop = if is_replayed { Hop::Replay } else { hop };
        if let Some(boundary) = &self.boundary {
            let ignore = self.policy == Some(TracePolicy::Ignore);
            let policy = if ignore { TracePolicy::Ignore } else { TracePolicy::Link };
            let context = boundary.admit(&context);
            return Origin { context, hop, policy, dialect, is_foreign: true, is_withheld: true, fields: None };
        }
        let asked = asked.filter(|_| hop != Hop::Replay);
        let policy = self.policy.or(asked).or_else(|| self.for_hop(hop)).unwrap_or_else(|| hop.default_policy());
        // A sender that wants its context to be ignored says so to the next reader as well.
        let is_withheld = policy == TracePolicy::Ignore && (self.policy.is_some() || asked.is_none());
        Origin { context, hop, policy, dialect, is_foreign: false, is_withheld, fields: None }
    }

    fn for_hop(&self, hop: Hop) -> Option<TracePolicy> {
        // The last setting for a hop counts.
        self.by_hop.iter().rev().find(|(of, _)| *of == hop).map(|(_, policy)| *policy)
    }
}
