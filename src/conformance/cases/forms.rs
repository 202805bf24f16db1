//! Contexts in every form that foreign producers write them, through the broker: what is read of each, and what is written for it.

use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt, TraceId};

use super::super::failure::{Checked, Failure, check, check_eq};
use super::super::measurements::total;
use super::super::vectors::{self, Read, SPAN, TRACE, Vector};
use super::super::world::{World, text};
use crate::address::Topic;
use crate::broker::{Broker, TracedBroker};
use crate::capability::HeaderValues;
use crate::consumer::Deliveries;
use crate::delivery::Delivery;
use crate::driver::{Driver, Outbound};
use crate::error::ErrorKind;
use crate::handler::HandlerError;
use crate::headers::Headers;
use crate::message::{Message, PublishOutcome};
use crate::metrics;
use crate::received::Received;
use crate::w3c::{self, BAGGAGE, TRACEPARENT, TRACESTATE, TraceParent};

super::super::case::cases! { Propagation:
    reads_every_form_of_traceparent []
        "A parent in any form that the W3C allows is continued, in any other the trace begins anew; what is written is in one form.";
    reads_every_form_of_tracestate []
        "A list in any form that the W3C allows travels on in one form, any other is dropped and the trace is continued.";
    reads_every_form_of_baggage []
        "Baggage in any form that the W3C allows reaches the handler and travels on, what is malformed in it is dropped alone.";
    survives_hostile_headers_of_a_context []
        "Huge, binary and forged headers of a context are delivered and do nothing, or are refused and never arrive.";
    continues_the_trace_in_all_that_a_handler_publishes []
        "What a handler publishes is in one trace, each message with a parent of its own, the received one or a new one.";
}

/// How many messages are under way at a time: fewer than any broker buffers.
const AT_A_TIME: usize = 32;

/// What every broker carries in the headers of a message, in bytes; beyond, it may refuse a message as too large.
const CARRIED: usize = 64 * 1024;

async fn reads_every_form_of_traceparent(world: &World) -> Checked {
    check_forms(world, vectors::traceparents()).await
}

async fn reads_every_form_of_tracestate(world: &World) -> Checked {
    check_forms(world, vectors::tracestates()).await
}

async fn reads_every_form_of_baggage(world: &World) -> Checked {
    check_forms(world, vectors::baggage()).await
}

async fn survives_hostile_headers_of_a_context(world: &World) -> Checked {
    check_forms(world, vectors::hostile()).await
}

/// Three topics: what the foreign producer sends, what a handler publishes in answer, and what it forwards.
struct Route {
    driver: std::sync::Arc<dyn Driver>,
    broker: Broker,
    source: Topic,
    published: String,
    forwarded: String,
}

/// Sends each form below the telemetry, handles it, and looks at what the handler was given and at what came of what it sent.
async fn check_forms(world: &World, vectors: Vec<Vector>) -> Checked {
    let driver = world.driver().await?;
    let route = Route {
        broker: world.traced(driver.clone()),
        driver,
        source: Topic::new(&world.topic)?,
        published: world.topic("published"),
        forwarded: world.topic("forwarded"),
    };
    let subscribe = async |topic: &str| route.broker.subscribe(world.group_on(topic, "g").prefetch(256)).await;
    let mut source = subscribe(&world.topic).await?;
    let mut onward = [subscribe(&route.published).await?, subscribe(&route.forwarded).await?];
    route.driver.declare(&route.source).await?;
    let mut bad_parents = 0;
    for (round, vectors) in vectors.chunks(AT_A_TIME).enumerate() {
        let arriving = route.send(world, vectors, round).await?;
        for _ in 0..arriving {
            let vector = route.handle(world.next(&mut source).await?, vectors).await?;
            bad_parents += u64::from(vector.has_bad_parent());
        }
        for deliveries in &mut onward {
            check_onward(world, deliveries, vectors, arriving).await?;
        }
    }
    let counted = world.measurements.points(metrics::CONTEXT_REJECTED, (metrics::CONTEXT_HEADER, TRACEPARENT))?;
    check_eq!(total(&counted), bad_parents, "how many parents are counted that could not be used");
    world.nothing_comes(&mut source).await
}

impl Route {
    /// Sends what foreign producers write and returns how many of the messages the broker took.
    async fn send(&self, world: &World, vectors: &[Vector], round: usize) -> Checked<usize> {
        let sends = vectors.iter().enumerate().map(|(index, vector)| {
            let headers = vector.headers.iter().map(|(name, value)| (name.as_str(), value)).collect();
            let payload = Some(format!("{round}/{index}").into());
            self.driver.publish(&self.source, Outbound { payload, headers, ..Outbound::default() })
        });
        let sends: Vec<_> = sends.collect();
        let mut taken = 0;
        for (sent, vector) in sends.into_iter().zip(vectors) {
            match world.within("an answer to the publish", sent).await? {
                Ok(_) => taken += 1,
                Err(error) => check_refusal(world, vector, &error)?,
            }
        }
        Ok(taken)
    }

    /// Looks at what was read, has the handler answer and forward, and returns which form it was.
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

/// Only a broker of texts may refuse what is no plain text, and only what is large may be too large.
fn check_refusal(world: &World, vector: &Vector, error: &crate::Error) -> Checked {
    let plain = vector.headers.iter().all(|(_, value)| is_plain_text(value));
    let bytes: usize = vector.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let reason = match error.kind() {
        ErrorKind::InvalidMessage => !plain && world.capabilities.header_values == HeaderValues::Text,
        ErrorKind::TooLarge => bytes > CARRIED,
        _ => false,
    };
    check!(reason, "a context with {} is carried: {error}", vector.what);
    check_eq!(error.publish_outcome(), PublishOutcome::NotSent, "the outcome of {}", vector.what);
    Ok(())
}

/// Whether any carrier of texts can carry it as it is.
fn is_plain_text(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| text.trim() == text && !text.chars().any(char::is_control))
}

fn vector_of<'a>(message: &Received, vectors: &'a [Vector]) -> Checked<&'a Vector> {
    let payload = text(message.payload());
    let index = payload.rsplit('/').next().and_then(|index| index.parse::<usize>().ok());
    let vector = index.and_then(|index| vectors.get(index));
    vector.ok_or_else(|| Failure::new(format!("a payload that was sent: there came {payload:?}")))
}

fn read(context: &Context) -> Read {
    let mut state = String::new();
    w3c::encode_context(context, |name, value| {
        if name == TRACESTATE {
            state = text(value);
        }
    });
    Read::of(context, &state)
}

/// The handler works in the trace of the sender, or in a new one, and has the sender's baggage.
fn check_current(vector: &Vector) -> Checked {
    let current = Context::current();
    let span = current.span().span_context().clone();
    check!(span.is_valid(), "the handler of {} works within a span", vector.what);
    check_eq!(span.trace_id() == sent_trace()?, vector.read.parent.is_some(), "whether {} continues", vector.what);
    check_eq!(read(&current).baggage, vector.read.baggage, "the baggage in the handler of {}", vector.what);
    Ok(())
}

/// What the handler has sent carries one context, in the form of the W3C.
async fn check_onward(world: &World, deliveries: &mut Deliveries, vectors: &[Vector], count: usize) -> Checked {
    for _ in 0..count {
        let delivery = world.next(deliveries).await?;
        let message = delivery.message();
        let vector = vector_of(message, vectors)?;
        let (what, forwarded) = (&vector.what, message.topic().ends_with(".forwarded"));
        let headers = message.headers();
        let value = |name: &str| Some(text(headers.get(name).unwrap_or_default())).filter(|value| !value.is_empty());
        for name in [TRACEPARENT, TRACESTATE, BAGGAGE] {
            check_one(headers, name).map_err(|failure| failure.during(what))?;
        }
        let state = value(TRACESTATE).unwrap_or_default();
        check_eq!(vector.settled(&state), vector.settled(&vector.read.state), "the list sent on for {what}");
        let read = read(&delivery.creation_context());
        check_eq!(read.baggage, vector.read.baggage, "the baggage sent on for {what}");
        match &vector.read.parent {
            Some(parent) if forwarded => {
                check_eq!(value(TRACEPARENT).as_ref(), Some(parent), "the parent of {what}, forwarded")
            }
            parent => check_parent(value(TRACEPARENT), parent.as_deref(), what)?,
        }
        delivery.ack().await?;
    }
    Ok(())
}

/// A header of that name stands there once, under its name in lower case, and not empty; or not at all.
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

/// The parent is a span of the handler's making, in the sender's trace and with its flags, or in a new trace.
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

async fn continues_the_trace_in_all_that_a_handler_publishes(world: &World) -> Checked {
    let (driver, onward) = (world.driver().await?, world.topic("onward"));
    let broker = world.traced(driver.clone());
    let mut source = broker.subscribe(world.group("g")).await?;
    let mut deliveries = broker.subscribe(world.group_on(&onward, "g")).await?;
    let topic = Topic::new(&world.topic)?;
    driver.declare(&topic).await?;
    let good = format!("00-{TRACE}-{SPAN}-01");
    let bad = format!("00-{}-{SPAN}-01", "0".repeat(TRACE.len()));
    for (parent, continued) in [(Some(good), true), (None, false), (Some(bad), false)] {
        let headers = parent.iter().map(|parent| (TRACEPARENT, parent)).collect();
        driver.publish(&topic, Outbound { headers, ..Outbound::new("x") }).await?;
        let (publisher, to) = (broker.clone(), onward.clone());
        let handler = async move |_: Received| -> Result<(), HandlerError> {
            for _ in 0..3 {
                publisher.publish(&to, Message::new("y").key("one")).await?;
            }
            Ok(())
        };
        let processed = world.next(&mut source).await?.process(handler).await?;
        check!(processed.error.is_none(), "the handler succeeds: {:?}", processed.error);
        let mut spans = Vec::new();
        for _ in 0..3 {
            let delivery = world.next(&mut deliveries).await?;
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
