//! Contexts in every form that foreign producers write, sent through the broker: the context read
//! from each, and the headers written for it.

use crate::error::Error;
use crate::names::{attribute, header};
use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt, TraceId};

use crate::broker::{Broker, Deliveries, Delivery, TracedBroker};
use crate::conformance::case_context::{CaseContext, text};
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::conformance::measurements::total;
use crate::conformance::vectors::{self, Read, SPAN, TRACE, Vector};
use crate::context::w3c::{self, TraceParent};
use crate::driver::capability::HeaderValues;
use crate::driver::{Driver, DriverExt, Outbound};
use crate::error::{ErrorKind, PublishOutcome};
use crate::headers::Headers;
use crate::message::{HandlerError, Message, Received, Topic};
use crate::names::metric;

crate::conformance::case::cases! { Propagation:
    reads_every_form_of_traceparent []
        "A parent in any form that the W3C allows is continued; with any other, the trace starts anew. Written parents have one form.";
    reads_every_form_of_tracestate []
        "A list in any form that the W3C allows travels on in one form; any other is dropped, and the trace is continued.";
    reads_every_form_of_baggage []
        "Baggage in any form that the W3C allows reaches the handler and travels on; only malformed parts are dropped.";
    survives_hostile_headers_of_a_context []
        "Huge, binary and forged context headers are delivered without effect, or are refused and never arrive.";
    continues_the_trace_in_all_that_a_handler_publishes []
        "All messages that a handler publishes are in one trace, the received one or a new one, each with its own parent.";
}

/// Number of messages in flight at a time: fewer than any broker buffers.
const AT_A_TIME: usize = 32;

/// Size of headers that every broker carries, in bytes. It may refuse a message with more as too
/// large.
const CARRIED: usize = 64 * 1024;

async fn reads_every_form_of_traceparent(case: &CaseContext) -> Checked {
    check_forms(case, vectors::traceparents()).await
}

async fn reads_every_form_of_tracestate(case: &CaseContext) -> Checked {
    check_forms(case, vectors::tracestates()).await
}

async fn reads_every_form_of_baggage(case: &CaseContext) -> Checked {
    check_forms(case, vectors::baggage()).await
}

async fn survives_hostile_headers_of_a_context(case: &CaseContext) -> Checked {
    check_forms(case, vectors::hostile()).await
}

/// Three topics: for messages of the foreign producer, for answers that a handler publishes, and
/// for messages that it forwards.
struct Route {
    driver: std::sync::Arc<dyn Driver>,
    broker: Broker,
    source: Topic,
    published: String,
    forwarded: String,
}

/// Sends each form below the telemetry, handles it, and checks the context of the handler and the
/// messages that it sent.
async fn check_forms(case: &CaseContext, vectors: Vec<Vector>) -> Checked {
    let driver = case.driver().await?;
    let route = Route {
        broker: case.traced(driver.clone()),
        driver,
        source: Topic::new(&case.topic)?,
        published: case.topic("published"),
        forwarded: case.topic("forwarded"),
    };
    let subscribe = async |topic: &str| route.broker.subscribe(case.group_on(topic, "g").prefetch(256)).await;
    let mut source = subscribe(&case.topic).await?;
    let mut onward = [subscribe(&route.published).await?, subscribe(&route.forwarded).await?];
    route.driver.declare(&route.source).await?;
    let mut bad_parents = 0;
    for (round, vectors) in vectors.chunks(AT_A_TIME).enumerate() {
        let arriving = route.send(case, vectors, round).await?;
        for _ in 0..arriving {
            let vector = route.handle(case.next(&mut source).await?, vectors).await?;
            bad_parents += u64::from(vector.has_bad_parent());
        }
        for deliveries in &mut onward {
            check_onward(case, deliveries, vectors, arriving).await?;
        }
    }
    let counted =
        case.measurements.points(metric::CONTEXT_REJECTED.name, (attribute::CONTEXT_HEADER, header::TRACEPARENT))?;
    check_eq!(total(&counted), bad_parents, "how many parents are counted that could not be used");
    case.nothing_comes(&mut source).await
}

impl Route {
    /// Sends the messages of foreign producers, and returns the number that the broker accepted.
    async fn send(&self, case: &CaseContext, vectors: &[Vector], round: usize) -> Checked<usize> {
        let sends = vectors.iter().enumerate().map(|(index, vector)| {
            let headers = vector.headers.iter().map(|(name, value)| (name.as_str(), value)).collect();
            let payload = Some(format!("{round}/{index}").into());
            self.driver.enqueue(&self.source, Outbound { payload, headers, ..Outbound::default() })
        });
        let sends: Vec<_> = sends.collect();
        let mut taken = 0;
        for (sent, vector) in sends.into_iter().zip(vectors) {
            match case.within("an answer to the publish", sent).await? {
                Ok(_) => taken += 1,
                Err(error) => check_refusal(case, vector, &error)?,
            }
        }
        Ok(taken)
    }

    /// Checks the context that was read, answers and forwards in the handler, and returns the form
    /// of the message.
    async fn handle<'a>(&self, delivery: Delivery, vectors: &'a [Vector]) -> Checked<&'a Vector> {
        let form = vector_of(delivery.message(), vectors)?;
        let vector = form.clone();
        let mut seen = read(&delivery.creation_context());
        let state = std::mem::take(&mut seen.state);
        check_eq!(vector.settled(&state), vector.settled(&vector.read.state), "the list read of {}", vector.what);
        check_eq!(seen, Read { state: String::new(), ..vector.read.clone() }, "what is read of {}", vector.what);
        let broker = self.broker.clone();
        let (published, forwarded) = (self.published.clone(), self.forwarded.clone());
        let handler = async move |message: Received| -> Result<(), HandlerError> {
            check_current(&vector)?;
            let answer = Message::new(message.payload().clone()).key("one");
            broker.publish(&published, answer).await?;
            broker.forward(&forwarded, Message::from(&message)).await?;
            Ok(())
        };
        let processed = delivery.process(handler).await?;
        processed.error.map_or(Ok(form), |error| Err(Failure::new(error.to_string())))
    }
}

/// Checks the reason for a refusal. Only a text-only broker may refuse values that are not plain
/// text, and only large headers may be too large.
fn check_refusal(case: &CaseContext, vector: &Vector, error: &Error) -> Checked {
    let plain = vector.headers.iter().all(|(_, value)| is_plain_text(value));
    let bytes: usize = vector.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let reason = match error.kind() {
        ErrorKind::InvalidMessage => !plain && case.capabilities.header_values == HeaderValues::Text,
        ErrorKind::TooLarge => bytes > CARRIED,
        _ => false,
    };
    check!(reason, "a context with {} is carried: {error}", vector.what);
    check_eq!(error.publish_outcome(), PublishOutcome::NotSent, "the outcome of {}", vector.what);
    Ok(())
}

/// Returns `true` if any carrier of text can carry the value unchanged.
fn is_plain_text(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| text.trim() == text && !text.chars().any(char::is_control))
}

fn vector_of<'a>(message: &Received, vectors: &'a [Vector]) -> Checked<&'a Vector> {
    let payload = text(message.payload());
    let index = payload.rsplit('/').next().and_then(|index| index.parse::<usize>().ok());
    let vector = index.and_then(|index| vectors.get(index));
    vector.ok_or_else(|| Failure::new(format!("a payload that was sent: received {payload:?}")))
}

fn read(context: &Context) -> Read {
    let mut state = String::new();
    w3c::encode_context(context, |name, value| {
        if name == header::TRACESTATE {
            state = text(value);
        }
    });
    Read::of(context, &state)
}

/// Checks that the handler works in the trace of the sender, or in a new one, and has the sender's
/// baggage.
fn check_current(vector: &Vector) -> Checked {
    let current = Context::current();
    let span = current.span().span_context().clone();
    check!(span.is_valid(), "the handler of {} works within a span", vector.what);
    check_eq!(span.trace_id() == sent_trace()?, vector.read.parent.is_some(), "whether {} continues", vector.what);
    check_eq!(read(&current).baggage, vector.read.baggage, "the baggage in the handler of {}", vector.what);
    Ok(())
}

/// Checks that each message that the handler has sent carries one context, in the W3C form.
async fn check_onward(case: &CaseContext, deliveries: &mut Deliveries, vectors: &[Vector], count: usize) -> Checked {
    for _ in 0..count {
        let delivery = case.next(deliveries).await?;
        let message = delivery.message();
        let vector = vector_of(message, vectors)?;
        let (what, forwarded) = (&vector.what, message.topic().ends_with(".forwarded"));
        let headers = message.headers();
        let value = |name: &str| Some(text(headers.get(name).unwrap_or_default())).filter(|value| !value.is_empty());
        for name in [header::TRACEPARENT, header::TRACESTATE, header::BAGGAGE] {
            check_one(headers, name).map_err(|failure| failure.during(what))?;
        }
        let state = value(header::TRACESTATE).unwrap_or_default();
        check_eq!(vector.settled(&state), vector.settled(&vector.read.state), "the list sent on for {what}");
        let read = read(&delivery.creation_context());
        check_eq!(read.baggage, vector.read.baggage, "the baggage sent on for {what}");
        match &vector.read.parent {
            Some(parent) if forwarded => {
                check_eq!(value(header::TRACEPARENT).as_ref(), Some(parent), "the parent of {what}, forwarded")
            }
            parent => check_parent(value(header::TRACEPARENT), parent.as_deref(), what)?,
        }
        delivery.ack().await?;
    }
    Ok(())
}

/// Checks that a header is either missing, or present once, with its name in lower case and not
/// empty.
fn check_one(headers: &Headers, name: &str) -> Checked {
    let written: Vec<(&str, &[u8])> =
        headers.iter().filter(|(written, _)| written.eq_ignore_ascii_case(name)).collect();
    check!(written.len() <= 1, "the header {name} is written once: {written:?}");
    for (written, value) in written {
        check_eq!(written, name, "the name of a header");
        check!(!value.is_empty() && value.iter().all(|byte| matches!(byte, 0x20..=0x7e)), "{name} is plain text");
    }
    Ok(())
}

/// Checks that the parent is a new span, in the sender's trace and with its flags, or in a new
/// trace.
fn check_parent(value: Option<String>, sent: Option<&str>, what: &str) -> Checked {
    let value = value.unwrap_or_default();
    let parent = TraceParent::parse(value.as_bytes());
    let parent = parent.map_err(|error| Failure::new(format!("the parent of {what} is valid: {value:?}, {error}")))?;
    check!(parent.span_id().to_string() != SPAN, "the parent of {what} is a new span");
    check_eq!(parent.trace_id() == sent_trace()?, sent.is_some(), "whether what is published for {what} continues");
    if let Some(flags) = sent.and_then(|sent| sent.get(53..)) {
        check_eq!(&value[53..], flags, "the flags of what is published for {what}");
    }
    Ok(())
}

fn sent_trace() -> Checked<TraceId> {
    TraceId::from_hex(TRACE).map_err(|error| Failure::new(error.to_string()))
}

async fn continues_the_trace_in_all_that_a_handler_publishes(case: &CaseContext) -> Checked {
    let (driver, onward) = (case.driver().await?, case.topic("onward"));
    let broker = case.traced(driver.clone());
    let mut source = broker.subscribe(case.group("g")).await?;
    let mut deliveries = broker.subscribe(case.group_on(&onward, "g")).await?;
    let topic = Topic::new(&case.topic)?;
    driver.declare(&topic).await?;
    let good = format!("00-{TRACE}-{SPAN}-01");
    let bad = format!("00-{}-{SPAN}-01", "0".repeat(TRACE.len()));
    for (parent, continued) in [(Some(good), true), (None, false), (Some(bad), false)] {
        let headers = parent.iter().map(|parent| (header::TRACEPARENT, parent)).collect();
        driver.enqueue(&topic, Outbound { headers, ..Outbound::new("x") }).await?;
        let (publisher, to) = (broker.clone(), onward.clone());
        let handler = async move |_: Received| -> Result<(), HandlerError> {
            for _ in 0..3 {
                publisher.publish(&to, Message::new("y").key("one")).await?;
            }
            Ok(())
        };
        let processed = case.next(&mut source).await?.process(handler).await?;
        check!(processed.error.is_none(), "the handler succeeds: {:?}", processed.error);
        let mut spans = Vec::new();
        for _ in 0..3 {
            let delivery = case.next(&mut deliveries).await?;
            spans.push(delivery.creation_context().span().span_context().clone());
            delivery.ack().await?;
        }
        let ids: std::collections::HashSet<_> = spans.iter().map(|span| span.span_id()).collect();
        check_eq!(ids.len(), 3, "the number of different parents");
        let traces: std::collections::HashSet<_> = spans.iter().map(|span| span.trace_id()).collect();
        check_eq!(traces.len(), 1, "the number of traces");
        check_eq!(traces.contains(&sent_trace()?), continued, "whether the sender's trace goes on");
    }
    Ok(())
}
