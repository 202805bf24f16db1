//! From the headers of a message to a context.

use std::borrow::Cow;

use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;

use super::baggage;
use super::beside::Beside;
use super::malformed::{Issues, Malformed};
use super::octets::trim;
use super::traceparent::TraceParent;
use super::tracestate;

/// A context read from headers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Extracted {
    /// The base context, with the remote span and the baggage that the headers hold.
    pub context: Context,
    /// What was malformed or left out.
    pub issues: Issues,
}

/// Reads the three headers, each the whole value of its only occurrence.
///
/// Without a valid `traceparent` the base gets no remote span, and the `tracestate` is not read ("Relationship
/// Between the Headers"). Baggage stands on its own and replaces the base's when any of it is valid. White space
/// around a value is not part of it (RFC 9110, section 5.5).
///
/// Pass an empty base: with any other, a message without a valid `traceparent` would seem to have been sent by the
/// span that happens to be current where it is read.
///
/// # Allocations
/// A `traceparent` alone, and a `tracestate` in normal form, cost what OpenTelemetry's own types for them cost. A
/// set random flag, or a `tracestate` those types cannot hold, costs one context value more.
pub fn decode(
    traceparent: Option<&[u8]>,
    tracestate: Option<&[u8]>,
    baggage: Option<&[u8]>,
    base: &Context,
) -> Extracted {
    assemble(Ok(traceparent.map(trim)), tracestate, baggage, base)
}

/// Reads headers of which each may occur any number of times, given in their order.
///
/// The same `traceparent` several times counts once. Several different ones are no `traceparent` at all
/// ([`Malformed::Conflicting`]), for there is no telling which one is true: the trace is restarted. The values of
/// `tracestate` and of `baggage` are joined with commas ("tracestate Header Field Values"; Baggage, "Baggage HTTP
/// Header Format"). The rest is as for [`decode`].
///
/// ```
/// use opentelemetry::{Context, trace::TraceContextExt};
/// use traced_broker::w3c::{self, Malformed};
///
/// let one: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let two: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000001-01";
/// let read = |values: &[&'static [u8]]| w3c::decode_all(values.iter().copied(), [], [], &Context::new());
///
/// assert!(read(&[one, one]).context.has_active_span());
/// assert_eq!(read(&[one, two]).issues.traceparent, Some(Malformed::Conflicting));
/// ```
pub fn decode_all<'a>(
    traceparent: impl IntoIterator<Item = &'a [u8]>,
    tracestate: impl IntoIterator<Item = &'a [u8]>,
    baggage: impl IntoIterator<Item = &'a [u8]>,
    base: &Context,
) -> Extracted {
    let tracestate = joined(tracestate);
    let baggage = joined(baggage);
    assemble(only(traceparent), tracestate.as_deref(), baggage.as_deref(), base)
}

fn assemble(
    traceparent: Result<Option<&[u8]>, Malformed>,
    tracestate: Option<&[u8]>,
    baggage: Option<&[u8]>,
    base: &Context,
) -> Extracted {
    let mut issues = Issues::default();
    let parent = traceparent.and_then(|value| value.map(TraceParent::parse).transpose());
    let context = match parent {
        Ok(Some(parent)) => with_parent(base, parent, tracestate, &mut issues),
        other => {
            issues.traceparent = other.err();
            let is_there = tracestate.is_some_and(|value| !trim(value).is_empty());
            issues.tracestate = is_there.then_some(Malformed::Orphaned);
            base.clone()
        }
    };
    let context = with_baggage(context, baggage, &mut issues);
    Extracted { context, issues }
}

fn with_parent(base: &Context, parent: TraceParent, tracestate: Option<&[u8]>, issues: &mut Issues) -> Context {
    match tracestate.map(tracestate::normalize) {
        Some(Ok(list)) => {
            issues.tracestate_dropped = list.duplicates;
            Beside::extend(base, parent, &list.text)
        }
        other => {
            // A bad list does not make the parent bad ("Tracestate Header").
            issues.tracestate = other.and_then(Result::err);
            Beside::extend(base, parent, "")
        }
    }
}

fn with_baggage(context: Context, header: Option<&[u8]>, issues: &mut Issues) -> Context {
    let parsed = header.map(baggage::parse).unwrap_or_default();
    issues.baggage_dropped = parsed.dropped;
    if parsed.baggage.is_empty() { context } else { context.with_baggage(parsed.baggage) }
}

/// The value that all occurrences agree on.
fn only<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<&'a [u8]>, Malformed> {
    let mut values = values.into_iter().map(trim);
    let first = values.next();
    if values.any(|value| Some(value) != first) { Err(Malformed::Conflicting) } else { Ok(first) }
}

/// The values as one list (RFC 9110, section 5.3). A lone one is borrowed.
fn joined<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<Cow<'a, [u8]>> {
    let mut values = values.into_iter();
    let mut list = Cow::Borrowed(values.next()?);
    for value in values {
        let list = list.to_mut();
        list.push(b',');
        list.extend_from_slice(value);
    }
    Some(list)
}
