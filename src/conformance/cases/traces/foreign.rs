//! Contexts from foreign producers: in any letter case, doubled, garbage, hostile. Also the form of
//! our own contexts on the wire.

use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{SpanId, TraceContextExt};
use opentelemetry::{Context, KeyValue};

use crate::broker::TracedBroker;
use crate::conformance::case_context::{CaseContext, text};
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::conformance::foreign::{Foreign, TRACEPARENT, context};
use crate::conformance::measurements::total;
use crate::conformance::spans::{check_begins_a_trace, check_child, check_linked};
use crate::driver::{Disposition, Inbound, Source};
use crate::message::{Message, Received};
use crate::names::metric;

crate::conformance::case::cases! { Trace:
    b22_a_garbage_header_costs_the_context_and_nothing_else []
        "A message whose context is garbage is delivered, counted, and begins its own trace; the next one is not affected.";
    b23_a_header_is_found_in_any_case []
        "The three headers are found whatever the letter case of their names.";
    b25_doubled_headers_are_read_as_documented []
        "Equal duplicates of a context count as one, different ones as none; duplicate lists are joined in order.";
    b26_contexts_lie_on_the_wire_as_text_under_lower_case_names []
        "A driver reads a traceparent of 55 characters under its name in lower case, and only text.";
    b36_hostile_baggage_does_not_reach_the_next_hop []
        "Baggage with escaped line breaks travels on, published or forwarded, with the breaks still escaped: no header is injected.";
}

/// Values that are not contexts, each with a payload that names it.
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

async fn b22_a_garbage_header_costs_the_context_and_nothing_else(case: &CaseContext) -> Checked {
    let driver = case.driver().await?;
    let broker = case.traced(driver.clone());
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let foreign = Foreign::on(case, driver).await?;
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
            case.handle(&mut deliveries, handler).await?;
        }
    }
    broker.close().await?;
    let processes = case.spans.named(&case.process_name());
    check_eq!(processes.len(), 2 * spoilt, "the number of process spans");
    let rejected = case.measurements.points(metric::CONTEXT_REJECTED.name, ("messaging.system", broker.system()))?;
    check!(total(&rejected) >= spoilt as u64, "each garbage header is counted: {} of {spoilt}", total(&rejected));
    for pair in processes.chunks(2) {
        check_begins_a_trace(&pair[0], [&context()])?;
        check_eq!(pair[0].links.len(), 0, "the number of links of a message without a context");
        check_child(&pair[1], &context())?;
    }
    Ok(())
}

async fn b23_a_header_is_found_in_any_case(case: &CaseContext) -> Checked {
    let driver = case.driver().await?;
    let broker = case.traced(driver.clone());
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let foreign = Foreign::on(case, driver).await?;
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
        case.handle(&mut deliveries, handler).await?;
    }
    broker.close().await?;
    let processes = case.spans.named(&case.process_name());
    check_eq!(processes.len(), names.len(), "the number of process spans");
    for process in &processes {
        check_child(process, &context())?;
        check_linked(process, &context())?;
    }
    Ok(())
}

/// Headers, a flag that is `true` if their context is trusted, and their trace state.
type Doubled<'a> = (&'a [(&'a str, &'a [u8])], bool, &'a str);

async fn b25_doubled_headers_are_read_as_documented(case: &CaseContext) -> Checked {
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
    let driver = case.driver().await?;
    let broker = case.traced(driver.clone());
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let foreign = Foreign::on(case, driver).await?;
    for (index, (pairs, _, state)) in sets.iter().enumerate() {
        check!(foreign.publish(&index.to_string(), pairs).await?, "plain text is carried");
        let handler = |_| async move {
            let current = Context::current();
            let states = current.span().span_context().trace_state().header();
            check_eq!(states, *state, "the trace state of set {index}");
            check_eq!(current.baggage().len(), state.len().min(2), "how much baggage set {index} holds");
            Ok(())
        };
        case.handle(&mut deliveries, handler).await?;
    }
    broker.close().await?;
    let processes = case.spans.named(&case.process_name());
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

async fn b26_contexts_lie_on_the_wire_as_text_under_lower_case_names(case: &CaseContext) -> Checked {
    let driver = case.driver().await?;
    let mut source = driver.subscribe(&case.group("g")).await?;
    let broker = case.broker().await?;
    let context = Context::current_with_value(()).with_baggage([KeyValue::new("city", "Köln")]);
    let root = case.root("request").span().span_context().clone();
    let context = context.with_remote_span_context(root);
    broker.publish(&case.topic, Message::new("x").context(context)).await?;
    let inbound = next(case, &mut source).await?;
    let ours = |name: &&str| ["traceparent", "baggage"].iter().any(|ours| ours.eq_ignore_ascii_case(name));
    let mut names: Vec<&str> = inbound.headers.iter().map(|(name, _)| name).filter(ours).collect();
    names.sort_unstable();
    check_eq!(names, ["baggage", "traceparent"], "the names on the wire");
    let parent = inbound.headers.get("traceparent").map(text).unwrap_or_default();
    let send = case.spans.one(&case.send_name())?.span_context;
    let due = format!("00-{}-{}-01", send.trace_id(), send.span_id());
    check_eq!((parent.len(), &parent), (55, &due), "the length of the traceparent on the wire, and itself");
    let baggage = inbound.headers.get("baggage").map(text).unwrap_or_default();
    check_eq!(baggage, "city=K%C3%B6ln", "the baggage on the wire");
    inbound.handle.settle(Disposition::Ack).await?;
    Ok(())
}

async fn next(case: &CaseContext, source: &mut Source) -> Checked<Inbound> {
    let next = std::future::poll_fn(|cx| source.poll_next(cx));
    let next = case.within("the next message of the driver", next).await?;
    let next = next.ok_or_else(|| Failure::new("the source goes on until the driver is closed: it ended"))?;
    Ok(next?)
}

async fn b36_hostile_baggage_does_not_reach_the_next_hop(case: &CaseContext) -> Checked {
    const HOSTILE: &[u8] = b"fine=1;p=2,user=eve%0d%0aX-Admin:%201,eve%0d%0a=2,meta=3;q=%0d%0aX-Admin:%201,last=4";
    let driver = case.driver().await?;
    let broker = case.traced(driver.clone());
    let onward = case.topic("onward");
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let mut last = broker.subscribe(case.group_on(&onward, "g")).await?;
    let foreign = Foreign::on(case, driver).await?;
    let pairs: [(&str, &[u8]); 2] = [("traceparent", TRACEPARENT.as_bytes()), ("baggage", HOSTILE)];
    check!(foreign.publish("hostile", &pairs).await?, "plain text is carried");
    let (publisher, to) = (broker.clone(), onward.clone());
    let handler = |message: Received| async move {
        check_fine(&Context::current())?;
        publisher.publish(&to, Message::new("published").key("one")).await?;
        publisher.forward(&to, Message::from(&message)).await?;
        Ok(())
    };
    case.handle(&mut deliveries, handler).await?;
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
        case.handle(&mut last, handler).await?;
    }
    Ok(())
}

/// Checks that the valid baggage is present.
fn check_fine(context: &Context) -> Checked {
    for (name, due) in [("fine", "1"), ("last", "4")] {
        let seen = context.baggage().get(name).map(ToString::to_string);
        check_eq!(seen.as_deref(), Some(due), "the baggage {name}");
    }
    Ok(())
}
