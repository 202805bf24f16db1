//! Contexts with propagators that the application configures: alone, combined, unsampled, without
//! an SDK, and from foreign producers.

use crate::message::HandlerError;
use crate::names::header;
use std::sync::Arc;

use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};

use crate::broker::{Broker, Deliveries, TracedBroker};
use crate::conformance::case_context::CaseContext;
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::conformance::propagators::CapitalB3;
use crate::context::propagators::{B3, Jaeger};
use crate::driver::{Driver, DriverExt, Outbound};
use crate::headers::Headers;
use crate::message::{Message, Received, Topic};

crate::conformance::case::cases! { Propagation:
    works_with_b3_in_one_header []
        "With B3 in one header, contexts travel as with the W3C headers: whole traces, decisions kept, without an SDK, from any producer.";
    works_with_b3_in_several_headers []
        "With B3 in several headers, contexts travel as with the W3C headers: whole traces, decisions kept, without an SDK, from any producer.";
    works_with_jaegers_propagator []
        "With Jaeger's headers, contexts travel as with the W3C headers: whole traces, decisions kept, without an SDK, from any producer, and baggage.";
    works_with_several_propagators_at_once []
        "With B3, W3C headers and baggage combined, each header is written once, and any of them is enough to be read.";
}

/// The headers of one foreign message, and the trace, span and decision that they encode.
type Foreign = (&'static [(&'static str, &'static str)], Option<(u128, u64, bool)>);

/// A propagator: its constructor, the headers it writes, and foreign messages for it.
struct Kind<P> {
    make: fn() -> P,
    written: &'static [&'static str],
    foreign: &'static [Foreign],
}

/// The context headers of all propagators; a message carries only those of the configured one.
const KNOWN: [&str; 9] = [
    header::TRACEPARENT,
    header::TRACESTATE,
    header::BAGGAGE,
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-sampled",
    "uber-trace-id",
    JAEGER_BAGGAGE,
];

/// The header in which Jaeger's propagator carries the baggage of the cases.
const JAEGER_BAGGAGE: &str = "uberctx-tenant";

/// The second spelling of B3 in several headers, which some languages look for.
const SPELLINGS: [&str; 3] = ["X-B3-TraceId", "X-B3-SpanId", "X-B3-Sampled"];

async fn works_with_b3_in_one_header(case: &CaseContext) -> Checked {
    let kind = Kind {
        make: || B3::Single,
        written: &["b3"],
        foreign: &[
            (&[("b3", "0000000000000000000000000000abcd-000000000000ef01-1")], Some((0xabcd, 0xef01, true))),
            (&[("B3", "000000000000abcd-000000000000ef01-0")], Some((0xabcd, 0xef01, false))),
            (&[("b3", "000000000000abcd-000000000000ef01-d")], Some((0xabcd, 0xef01, true))),
            (&[("b3", "0")], None),
            (&[("b3", "")], None),
            (&[("traceparent", "00-0000000000000000000000000000abcd-000000000000ef01-01")], None),
        ],
    };
    check_propagator(case, &kind).await
}

async fn works_with_b3_in_several_headers(case: &CaseContext) -> Checked {
    let kind = Kind {
        make: || CapitalB3,
        written: &["x-b3-traceid", "x-b3-spanid", "x-b3-sampled"],
        foreign: &[
            (
                &[("X-B3-TraceId", "000000000000abcd"), ("X-B3-SpanId", "000000000000ef01"), ("X-B3-Sampled", "1")],
                Some((0xabcd, 0xef01, true)),
            ),
            (
                &[("x-b3-traceid", "000000000000abcd"), ("x-b3-spanid", "000000000000ef01"), ("x-b3-sampled", "0")],
                Some((0xabcd, 0xef01, false)),
            ),
            (
                &[("X-B3-TRACEID", "000000000000abcd"), ("X-B3-SPANID", "000000000000ef01"), ("X-B3-FLAGS", "1")],
                Some((0xabcd, 0xef01, true)),
            ),
            (&[("X-B3-TraceId", "000000000000abcd"), ("X-B3-Sampled", "1")], None),
            (&[("X-B3-Sampled", "0")], None),
        ],
    };
    check_propagator(case, &kind).await
}

async fn works_with_jaegers_propagator(case: &CaseContext) -> Checked {
    let kind = Kind {
        make: || Jaeger,
        written: &["uber-trace-id", JAEGER_BAGGAGE],
        foreign: &[
            (&[("uber-trace-id", "abcd:ef01:0:1")], Some((0xabcd, 0xef01, true))),
            (&[("Uber-Trace-Id", "000000000000abcd:000000000000ef01:0:0")], Some((0xabcd, 0xef01, false))),
            (&[("uber-trace-id", "abcd:ef01:77:3")], Some((0xabcd, 0xef01, true))),
            (&[("uber-trace-id", "0:0:0:1")], None),
            (&[("uber-trace-id", "abcd:ef01")], None),
        ],
    };
    check_propagator(case, &kind).await
}

async fn works_with_several_propagators_at_once(case: &CaseContext) -> Checked {
    let kind = Kind {
        make: || {
            TextMapCompositePropagator::new(vec![
                Box::new(B3::Single),
                Box::new(TraceContextPropagator::new()),
                Box::new(BaggagePropagator::new()),
            ])
        },
        written: &["b3", "traceparent", "baggage"],
        foreign: &[
            (&[("b3", "000000000000abcd-000000000000ef01-1")], Some((0xabcd, 0xef01, true))),
            (
                &[("Traceparent", "00-0000000000000000000000000000abcd-000000000000ef01-00")],
                Some((0xabcd, 0xef01, false)),
            ),
            // The later propagator in the list wins, as everywhere in OpenTelemetry.
            (
                &[
                    ("b3", "0000000000000001-0000000000000002-1"),
                    ("traceparent", "00-0000000000000000000000000000abcd-000000000000ef01-01"),
                ],
                Some((0xabcd, 0xef01, true)),
            ),
            (&[("baggage", "tenant=acme")], None),
        ],
    };
    check_propagator(case, &kind).await
}

async fn check_propagator<P: TextMapPropagator + Send + Sync + 'static>(case: &CaseContext, kind: &Kind<P>) -> Checked {
    let onward = case.topic("onward");
    let driver = case.driver().await?;
    let traced = case.traced(driver.clone()).with_propagator((kind.make)());
    let mut source = traced.subscribe(case.group("g")).await?;
    let mut last = traced.subscribe(case.group_on(&onward, "g")).await?;
    check_whole_trace(case, kind, &traced, &mut source, &mut last).await?;

    // The same connection with a sampler that drops, and without an SDK. The messages are read by
    // the subscription above.
    let unsampled = Broker::new(driver.clone()).with_tracer_provider(&case.unsampled());
    let silent = Broker::new(driver.clone());
    for (broker, flags) in [(unsampled, TraceFlags::default()), (silent, TraceFlags::SAMPLED)] {
        let broker = broker.with_propagator((kind.make)());
        broker.publish(&case.topic, Message::new("x").context(remote(0x77, 0x88, flags))).await?;
        let delivery = case.next(&mut source).await?;
        let read = delivery.creation_context().span().span_context().clone();
        check_eq!(read.trace_id(), TraceId::from(0x77), "the trace of the message");
        check_eq!(read.trace_flags(), flags, "the decision of the sender");
        check_written(kind, delivery.message().headers())?;
        delivery.ack().await?;
    }
    check_foreign(case, kind, &driver, &mut source).await
}

/// Checks that the sender, the handler and the handler's publish are in one trace, and that only
/// the propagator's headers travel.
async fn check_whole_trace<P>(
    case: &CaseContext,
    kind: &Kind<P>,
    broker: &Broker,
    source: &mut Deliveries,
    last: &mut Deliveries,
) -> Checked {
    let (root, onward) = (case.root("POST /orders"), case.topic("onward"));
    let context = root.with_baggage([KeyValue::new("tenant", "acme, inc=1")]);
    // Headers that are left over from another message.
    let stale = [header::TRACEPARENT, header::TRACESTATE, header::BAGGAGE].iter().chain(kind.written);
    let stale = stale.fold(Message::new("x").context(context), |message, name| message.header(name, "stale"));
    broker.publish(&case.topic, stale).await?;
    let delivery = case.next(source).await?;
    check_written(kind, delivery.message().headers())?;
    let carries_baggage = [header::BAGGAGE, JAEGER_BAGGAGE].iter().any(|name| kind.written.contains(name));
    let (publisher, to) = (broker.clone(), onward.clone());
    let handler = async move |_: Received| -> Result<(), HandlerError> {
        let tenant = Context::current().baggage().get("tenant").map(ToString::to_string);
        check_eq!(tenant.as_deref(), carries_baggage.then_some("acme, inc=1"), "the baggage in the handler");
        publisher.publish(&to, Message::new("y")).await?;
        Ok(())
    };
    let processed = delivery.process(handler).await?;
    check!(processed.error.is_none(), "the handler succeeds: {:?}", processed.error);
    let answer = case.next(last).await?;
    check_written(kind, answer.message().headers())?;
    answer.process(|_| async { Ok(()) }).await?;
    root.span().end();

    let spans = &case.spans;
    spans.check_everything_resolves()?;
    let chain = [
        "POST /orders".to_owned(),
        case.send_name(),
        case.process_name(),
        format!("send {onward}"),
        format!("process {onward}"),
    ];
    for pair in chain.windows(2) {
        let (parent, child) = (spans.one(&pair[0])?, spans.one(&pair[1])?);
        check_eq!(child.parent_span_id, parent.span_context.span_id(), "the parent of {}", child.name);
    }
    Ok(())
}

/// Checks that the message carries each header of the propagator once, and no other context.
fn check_written<P>(kind: &Kind<P>, headers: &Headers) -> Checked {
    for name in KNOWN {
        let named = headers.iter().filter(|(written, _)| written.eq_ignore_ascii_case(name));
        let named: Vec<(&str, &[u8])> = named.filter(|(written, _)| !SPELLINGS.contains(written)).collect();
        check!(named.iter().all(|(written, _)| *written == name), "{name} is written in lower case: {named:?}");
        let values: Vec<&[u8]> = named.into_iter().map(|(_, value)| value).collect();
        // Baggage is written only if there is any.
        let optional = [header::BAGGAGE, JAEGER_BAGGAGE].contains(&name) && values.is_empty();
        let expected = usize::from(kind.written.contains(&name) && !optional);
        check_eq!(values.len(), expected, "how often {name} is written");
        check!(!values.contains(&&b"stale"[..]), "{name} is not what it was");
    }
    for spelling in SPELLINGS {
        let lower = spelling.to_ascii_lowercase();
        let spelled: Vec<&[u8]> = headers.get_all(&lower).collect();
        let expected = if kind.written.contains(&&*lower) { 2 } else { 0 };
        check_eq!(spelled.len(), expected, "how often {spelling} is written in any case");
        check!(spelled.windows(2).all(|pair| pair[0] == pair[1]), "both spellings of {spelling} agree");
    }
    Ok(())
}

async fn check_foreign<P>(
    case: &CaseContext,
    kind: &Kind<P>,
    driver: &Arc<dyn Driver>,
    source: &mut Deliveries,
) -> Checked {
    let topic = Topic::new(&case.topic)?;
    driver.declare(&topic).await?;
    for (headers, expected) in kind.foreign {
        let message = Outbound { headers: headers.iter().copied().collect(), ..Outbound::new("x") };
        driver.enqueue(&topic, message).await?;
        let delivery = case.next(source).await?;
        let read = delivery.creation_context().span().span_context().clone();
        let seen = read.is_valid().then(|| (read.trace_id(), read.span_id(), read.is_sampled()));
        let expected = expected.map(|(trace, span, sampled)| (TraceId::from(trace), SpanId::from(span), sampled));
        check_eq!(seen, expected, "what is read of {headers:?}");
        let processed = delivery.process(async move |_: Received| -> Result<(), HandlerError> {
            let trace = Context::current().span().span_context().trace_id();
            let sent = expected.map(|(trace, ..)| trace);
            check!(sent.is_none_or(|sent| sent == trace), "the handler is in the sender's trace");
            check!(trace != TraceId::INVALID, "the handler is in a trace");
            Ok(())
        });
        let error = processed.await?.error;
        error.map_or(Ok(()), |error| Err(Failure::new(error.to_string())))?;
    }
    Ok(())
}

fn remote(trace: u128, span: u64, flags: TraceFlags) -> Context {
    let span = SpanContext::new(TraceId::from(trace), SpanId::from(span), flags, true, TraceState::default());
    Context::new().with_remote_span_context(span)
}
