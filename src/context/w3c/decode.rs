//! Reads the headers of a message into a context.

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
    /// The base context, with the remote span and the baggage from the headers.
    pub context: Context,
    /// The headers and members that were malformed or left out.
    pub issues: Issues,
}

/// Reads the three headers, each given as the whole value of its only occurrence.
///
/// Without a valid `traceparent`, the base gets no remote span, and the `tracestate` is not read
/// ("Relationship Between the Headers"). Baggage is independent: it replaces the base's if any of
/// it is valid. White space around a value is not part of it (RFC 9110, section 5.5).
///
/// Pass an empty base. With any other, a message without a valid `traceparent` would appear to have
/// been sent by the span that is current at the receiver.
///
/// # Allocations
/// A `traceparent` alone, and a `tracestate` in normal form, cost the allocations of
/// OpenTelemetry's own types. A set random flag, or a `tracestate` that those types cannot hold,
/// costs one additional context value.
pub fn decode(
    traceparent: Option<&[u8]>,
    tracestate: Option<&[u8]>,
    baggage: Option<&[u8]>,
    base: &Context,
) -> Extracted {
    assemble(Ok(traceparent.map(trim)), tracestate, baggage, base)
}

/// Reads headers that may each occur any number of times, in their order.
///
/// Equal `traceparent` headers count once. Several different ones are rejected
/// ([`Malformed::Conflicting`]), because it is unknown which one is right: the trace is restarted.
/// The values of `tracestate` and of `baggage` are joined with commas ("tracestate Header Field
/// Values"; Baggage, "Baggage HTTP Header Format"). Otherwise it behaves like [`decode`].
///
/// ```
/// use opentelemetry::{Context, trace::TraceContextExt};
/// use traced_broker::w3c::{self, Malformed};
///
/// let one: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let two: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000001-01";
/// let empty = Context::new();
/// let read = |values: &[&'static [u8]]| w3c::decode_all(values.iter().copied(), [], [], &empty);
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
            // A malformed list does not invalidate the parent ("Tracestate Header").
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

/// Returns the value on which all occurrences agree.
fn only<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<&'a [u8]>, Malformed> {
    let mut values = values.into_iter().map(trim);
    let first = values.next();
    if values.any(|value| Some(value) != first) { Err(Malformed::Conflicting) } else { Ok(first) }
}

/// Joins the values to one list (RFC 9110, section 5.3). A single value is borrowed.
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
