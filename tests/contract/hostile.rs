//! What producers that are not ours may write where context is expected.

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use traced_broker::capability::HeaderValues;
use traced_broker::driver::{Driver, Outbound};
use traced_broker::{ErrorKind, Headers, PublishOutcome, Topic, TracedBroker};

use super::World;
use super::world::{next, nothing_comes};

const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

type Pairs = Vec<(&'static str, Vec<u8>)>;

/// Sets of headers, and whether each holds a context that can be trusted.
fn cases() -> Vec<(Pairs, bool)> {
    let parent = |value: &str| vec![("traceparent", value.as_bytes().to_vec())];
    let long = "a".repeat(16 * 1024);
    vec![
        (parent(GOOD), true),
        (vec![("Traceparent", GOOD.into())], true),
        (vec![("TRACEPARENT", GOOD.into())], true),
        (vec![("traceparent", GOOD.into()), ("traceparent", GOOD.into())], true),
        (vec![("traceparent", GOOD.into()), ("traceparent", GOOD.replace("01", "00").into())], false),
        (vec![("traceparent", GOOD.into()), ("Traceparent", b"garbage".to_vec())], false),
        (parent(""), false),
        (parent(&GOOD[..54]), false),
        (parent(&format!("{GOOD}0")), false),
        (parent(&format!("{GOOD}-")), false),
        (parent(&GOOD.to_uppercase()), false),
        (parent("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), false),
        (parent("00-00000000000000000000000000000000-00f067aa0ba902b7-01"), false),
        (parent("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"), false),
        (parent("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later"), true),
        (parent(&long), false),
        (vec![("traceparent", b"\xff\xfe0\x000\x00-\x00".to_vec())], false),
        (vec![("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736\0-00f067aa0ba902b7-01".to_vec())], false),
        (vec![("traceparent", b"00-4bf92f35\r\nx: y-00f067aa0ba902b7-01".to_vec())], false),
        (vec![("traceparent", GOOD.into()), ("tracestate", b"a=1\r\nx: y".to_vec())], true),
        (vec![("traceparent", GOOD.into()), ("tracestate", long.clone().into_bytes())], true),
        (vec![("traceparent", GOOD.into()), ("baggage", b"k=%0d%0ax,=,;;,a=b=c;%00".to_vec())], true),
        (vec![("traceparent", GOOD.into()), ("baggage", b"\xc0\xaf=\xff".to_vec())], true),
    ]
}

/// Each message is delivered, with the context it holds if that can be trusted, or is refused and never arrives.
pub(crate) async fn delivers_messages_with_hostile_context(world: &World) {
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g")).await.unwrap();
    let topic = Topic::new(&world.topic).unwrap();
    broker.get_ref().declare(&topic).await.unwrap();
    // An ambient span that must not be taken for the sender.
    let around = world.root("receiving loop");
    for (index, (pairs, trusted)) in cases().into_iter().enumerate() {
        let headers: Headers = pairs.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        let plain = pairs.iter().all(|(_, value)| is_plain_text(value));
        let message = Outbound { payload: Some(index.to_string().into()), headers, ..Outbound::default() };
        if let Err(error) = broker.get_ref().publish(&topic, message).await {
            assert!(!plain || broker.capabilities().header_values == HeaderValues::Text, "case {index}: {error}");
            assert!(matches!(error.kind(), ErrorKind::InvalidMessage | ErrorKind::TooLarge), "case {index}: {error}");
            assert_eq!(error.publish_outcome(), PublishOutcome::NotSent);
            continue;
        }
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.message().payload(), &index.to_string());
        let creation = delivery.creation_context();
        assert_eq!(creation.span().span_context().is_valid(), trusted, "case {index}: {pairs:?}");
        let work = delivery.process(|_| async {
            let current = Context::current().span().span_context().clone();
            assert!(current.is_valid());
            Ok(())
        });
        let processed = opentelemetry::context::FutureExt::with_context(work, around.clone()).await.unwrap();
        assert!(processed.error.is_none(), "case {index}");
    }
    nothing_comes(&mut deliveries).await;
    let around = around.span().span_context().trace_id();
    assert!(world.spans_named(&world.process_name()).iter().all(|span| span.span_context.trace_id() != around));
    broker.close().await.unwrap();
}

fn is_plain_text(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| !text.chars().any(char::is_control))
}
