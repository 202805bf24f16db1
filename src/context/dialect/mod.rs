//! Readers of trace contexts that other systems put elsewhere.
//!
//! Most producers write the W3C headers under their own names, and need no dialect. Some write the
//! same values under other names, some write older headers, and some have no headers and wrap the
//! payload in an envelope. A subscription with a [`Dialect`] understands those too, if the W3C
//! headers (or those of the propagator in use) contain no valid context. The process span names the
//! dialect that matched. Dialects are opt-in because an application may use the same header names
//! for another purpose.
//!
//! | dialect | written by | where |
//! |---|---|---|
//! | [`CloudEvents`](Dialect::CloudEvents) | CloudEvents SDKs, Knative, Brighter | headers `ce-traceparent`, `ce_traceparent`, `cloudEvents:traceparent`, `cloudEvents_traceparent`; the JSON body of structured mode |
//! | [`MassTransit`](Dialect::MassTransit) | MassTransit | header `MT-Activity-Id`; `headers` of its JSON envelope |
//! | [`Wolverine`](Dialect::Wolverine) | Wolverine | header `parent-id` |
//! | [`NatsServer`](Dialect::NatsServer) | NATS servers 2.11 to 2.13, which rename the header | header `Xraceparent`, with `tracestate` |
//! | [`B3`](Dialect::B3) | Zipkin, Brave, Istio | header `b3`, or `X-B3-TraceId` and its like |
//! | [`Jaeger`](Dialect::Jaeger) | Jaeger's own clients | header `uber-trace-id`, baggage in `uberctx-…` |
//! | [`Azure`](Dialect::Azure) | Azure SDKs | header `Diagnostic-Id` |
//! | [`Watermill`](Dialect::Watermill) | Watermill on Redis Streams | field `metadata`, MessagePack |
//! | [`Dapr`](Dialect::Dapr) | Dapr on any broker | fields `metadata` and `data` on Redis Streams, JSON; else the JSON body |
//! | [`FastStream`](Dialect::FastStream) | FastStream on Redis Streams | field `__data__`, a binary frame or JSON |
//!
//! # Reading
//! Ids and flags are used as carried: an unsampled trace stays unsampled. A 64-bit trace id is
//! padded with leading zeroes, as the B3 and Jaeger specifications require. B3 can defer the
//! decision to the receiver (no sampling state). Such a context reads as not sampled, as in
//! OpenTelemetry's own B3 propagators: otherwise, a flag that the sender did not set would force
//! recording. B3's debug flag reads as sampled.
//!
//! Baggage is read from the dialect if it defines baggage and there is some, and otherwise from the
//! header `baggage`.
//!
//! # Untrusted input
//! A value that violates its format reads as absent; it is never guessed and never causes a panic.
//! Several headers of one name with different values read as absent too. An envelope larger than
//! [`MAX_ENVELOPE`] is not read. The envelope itself is not changed: the handler receives payload
//! and headers as they came.

pub(super) mod b3;
mod bytes;
mod cloud_events;
mod dapr;
mod fast_stream;
mod ids;
pub(super) mod jaeger;
mod json;
mod mass_transit;
mod message_pack;
mod renamed;
mod watermill;

use crate::names::header;
use std::fmt;

use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;

use crate::context::w3c::{self};
use crate::headers::{Headers, starts_with};

/// The largest envelope that is searched for a context, in bytes: 1 MiB.
///
/// Larger messages are delivered like any other, without the context that their envelope may
/// contain.
pub const MAX_ENVELOPE: usize = 1 << 20;

/// The way in which another system's producer carries the context; see the [module](self).
///
/// ```
/// use opentelemetry::trace::TraceContextExt;
/// use traced_broker::{Dialect, Headers};
///
/// let b3 = "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1";
/// let headers: Headers = [("b3", b3)].into_iter().collect();
/// let context = Dialect::B3.read(&headers, None).expect("a context");
/// assert!(context.span().span_context().is_sampled());
/// assert!(Dialect::Jaeger.read(&headers, None).is_none());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// The [distributed tracing
    /// extension](https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/distributed-tracing.md)
    /// of CloudEvents: its attributes as headers of the protocol bindings, or as members of the
    /// JSON body in structured mode.
    CloudEvents,
    /// MassTransit's `MT-Activity-Id`, as a header or in its JSON envelope.
    MassTransit,
    /// Wolverine's `parent-id`.
    Wolverine,
    /// `Xraceparent`: the header into which NATS servers 2.11 to 2.13 rename `traceparent` if they
    /// do not trace the message themselves. It is always read, even if it is not listed.
    NatsServer,
    /// [B3](https://github.com/openzipkin/b3-propagation); the single header takes precedence over
    /// the multiple headers.
    B3,
    /// Jaeger's
    /// [`uber-trace-id`](https://www.jaegertracing.io/docs/1.52/client-libraries/#propagation-format).
    Jaeger,
    /// Azure's `Diagnostic-Id`, as its messaging clients write it.
    Azure,
    /// Watermill's entries of Redis Streams, with metadata in MessagePack.
    Watermill,
    /// Dapr's CloudEvents, and its entries of Redis Streams.
    Dapr,
    /// FastStream's entries of Redis Streams.
    FastStream,
}

impl Dialect {
    /// Every dialect, in the order of the [table](self).
    pub const ALL: [Self; 10] = [
        Self::CloudEvents,
        Self::MassTransit,
        Self::Wolverine,
        Self::NatsServer,
        Self::B3,
        Self::Jaeger,
        Self::Azure,
        Self::Watermill,
        Self::Dapr,
        Self::FastStream,
    ];

    /// Returns the stable name, used as a span attribute.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CloudEvents => "cloudevents",
            Self::MassTransit => "masstransit",
            Self::Wolverine => "wolverine",
            Self::NatsServer => "nats-server",
            Self::B3 => "b3",
            Self::Jaeger => "jaeger",
            Self::Azure => "azure",
            Self::Watermill => "watermill",
            Self::Dapr => "dapr",
            Self::FastStream => "faststream",
        }
    }

    /// Returns `true` for a header that holds context in this dialect, in any case of its letters.
    pub(crate) fn writes(self, name: &str) -> bool {
        let is = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        match self {
            Self::CloudEvents => is(cloud_events::BINDINGS.as_flattened()),
            Self::MassTransit => is(&[mass_transit::ACTIVITY_ID]),
            Self::Wolverine => is(&[renamed::WOLVERINE]),
            Self::NatsServer => is(&[renamed::NATS_SERVER]),
            Self::B3 => is(&[b3::SINGLE, b3::TRACE_ID, b3::SPAN_ID, b3::SAMPLED, b3::FLAGS]),
            Self::Jaeger => is(&[jaeger::TRACE]) || starts_with(name, jaeger::BAGGAGE),
            Self::Azure => is(&[renamed::AZURE]),
            // Their contexts are in envelopes, which are the application's data.
            Self::Watermill | Self::Dapr | Self::FastStream => false,
        }
    }

    /// Reads the context that a message carries in this dialect, onto an empty context: a remote
    /// span and baggage. `None` without a valid remote span.
    ///
    /// `payload` is read only by dialects with an envelope. Fields of a Redis Streams entry are
    /// headers, as everywhere in this library.
    pub fn read(self, headers: &Headers, payload: Option<&[u8]>) -> Option<Context> {
        let context = match self {
            Self::CloudEvents => cloud_events::read(headers, payload),
            Self::MassTransit => mass_transit::read(headers, payload),
            Self::Wolverine => renamed::wolverine(headers),
            Self::NatsServer => renamed::nats_server(headers),
            Self::B3 => b3::read(headers),
            Self::Jaeger => jaeger::read(headers),
            Self::Azure => renamed::azure(headers),
            Self::Watermill => watermill::read(headers),
            Self::Dapr => dapr::read(headers, payload),
            Self::FastStream => fast_stream::read(headers, payload),
        }?;
        if context.baggage().is_empty() {
            return Some(w3c::decode_all([], [], headers.get_all(header::BAGGAGE), &context).context);
        }
        Some(context)
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
