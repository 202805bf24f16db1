//! Contexts that others wrote: in any case, twice, as garbage, with poison in them; and the form in which ours lie on the wire.

use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{SpanId, TraceContextExt};
use opentelemetry::{Context, KeyValue};

use super::super::super::failure::{Checked, Failure, check, check_eq};
use super::super::super::foreign::{Foreign, TRACEPARENT, context};
use super::super::super::measurements::total;
use super::super::super::spans::{check_begins_a_trace, check_child, check_linked};
use super::super::super::world::{World, text};
use crate::broker::TracedBroker;
use crate::driver::{Disposition, Inbound, Source};
use crate::message::Message;
use crate::metrics::CONTEXT_REJECTED;
use crate::received::Received;

super::super::super::case::cases! { Trace:
    b22_a_garbage_header_costs_the_context_and_nothing_else []
        "A message whose context is garbage is delivered, counted, and begins a trace of its own; the next one is as if nothing had been.";
    b23_a_header_is_found_in_any_case []
        "The three headers are found whatever the case of their names.";
    b25_doubled_headers_are_read_as_documented []
        "Equal doubles of a context are one, different ones are none; doubled lists are joined in order.";
    b26_contexts_lie_on_the_wire_as_text_under_lower_case_names []
        "What a driver reads is a traceparent of 55 characters under its name in lower case, and nothing else but text.";
    b36_hostile_baggage_does_not_reach_the_next_hop []
        "Baggage that hides line breaks goes on, published or forwarded, with the breaks as hidden as they came: no header comes out of it.";
}

/// What is no context, by the name of the payload.
const GARBAGE: &[(&str, &[u8])] = &[
    ("empty", b""),
    ("cut off", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"),
    ("too long", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-"),
    ("upper case", b"00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01"),
    ("no trace", b"00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
    ("no span", b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"),
    ("version", b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("words", b"not a context at all"),
    ("not UTF-8", b"\xff\xfe\xc0\xaf"),
    ("NUL", b"00-4bf92f3577b34da6a3ce929d0e0e4736\0-00f067aa0ba902b7-01"),
    ("line break", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nx: y"),
];

async fn b22_a_garbage_header_costs_the_context_and_nothing_else(world: &World) -> Checked {
    let driver = world.driver().await?;
    let broker = world.traced(driver.clone());
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let foreign = Foreign::on(world, driver).await?;
    let mut spoilt = 0;
    for (name, value) in GARBAGE {
        if !foreign.publish(name, &[("traceparent", value), ("tracestate", value), ("baggage", value)]).await? {
            continue;
        }
        spoilt += 1;
        check!(foreign.publish("good", &[("traceparent", TRACEPARENT.as_bytes())]).await?, "plain text is carried");
        for payload in [name, "good"] {
            let handler = |message: Received| async move {
                check_eq!(text(message.payload()), payload, "the message that is handled");
                Ok(())
            };
            world.handle(&mut deliveries, handler).await?;
        }
    }
    broker.close().await?;
    let processes = world.spans.named(&world.process_name());
    check_eq!(processes.len(), 2 * spoilt, "the number of process spans");
    let rejected = world.measurements.points(CONTEXT_REJECTED, ("messaging.system", broker.system()))?;
    check!(total(&rejected) >= spoilt as u64, "each garbage header is counted: {} of {spoilt}", total(&rejected));
    for pair in processes.chunks(2) {
        check_begins_a_trace(&pair[0], [&context()])?;
        check_eq!(pair[0].links.len(), 0, "the number of links of a message without a context");
        check_child(&pair[1], &context())?;
    }
    Ok(())
}

async fn b23_a_header_is_found_in_any_case(world: &World) -> Checked {
    let driver = world.driver().await?;
    let broker = world.traced(driver.clone());
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let foreign = Foreign::on(world, driver).await?;
    let names = [
        ["traceparent", "tracestate", "baggage"],
        ["Traceparent", "Tracestate", "Baggage"],
        ["TRACEPARENT", "TRACESTATE", "BAGGAGE"],
        ["traceParent", "traceState", "bAGGAGE"],
    ];
    for [parent, state, baggage] in names {
        let pairs: [(&str, &[u8]); 3] = [(parent, TRACEPARENT.as_bytes()), (state, b"a=1"), (baggage, b"k=v")];
        check!(foreign.publish(parent, &pairs).await?, "plain text is carried");
        let handler = |_| async move {
            let current = Context::current();
            let value = current.baggage().get("k").map(ToString::to_string);
            check_eq!(value.as_deref(), Some("v"), "what the header {baggage} says");
            let states = current.span().span_context().trace_state().header();
            check_eq!(states, "a=1", "what the header {state} says");
            Ok(())
        };
        world.handle(&mut deliveries, handler).await?;
    }
    broker.close().await?;
    let processes = world.spans.named(&world.process_name());
    check_eq!(processes.len(), names.len(), "the number of process spans");
    for process in &processes {
        check_child(process, &context())?;
        check_linked(process, &context())?;
    }
    Ok(())
}

/// Headers, whether their context is trusted, and what their trace state is.
type Doubled<'a> = (&'a [(&'a str, &'a [u8])], bool, &'a str);

async fn b25_doubled_headers_are_read_as_documented(world: &World) -> Checked {
    let other = TRACEPARENT.replace("00f067aa0ba902b7", "00f067aa0ba902b8");
    let (good, other) = (("traceparent", TRACEPARENT.as_bytes()), ("traceparent", other.as_bytes()));
    let sets: [Doubled<'_>; 5] = [
        (&[good, good], true, ""),
        (&[good, ("Traceparent", good.1)], true, ""),
        (&[good, other], false, ""),
        (&[other, good], false, ""),
        (
            &[good, ("tracestate", b"a=1"), ("tracestate", b"b=2"), ("baggage", b"k=v"), ("baggage", b"l=w")],
            true,
            "a=1,b=2",
        ),
    ];
    let driver = world.driver().await?;
    let broker = world.traced(driver.clone());
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let foreign = Foreign::on(world, driver).await?;
    for (index, (pairs, _, state)) in sets.iter().enumerate() {
        check!(foreign.publish(&index.to_string(), pairs).await?, "plain text is carried");
        let handler = |_| async move {
            let current = Context::current();
            let states = current.span().span_context().trace_state().header();
            check_eq!(states, *state, "the trace state of set {index}");
            check_eq!(current.baggage().len(), state.len().min(2), "how much baggage set {index} holds");
            Ok(())
        };
        world.handle(&mut deliveries, handler).await?;
    }
    broker.close().await?;
    let processes = world.spans.named(&world.process_name());
    check_eq!(processes.len(), sets.len(), "the number of process spans");
    for (index, (process, (_, trusted, _))) in processes.iter().zip(&sets).enumerate() {
        if *trusted {
            check_child(process, &context()).map_err(|failure| failure.during(&format!("set {index}")))?;
        } else {
            check_eq!(process.parent_span_id, SpanId::INVALID, "the parent of set {index}");
            check_eq!(process.links.len(), 0, "the number of links of set {index}");
        }
    }
    Ok(())
}

async fn b26_contexts_lie_on_the_wire_as_text_under_lower_case_names(world: &World) -> Checked {
    let driver = world.driver().await?;
    let mut source = driver.subscribe(&world.group("g")).await?;
    let broker = world.broker().await?;
    let context = Context::current_with_value(()).with_baggage([KeyValue::new("city", "Köln")]);
    let root = world.root("request").span().span_context().clone();
    let context = context.with_remote_span_context(root);
    broker.publish(&world.topic, Message::new("x").context(context)).await?;
    let inbound = next(world, &mut source).await?;
    let ours = |name: &&str| ["traceparent", "baggage"].iter().any(|ours| ours.eq_ignore_ascii_case(name));
    let mut names: Vec<&str> = inbound.headers.iter().map(|(name, _)| name).filter(ours).collect();
    names.sort_unstable();
    check_eq!(names, ["baggage", "traceparent"], "the names on the wire");
    let parent = inbound.headers.get("traceparent").map(text).unwrap_or_default();
    let send = world.spans.one(&world.send_name())?.span_context;
    let due = format!("00-{}-{}-01", send.trace_id(), send.span_id());
    check_eq!((parent.len(), &parent), (55, &due), "the length of the traceparent on the wire, and itself");
    let baggage = inbound.headers.get("baggage").map(text).unwrap_or_default();
    check_eq!(baggage, "city=K%C3%B6ln", "the baggage on the wire");
    inbound.handle.settle(Disposition::Ack).await?;
    Ok(())
}

async fn next(world: &World, source: &mut Source) -> Checked<Inbound> {
    let next = std::future::poll_fn(|cx| source.poll_next(cx));
    let next = world.within("the next message of the driver", next).await?;
    let next = next.ok_or_else(|| Failure::new("the source goes on until the driver is closed: it ended"))?;
    Ok(next?)
}

async fn b36_hostile_baggage_does_not_reach_the_next_hop(world: &World) -> Checked {
    const HOSTILE: &[u8] = b"fine=1;p=2,user=eve%0d%0aX-Admin:%201,eve%0d%0a=2,meta=3;q=%0d%0aX-Admin:%201,last=4";
    let driver = world.driver().await?;
    let broker = world.traced(driver.clone());
    let onward = world.topic("onward");
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let mut last = broker.subscribe(world.group_on(&onward, "g")).await?;
    let foreign = Foreign::on(world, driver).await?;
    let pairs: [(&str, &[u8]); 2] = [("traceparent", TRACEPARENT.as_bytes()), ("baggage", HOSTILE)];
    check!(foreign.publish("hostile", &pairs).await?, "plain text is carried");
    let (publisher, to) = (broker.clone(), onward.clone());
    let handler = |message: Received| async move {
        check_fine(&Context::current())?;
        publisher.publish(&to, Message::new("published").key("one")).await?;
        publisher.forward(&to, Message::from(&message)).await?;
        Ok(())
    };
    world.handle(&mut deliveries, handler).await?;
    for _ in 0..2 {
        let handler = |message: Received| async move {
            check_fine(&Context::current())?;
            check!(!message.headers().contains("x-admin"), "no header comes out of the baggage");
            for value in message.headers().get_all("baggage") {
                let hides = value.iter().any(u8::is_ascii_control);
                check!(!hides, "the baggage of the next message holds no line break: {:?}", text(value));
            }
            Ok(())
        };
        world.handle(&mut last, handler).await?;
    }
    Ok(())
}

/// What is fine is there.
fn check_fine(context: &Context) -> Checked {
    for (name, due) in [("fine", "1"), ("last", "4")] {
        let seen = context.baggage().get(name).map(ToString::to_string);
        check_eq!(seen.as_deref(), Some(due), "the baggage {name}");
    }
    Ok(())
}
