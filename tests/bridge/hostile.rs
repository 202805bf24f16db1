//! Messages of a foreign producer, with contents that break other protocols.

use bytes::Bytes;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::TraceContextExt;
use tokio::sync::oneshot;
use traced_broker::driver::{DriverExt, Outbound};
use traced_broker::names::header;
use traced_broker::{Bridged, Delivery, Headers, Message, Topic, TracedBroker, TracedBrokerExt};

use crate::setup::{End, SOON, Setup, next, receive, text};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const BELLS: &str = "last";
/// The same key for all, so that they stay in order.
const KEY: Bytes = Bytes::from_static(b"k");

/// Bridges messages published by the source's driver, then one valid message, and returns all that
/// arrive.
async fn bridge(setup: &Setup, hostile: Vec<Outbound>) -> (Vec<Delivery>, Bridged) {
    let mut arrivals = setup.arrivals().await;
    let topic = Topic::new(&setup.near).unwrap();
    for message in hostile {
        let message = Outbound { key: Some(KEY), ..message };
        setup.from.get_ref().enqueue(&topic, message).await.unwrap();
    }
    setup.from.publish(&setup.near, Message::new(BELLS).key(KEY)).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let bridging = async {
        let bridge = setup.from.bridge(setup.bridged(), &setup.to, &setup.far).in_flight(1);
        bridge.run_until(stopped).await.unwrap()
    };
    let arriving = async {
        let mut arrived = Vec::new();
        loop {
            let delivery = next(&mut arrivals).await;
            let done = text(delivery.message()) == BELLS;
            arrived.push(delivery);
            if done {
                drop(stop);
                return arrived;
            }
        }
    };
    let (bridged, arrived) = tokio::join!(bridging, arriving);
    (arrived, bridged)
}

fn with(headers: &[(&str, &[u8])]) -> Outbound {
    Outbound { headers: headers.iter().copied().collect(), ..Outbound::new("hostile") }
}

/// Returns messages with line breaks, percent-encoded and plain, in every place where the formats
/// allow producer-defined text.
fn hostile() -> Vec<Outbound> {
    vec![
        with(&[("traceparent", PARENT.as_bytes()), ("baggage", b"a=1%0d%0aNats-Rollup:%20all,b=2;p=%0d%0aevil")]),
        with(&[
            ("traceparent", PARENT.as_bytes()),
            ("tracestate", b"rojo=1\r\nevil: 1"),
            ("baggage", b"a=\r\nb: 1,c=3"),
        ]),
        with(&[("traceparent", b"00-\r\n\r\nevil"), ("tracestate", b"rojo=1")]),
        with(&[("traceparent", PARENT.as_bytes()), ("traceparent", b"\xff\xfe"), ("tracestate", b"\xff")]),
        with(&[
            ("a\nb: c", b"1"),
            ("raw", b"\xff\0"),
            ("split", b"x\r\ny: z"),
            (" ", b" \t "),
            ("Nats-Rollup", b"all"),
            ("CC", b"elsewhere"),
        ]),
    ]
}

async fn what_is_hostile_is_harmless(from: End, to: End) {
    let setup = Setup::new(from, to).await;
    let (arrived, bridged) = bridge(&setup, hostile()).await;
    assert_eq!((arrived.len(), bridged.progress.copied, bridged.progress.failed), (6, 6, 0), "{bridged}");
    let contexts: Vec<_> = arrived.iter().map(Delivery::creation_context).collect();
    let trace = |at: usize| contexts[at].span().span_context().trace_id().to_string();
    for continued in [0, 1] {
        assert_eq!(trace(continued), PARENT[3..35], "message {continued}");
        assert_eq!(contexts[continued].span().span_context().span_id().to_string(), PARENT[36..52]);
    }
    for restarted in [2, 3] {
        assert_ne!(trace(restarted), PARENT[3..35], "message {restarted}");
        assert_ne!(trace(restarted), "0".repeat(32), "the bridge gives it a trace of its own");
    }
    let baggage = |at: usize, key: &str| contexts[at].baggage().get(key).map(|value| value.as_str().to_owned());
    assert_eq!(baggage(0, "a").as_deref(), Some("1\r\nNats-Rollup: all"), "a value like any other");
    assert_eq!(baggage(0, "b").as_deref(), Some("2"));
    assert_eq!(baggage(1, "c").as_deref(), Some("3"));
    assert_eq!(contexts[1].span().span_context().trace_state().header(), "");
    for delivery in arrived {
        check_clean(delivery.message().headers());
        delivery.ack().await.unwrap();
    }
    setup.close().await;
}

fn check_clean(headers: &Headers) {
    for name in ["traceparent", "tracestate", "baggage"] {
        assert!(headers.get_all(name).count() <= 1, "{name}");
        let value = headers.get(name).unwrap_or_default();
        assert!(
            value.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' '),
            "{name}: {:?}",
            value.escape_ascii().to_string()
        );
    }
    for name in ["evil", "b", "y", "Nats-Rollup", "CC"] {
        assert!(!headers.contains(name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_kafka_to_nats() {
    what_is_hostile_is_harmless(End::Kafka, End::Nats).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_redis_to_nats() {
    what_is_hostile_is_harmless(End::Redis, End::Nats).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_memory_to_rabbitmq() {
    what_is_hostile_is_harmless(End::Memory, End::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_memory_to_kafka() {
    what_is_hostile_is_harmless(End::Memory, End::Kafka).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_that_is_too_large_does_not_hold_up_the_others() {
    let setup = Setup::new(End::Memory, End::Nats).await;
    let limit = setup.to.capabilities().max_payload.unwrap();
    let large = Outbound::new(vec![b'x'; limit + 1]);
    let (arrived, bridged) = bridge(&setup, vec![large]).await;
    assert_eq!((arrived.len(), bridged.progress.copied, bridged.consumed.rejected), (1, 1, 1), "{bridged}");
    let dead = traced_broker::Subscription::new(format!("{}.dead", setup.near)).group("desk");
    let mut dead = setup.from.subscribe(dead).await.unwrap();
    let letter = receive(&mut dead).await;
    assert_eq!(letter.payload().len(), limit + 1);
    assert_eq!(letter.headers().get_str(header::DEAD_LETTER_ERROR_TYPE), Some("too_large"));
    for delivery in arrived {
        delivery.ack().await.unwrap();
    }
    setup.close().await;
}

/// Kafka supports messages without a payload, Redis does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tombstone_crosses_and_comes_back() {
    let there = Setup::new(End::Kafka, End::Redis).await;
    let tombstone = Outbound { payload: None, ..Outbound::default() };
    let (arrived, _) = bridge(&there, vec![tombstone]).await;
    let copy = arrived[0].message().clone();
    assert_eq!((copy.is_tombstone(), copy.headers().get_str(header::BRIDGE_TOMBSTONE)), (false, Some("true")));
    for delivery in arrived {
        delivery.ack().await.unwrap();
    }

    let back = Setup::new(End::Redis, End::Kafka).await;
    let message = Message::from(&copy);
    back.from.publish(&back.near, message).await.unwrap();
    let (arrived, _) = tokio::time::timeout(SOON, bridge(&back, Vec::new())).await.unwrap();
    let again = arrived.iter().find(|delivery| text(delivery.message()) != BELLS).unwrap().message().clone();
    assert!(again.is_tombstone() && !again.headers().contains(header::BRIDGE_TOMBSTONE));
    assert_eq!(again.key(), Some(&KEY));
    for delivery in arrived {
        delivery.ack().await.unwrap();
    }
    there.close().await;
    back.close().await;
}
