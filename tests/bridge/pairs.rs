//! Every ordered pair of the five brokers: one trace, and an unchanged message.

use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use tokio::sync::oneshot;
use traced_broker::names::attribute;
use traced_broker::{Message, Received, TracedBroker, TracedBrokerExt};

use crate::setup::{End, Setup, next};
use crate::traces::{attribute, id, linked};

macro_rules! pairs {
    ($($name:ident: $from:ident => $to:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                one_trace_from_end_to_end(End::$from, End::$to).await;
            }
        )*

        /// No pair is left out.
        #[test]
        fn there_are_all_of_them() {
            let pairs = [$((End::$from, End::$to)),*];
            let ends = [End::Memory, End::Kafka, End::RabbitMq, End::Nats, End::Redis];
            for from in ends {
                for to in ends {
                    let times = pairs.iter().filter(|pair| **pair == (from, to)).count();
                    assert_eq!(times, usize::from(from != to), "{from:?} to {to:?}");
                }
            }
        }
    };
}

pairs! {
    memory_to_kafka: Memory => Kafka,
    memory_to_rabbitmq: Memory => RabbitMq,
    memory_to_nats: Memory => Nats,
    memory_to_redis: Memory => Redis,
    kafka_to_memory: Kafka => Memory,
    kafka_to_rabbitmq: Kafka => RabbitMq,
    kafka_to_nats: Kafka => Nats,
    kafka_to_redis: Kafka => Redis,
    rabbitmq_to_memory: RabbitMq => Memory,
    rabbitmq_to_kafka: RabbitMq => Kafka,
    rabbitmq_to_nats: RabbitMq => Nats,
    rabbitmq_to_redis: RabbitMq => Redis,
    nats_to_memory: Nats => Memory,
    nats_to_kafka: Nats => Kafka,
    nats_to_rabbitmq: Nats => RabbitMq,
    nats_to_redis: Nats => Redis,
    redis_to_memory: Redis => Memory,
    redis_to_kafka: Redis => Kafka,
    redis_to_rabbitmq: Redis => RabbitMq,
    redis_to_nats: Redis => Nats,
}

async fn one_trace_from_end_to_end(from: End, to: End) {
    let setup = Setup::new(from, to).await;
    let mut arrivals = setup.arrivals().await;
    let (stop, stopped) = oneshot::channel::<()>();
    let bridging = async {
        let bridge = setup.from.bridge(setup.bridged(), &setup.to, &setup.far);
        bridge.run_until(stopped).await.unwrap()
    };
    let order = async {
        let root = setup.spans.root("POST /orders").with_baggage([KeyValue::new("tenant", "acme, inc")]);
        setup.from.publish(&setup.near, order(&root)).await.unwrap();
        let delivery = next(&mut arrivals).await;
        check_message(delivery.message(), to);
        let tracer = setup.spans.provider.tracer("application");
        let ship = |_| async move {
            assert_eq!(
                Context::current().baggage().get("tenant").map(ToString::to_string),
                Some("acme, inc".to_owned())
            );
            drop(tracer.start("ship"));
            Ok(())
        };
        delivery.process(ship).await.unwrap();
        root.span().end();
        drop(stop);
    };
    let (bridged, ()) = tokio::join!(bridging, order);
    setup.close().await;
    assert_eq!((bridged.progress.copied, bridged.progress.failed), (1, 0), "{bridged}");
    assert_eq!((bridged.consumed.handled, bridged.consumed.attempts()), (1, 1), "{bridged}");
    check_spans(&setup, from, to);
}

fn order(root: &Context) -> Message {
    let order = Message::json(&serde_json::json!({ "sku": "A-1" })).unwrap();
    order.key("customer-7").id("order-1").header("tenant", "acme").context(root.clone())
}

fn check_message(copy: &Received, to: End) {
    assert_eq!(&copy.payload()[..], br#"{"sku":"A-1"}"#);
    assert_eq!(copy.key().map(|key| &key[..]), Some(&b"customer-7"[..]));
    assert_eq!(copy.id(), Some("order-1"));
    for (name, value) in [("content-type", "application/json"), ("tenant", "acme")] {
        assert_eq!(copy.headers().get_all(name).collect::<Vec<_>>(), [value.as_bytes()], "{name} at {to:?}");
    }
    // The id appears once: in the broker's own field if it has one.
    let in_header = matches!(to, End::Kafka | End::Redis);
    assert_eq!(copy.headers().get_all("message-id").count(), usize::from(in_header), "at {to:?}");
    for name in ["traceparent", "baggage"] {
        assert_eq!(copy.headers().get_all(name).count(), 1, "{name} at {to:?}");
    }
}

fn check_spans(setup: &Setup, from: End, to: End) {
    let (near, far) = (&setup.near, &setup.far);
    let one = |name: &str| setup.spans.one(name);
    let (root, send) = (one("POST /orders"), one(&format!("send {near}")));
    let (bridge, copy) = (one(&format!("process {near}")), one(&format!("send {far}")));
    let (process, ship) = (one(&format!("process {far}")), one("ship"));
    setup.spans.assert_whole(1);
    let kinds = [&send, &bridge, &copy, &process].map(|span| span.span_kind.clone());
    assert_eq!(kinds, [SpanKind::Producer, SpanKind::Consumer, SpanKind::Client, SpanKind::Consumer]);
    let parents = [&send, &bridge, &copy, &process, &ship].map(|span| span.parent_span_id);
    assert_eq!(parents, [id(&root), id(&send), id(&bridge), id(&send), id(&process)]);
    assert_eq!(linked(&bridge), [id(&send)]);
    assert_eq!(linked(&copy), [id(&send)], "the creation context, which the copy keeps");
    assert_eq!(linked(&process), [id(&send)]);
    for (span, end) in [(&send, from), (&bridge, from), (&copy, to), (&process, to)] {
        assert_eq!(attribute(span, "messaging.system"), end.system(), "{}", span.name);
        assert_eq!(span.status, Status::Unset, "{}", span.name);
    }
    let hops = [&send, &bridge, &copy, &process].map(|span| attribute(span, attribute::HOP));
    assert_eq!(hops, ["", "", "bridge", "bridge"]);
    assert!(copy.start_time >= bridge.start_time && copy.end_time <= bridge.end_time, "settled after the confirm");
}
