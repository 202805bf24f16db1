//! Messages as other systems write them: understood at the source in their dialect, with one trace
//! to the far end.

use opentelemetry::trace::{SpanId, SpanKind, TraceId};
use tokio::sync::oneshot;
use traced_broker::driver::{DriverExt, Outbound};
use traced_broker::names::attribute;
use traced_broker::{Dialect, Topic, TracedBrokerExt};

use crate::setup::{End, Setup, receive};
use crate::support::{Kind, shared};
use crate::traces::{attribute, id, linked};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn trace() -> TraceId {
    TraceId::from_hex(&PARENT[3..35]).unwrap()
}

fn sender() -> SpanId {
    SpanId::from_hex(&PARENT[36..52]).unwrap()
}

/// Bridges one message; checks the dialect of its trace, and that the trace continues.
async fn bridged(setup: &Setup, dialect: Dialect, named: &[Dialect]) {
    let mut arrivals = setup.arrivals().await;
    let (stop, stopped) = oneshot::channel::<()>();
    let bridging = async {
        let bridge = setup.from.bridge(setup.bridged().dialects(named.iter().copied()), &setup.to, &setup.far);
        bridge.run_until(stopped).await.unwrap()
    };
    let arriving = async {
        receive(&mut arrivals).await;
        drop(stop);
    };
    let (bridged, ()) = tokio::join!(bridging, arriving);
    assert_eq!(bridged.progress.copied, 1, "{dialect}: {bridged}");
    setup.close().await;
    let (bridge, copy) =
        (setup.spans.one(&format!("process {}", setup.near)), setup.spans.one(&format!("send {}", setup.far)));
    let process = setup.spans.one(&format!("process {}", setup.far));
    assert_eq!(attribute(&bridge, attribute::CONTEXT_DIALECT), dialect.as_str());
    assert_eq!((bridge.span_context.trace_id(), bridge.parent_span_id), (trace(), sender()), "{dialect}");
    assert_eq!(linked(&bridge), [sender()], "{dialect}");
    // From here on in the usual headers: the bridge's own creation context, in the same trace.
    assert_eq!((&copy.span_kind, copy.parent_span_id), (&SpanKind::Producer, id(&bridge)), "{dialect}");
    assert_eq!((process.span_context.trace_id(), process.parent_span_id), (trace(), id(&copy)), "{dialect}");
    assert_eq!(attribute(&process, attribute::CONTEXT_DIALECT), "", "{dialect}");
}

/// Publishes a message through the driver, with the headers of the other system.
async fn of_headers(from: End, dialect: Dialect, headers: &[(&str, &str)], payload: &str) {
    let setup = Setup::new(from, End::Memory).await;
    let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let message = Outbound { headers, ..Outbound::new(payload.to_owned()) };
    setup.from.get_ref().enqueue(&Topic::new(&setup.near).unwrap(), message).await.unwrap();
    bridged(&setup, dialect, &Dialect::ALL).await;
}

const B3: &str = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_kafka() {
    let kafka = async |dialect, headers: &[(&str, &str)]| of_headers(End::Kafka, dialect, headers, "x").await;
    kafka(Dialect::CloudEvents, &[("ce_specversion", "1.0"), ("ce_id", "1"), ("ce_traceparent", PARENT)]).await;
    kafka(Dialect::B3, &[("b3", B3)]).await;
    let several = [("X-B3-TraceId", &B3[..32]), ("X-B3-SpanId", &B3[33..49]), ("X-B3-Sampled", "1")];
    kafka(Dialect::B3, &several).await;
    kafka(Dialect::Jaeger, &[("uber-trace-id", "4bf92f3577b34da6a3ce929d0e0e4736:00f067aa0ba902b7:0:1")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_rabbitmq() {
    let rabbit =
        async |dialect, headers: &[(&str, &str)], body| of_headers(End::RabbitMq, dialect, headers, body).await;
    rabbit(Dialect::CloudEvents, &[("cloudEvents:id", "1"), ("cloudEvents:traceparent", PARENT)], "x").await;
    rabbit(Dialect::CloudEvents, &[("cloudEvents_traceparent", PARENT)], "x").await;
    rabbit(Dialect::MassTransit, &[("MT-Activity-Id", PARENT)], "x").await;
    let envelope = format!(r#"{{"messageId":"1","message":{{}},"headers":{{"MT-Activity-Id":"{PARENT}"}}}}"#);
    rabbit(Dialect::MassTransit, &[("content-type", "application/vnd.masstransit+json")], &envelope).await;
    rabbit(Dialect::Wolverine, &[("parent-id", PARENT), ("message-type", "Orders.OrderPlaced")], "x").await;
    rabbit(Dialect::Azure, &[("Diagnostic-Id", PARENT)], "x").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_nats() {
    let nats = async |dialect, headers: &[(&str, &str)], body| of_headers(End::Nats, dialect, headers, body).await;
    nats(Dialect::CloudEvents, &[("ce-specversion", "1.0"), ("ce-traceparent", PARENT)], "x").await;
    let event = format!(r#"{{"specversion":"1.0","id":"1","source":"/","type":"t","traceparent":"{PARENT}"}}"#);
    nats(Dialect::CloudEvents, &[("content-type", "application/cloudevents+json")], &event).await;
    nats(Dialect::CloudEvents, &[], &event).await;
}

/// This dialect is understood without being named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_nats_server_renamed() {
    let setup = Setup::new(End::Nats, End::Memory).await;
    let headers = [("Xraceparent", PARENT), ("tracestate", "rojo=1")].into_iter().collect();
    let message = Outbound { headers, ..Outbound::new("x") };
    setup.from.get_ref().enqueue(&Topic::new(&setup.near).unwrap(), message).await.unwrap();
    bridged(&setup, Dialect::NatsServer, &[]).await;
    let bridge = setup.spans.one(&format!("process {}", setup.near));
    assert_eq!(bridge.span_context.trace_state().header(), "rojo=1");
}

/// Adds an entry with the fields that the other system writes.
async fn of_entry(dialect: Dialect, fields: &[(&str, &[u8])]) {
    let setup = Setup::new(End::Redis, End::Memory).await;
    let url = tokio::task::spawn_blocking(|| shared(Kind::Redis)).await.unwrap();
    let mut client = ::redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let mut entry = ::redis::cmd("XADD");
    entry.arg(&setup.near).arg("*");
    fields.iter().for_each(|(name, value)| {
        entry.arg(*name).arg(*value);
    });
    let _id: String = entry.query_async(&mut client).await.unwrap();
    bridged(&setup, dialect, &[dialect]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis() {
    let metadata = [&b"\x81\xabtraceparent\xd9\x37"[..], PARENT.as_bytes()].concat();
    let uuid = b"6f1bb1a6-0b0b-4f47-8b3e-1d6f6b1a3c5d";
    let watermill: [(&str, &[u8]); 3] =
        [("_watermill_message_uuid", uuid), ("metadata", &metadata), ("payload", b"{\"sku\":\"A-1\"}")];
    of_entry(Dialect::Watermill, &watermill).await;

    let event =
        format!(r#"{{"data":{{}},"id":"1","specversion":"1.0","traceid":"{PARENT}","traceparent":"{PARENT}"}}"#);
    of_entry(Dialect::Dapr, &[("data", event.as_bytes()), ("metadata", b"{\"ttlInSeconds\":\"60\"}")]).await;
    let metadata = format!(r#"{{"rawPayload":"true","traceparent":"{PARENT}"}}"#);
    of_entry(Dialect::Dapr, &[("data", b"raw"), ("metadata", metadata.as_bytes())]).await;

    let header = [&b"\0\x0btraceparent\0\x37"[..], PARENT.as_bytes()].concat();
    let [start, data] = [18_u32, 18 + 2 + header.len() as u32].map(u32::to_be_bytes);
    let frame = [b"\x89BIN\r\n\x1a\n\0\x01", &start[..], &data, b"\0\x01", &header, b"{}"].concat();
    of_entry(Dialect::FastStream, &[("__data__", &frame)]).await;
}
