//! Message ids: what the server takes for a repetition.

use async_nats::jetstream::{self, stream};
use traced_broker::driver::{Driver, Outbound};
use traced_broker::{Receipt, Topic};

use crate::kit::{self, ack, assert_quiet, message, next, publish, subscribe, text, topic};

fn with_id(payload: &str, id: &str) -> Outbound {
    Outbound { id: Some(id.to_owned()), ..message(payload.to_owned()) }
}

async fn publish_with_id(nats: &impl Driver, topic: &Topic, payload: &str) -> Receipt {
    use traced_broker::driver::DriverExt;
    nats.enqueue(topic, with_id(payload, "A-1")).await.unwrap()
}

#[tokio::test]
async fn the_receipt_of_a_repetition_says_so() {
    let (nats, topic) = (kit::connect().await, topic("repeated"));
    nats.declare(&topic).await.unwrap();
    let (first, second) = (publish_with_id(&nats, &topic, "once").await, publish_with_id(&nats, &topic, "again").await);
    assert_eq!((first.duplicate, first.offset), (false, Some(1)));
    assert_eq!((second.duplicate, second.offset), (true, Some(1)));
    let mut source = subscribe(&nats, &topic, "workers").await;
    let inbound = next(&mut source).await;
    assert_eq!((text(&inbound), inbound.id.as_deref()), ("once", Some("A-1")));
    ack(inbound).await;
    assert_quiet(&mut source).await;
}

/// The server knows ids by their stream, and not by their topic.
#[tokio::test]
async fn an_id_counts_for_its_topic_in_a_stream_of_several() {
    let (nats, base) = (kit::connect().await, topic("several"));
    let wide = stream::Config {
        name: base.replace('.', "~"),
        subjects: vec![format!("{base}.>")],
        allow_message_schedules: true,
        allow_message_ttl: true,
        ..Default::default()
    };
    jetstream::new(kit::raw().await).create_stream(wide).await.unwrap();
    for name in ["created", "billed"] {
        let topic = Topic::new(&format!("{base}.{name}")).unwrap();
        nats.declare(&topic).await.unwrap();
        assert!(!publish_with_id(&nats, &topic, name).await.duplicate, "{name}");
        assert!(publish_with_id(&nats, &topic, name).await.duplicate, "{name}");
        publish(&nats, &topic, Outbound { is_copy: true, ..with_id("copy", "A-1") }).await.unwrap();
        let mut source = subscribe(&nats, &topic, name).await;
        for payload in [name, "copy"] {
            let inbound = next(&mut source).await;
            assert_eq!((text(&inbound), inbound.id.as_deref()), (payload, Some("A-1")));
            assert_eq!(inbound.headers.get_str("delayed-message-id"), None);
            ack(inbound).await;
        }
        assert_quiet(&mut source).await;
    }
}
