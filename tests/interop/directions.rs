//! The three directions of a message: to us, from us, and through us.

use crate::library::{Library, Measured, Tie};
use crate::program::Header;
use crate::setup::{OURS, PAYLOAD, SHOP, STORE, Setup};
use crate::support::Kind;
use crate::wire::is_of_a_trace;

const WORK: &str = "reserve stock";
/// The flags of a trace that begins on our side: sampled.
const OUR_FLAGS: &str = "01";

/// A foreign program sends; we receive.
pub(crate) async fn theirs_to_ours(library: &'static Library) {
    let setup = Setup::new(library).await;
    let topic = setup.topic("orders");
    let mut deliveries = setup.subscribe(&topic).await;
    let tap = setup.tap(&topic).await;
    setup.they_send(&topic).await;
    let message = setup.we_receive(&mut deliveries, None).await;
    assert_eq!(message.payload(), PAYLOAD);
    let headers = tap.trace_headers().await;
    drop(deliveries);

    let (evidence, sends) = (setup.end().await, &library.sends);
    let work = evidence.span(OURS, WORK);
    assert_eq!(evidence.chain(work), to_us(sends), "{}", evidence.picture());
    assert_eq!(work.attributes.text("tenant"), Some(tenant(sends)), "baggage");
    // The chain shows which of their spans this is.
    let sent = evidence.parent(evidence.span(OURS, "process orders"));
    if let Some(sent) = sent {
        evidence.check_headers(&headers, sends.headers, sent, library.language.flags());
        assert_eq!(evidence.linking(work, sent), ["process orders"], "{}", evidence.picture());
    } else {
        assert!(headers.is_empty(), "{headers:?}");
    }
    evidence.check(sends.traces(), sends.findings);
}

/// We send; a foreign program receives.
pub(crate) async fn ours_to_theirs(library: &'static Library) {
    let receives = library.receives.as_ref().expect("it receives");
    let setup = Setup::new(library).await;
    let topic = setup.topic("orders");
    let running = setup.they_receive(&topic).await;
    let tap = setup.tap(&topic).await;
    setup.we_send(&topic).await;
    let on_the_wire = tap.trace_headers().await;
    if let Tie::Fails(words) = receives.tie {
        let told = running.failure().await;
        assert!(told.contains(words), "{told}");
        return;
    }
    let received = running.received().await;
    assert_eq!(received.payload, PAYLOAD);

    let evidence = setup.end().await;
    let (sent, work) = (evidence.span(OURS, "send orders"), evidence.span(STORE, WORK));
    assert_eq!(evidence.chain(work), from_us(receives, "orders", &we_sent()), "{}", evidence.picture());
    assert_eq!(work.attributes.text("tenant").unwrap_or_default(), tenant(receives), "baggage");
    evidence.check_headers(&on_the_wire, &our_headers(library), sent, OUR_FLAGS);
    let seen = receives.rewritten.map_or(sent, |name| evidence.span(STORE, name));
    evidence.check_headers(&of_the_trace(received.headers), receives.headers, seen, OUR_FLAGS);
    let linking = evidence.linking(work, sent);
    match receives.tie {
        Tie::Link => assert_eq!(linking.len(), 1, "{linking:?}\n{}", evidence.picture()),
        Tie::Nothing => assert!(linking.is_empty(), "{linking:?}\n{}", evidence.picture()),
        // The findings include whether there is also a link.
        Tie::Child | Tie::Torn | Tie::Fails(_) => {}
    }
    evidence.check(receives.traces(), receives.findings);
}

/// A foreign program sends, we send on, another foreign program receives.
pub(crate) async fn theirs_to_ours_to_theirs(library: &'static Library) {
    let (sends, receives) = (&library.sends, library.receives.as_ref().expect("it receives"));
    let setup = Setup::new(library).await;
    let (topic, next_topic) = (setup.topic("orders"), setup.topic("shipments"));
    let mut deliveries = setup.subscribe(&topic).await;
    let running = setup.they_receive(&next_topic).await;
    setup.they_send(&topic).await;
    setup.we_receive(&mut deliveries, Some(&next_topic)).await;
    let received = running.received().await;
    assert_eq!(received.payload, PAYLOAD);
    drop(deliveries);

    let evidence = setup.end().await;
    let (sent, work) = (evidence.span(OURS, "send shipments"), evidence.span(STORE, WORK));
    let mut so_far = to_us(sends);
    // The next message is sent in the process span, not in the work's span.
    so_far.pop();
    so_far.push("ours: send shipments (producer)".to_owned());
    assert_eq!(evidence.chain(work), from_us(receives, "shipments", &so_far), "{}", evidence.picture());
    let seen = receives.rewritten.map_or(sent, |name| evidence.span(STORE, &name.replace("orders", "shipments")));
    evidence.check_headers(&of_the_trace(received.headers), receives.headers, seen, library.language.flags());
    let findings: Vec<_> = sends.findings.iter().chain(receives.findings).copied().collect();
    evidence.check(sends.traces() + receives.traces() - 1, &findings);
}

/// Returns the spans from the root down to our work.
fn to_us(sends: &Measured) -> Vec<String> {
    let theirs = sends.chain.iter().map(|span| format!("{SHOP}: {span}"));
    let ours = ["process orders (consumer)", "reserve stock (internal)"].map(|span| format!("{OURS}: {span}"));
    theirs.chain(ours).collect()
}

/// Returns the spans from the root down to their work; `so_far` are ours down to the send span.
fn from_us(receives: &Measured, topic: &str, so_far: &[String]) -> Vec<String> {
    let so_far = if receives.tie == Tie::Child { so_far } else { &[] };
    let theirs = receives.chain.iter().map(|span| format!("{STORE}: {}", span.replace("orders", topic)));
    so_far.iter().cloned().chain(theirs).collect()
}

fn we_sent() -> Vec<String> {
    ["place order (internal)", "send orders (producer)"].map(|span| format!("{OURS}: {span}")).to_vec()
}

/// Returns the baggage value that arrives.
fn tenant(measured: &Measured) -> &'static str {
    let travels = measured.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("baggage"));
    if travels && measured.keeps_baggage { "blue" } else { "" }
}

/// Returns the headers that we write.
fn our_headers(library: &Library) -> Vec<(&'static str, &'static str)> {
    let form = match library.broker {
        Kind::Kafka => "bytes",
        Kind::RabbitMq => "long string",
        Kind::Nats if library.is_canonical() => return vec![("Baggage", "text"), ("Traceparent", "text")],
        Kind::Nats => "text",
        Kind::Redis => "field",
        other => panic!("{other:?} is no broker"),
    };
    vec![("baggage", form), ("traceparent", form)]
}

fn of_the_trace(mut headers: Vec<Header>) -> Vec<Header> {
    headers.retain(|header| is_of_a_trace(&header.name));
    headers.sort_by(|a, b| a.name.cmp(&b.name));
    headers
}
