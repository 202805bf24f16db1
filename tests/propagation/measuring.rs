//! Metrics, as an SDK exports them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use traced_broker::adapters::memory::Memory;
use traced_broker::driver::{DriverExt, Outbound};
use traced_broker::{HandlerError, Message, Topic, Traced, TracedBroker};

use crate::scene::{Scene, group, next, process};

struct Measured {
    scene: Scene,
    broker: Traced<Arc<Memory>>,
    provider: SdkMeterProvider,
    exporter: InMemoryMetricExporter,
}

/// A point of a metric: its attributes, the number of measurements, and their sum.
#[derive(Debug, Clone)]
struct Point {
    attributes: Vec<(String, String)>,
    count: u64,
    sum: f64,
}

impl Point {
    fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Measured {
    fn new() -> Self {
        let scene = Scene::new();
        let exporter = InMemoryMetricExporter::default();
        let provider =
            SdkMeterProvider::builder().with_reader(PeriodicReader::builder(exporter.clone()).build()).build();
        let broker = scene.broker.clone().with_meter_provider(&provider);
        Self { scene, broker, provider, exporter }
    }

    fn export(&self) -> ResourceMetrics {
        self.provider.force_flush().unwrap();
        self.exporter.get_finished_metrics().unwrap().pop().unwrap()
    }

    /// Returns the points of a metric.
    fn points(&self, name: &str) -> Vec<Point> {
        let export = self.export();
        let metrics = export.scope_metrics().flat_map(|scope| scope.metrics());
        let found = metrics.filter(|metric| metric.name() == name).flat_map(|metric| points(metric.data()));
        found.collect()
    }
}

fn points(data: &AggregatedMetrics) -> Vec<Point> {
    let text = |attributes: Vec<&opentelemetry::KeyValue>| {
        attributes.into_iter().map(|one| (one.key.to_string(), one.value.to_string())).collect()
    };
    match data {
        AggregatedMetrics::F64(MetricData::Histogram(histogram)) => histogram
            .data_points()
            .map(|point| Point {
                attributes: text(point.attributes().collect()),
                count: point.count(),
                sum: point.sum(),
            })
            .collect(),
        AggregatedMetrics::U64(MetricData::Sum(sum)) => sum
            .data_points()
            .map(|point| Point { attributes: text(point.attributes().collect()), count: point.value(), sum: 0.0 })
            .collect(),
        _ => panic!("an instrument of another kind"),
    }
}

#[tokio::test]
async fn durations_are_those_of_the_spans() {
    let measured = Measured::new();
    let mut deliveries = measured.broker.subscribe(group("t")).await.unwrap();
    measured.broker.publish("t", Message::new("x")).await.unwrap();
    let sleep = |_| async {
        tokio::time::sleep(Duration::from_millis(3)).await;
        Ok(())
    };
    next(&mut deliveries).await.process(sleep).await.unwrap();
    let seconds = |name: &str| {
        let span = measured.scene.span(name);
        span.end_time.duration_since(span.start_time).unwrap().as_secs_f64()
    };
    let [processed] = measured.points("messaging.process.duration").try_into().unwrap();
    assert_eq!((processed.count, processed.sum), (1, seconds("process t")));
    let operations = measured.points("messaging.client.operation.duration");
    let send = operations.iter().find(|point| point.get("messaging.operation.name") == Some("send")).unwrap();
    assert_eq!((send.count, send.sum), (1, seconds("send t")));
    assert_eq!(send.get("messaging.operation.type"), Some("send"));
    let ack = operations.iter().find(|point| point.get("messaging.operation.name") == Some("ack")).unwrap();
    assert_eq!((ack.count, ack.get("messaging.operation.type")), (1, Some("settle")));
}

#[tokio::test]
async fn counts_each_message_sent_and_each_delivery() {
    let measured = Measured::new();
    let mut deliveries = measured.broker.subscribe(group("t")).await.unwrap();
    measured.broker.publish_batch("t", vec![Message::new("x"), Message::new("y")]).await;
    next(&mut deliveries).await.retry(Duration::ZERO).await.unwrap();
    for _ in 0..2 {
        next(&mut deliveries).await.ack().await.unwrap();
    }
    let sent = measured.points("messaging.client.sent.messages");
    assert_eq!(sent.iter().map(|point| point.count).sum::<u64>(), 2);
    assert!(sent.iter().all(|point| point.get("messaging.consumer.group.name").is_none()));
    let [consumed] = measured.points("messaging.client.consumed.messages").try_into().unwrap();
    assert_eq!((consumed.count, consumed.get("messaging.consumer.group.name")), (3, Some("g")));
    let [queued] = measured.points("traced_broker.queue.duration").try_into().unwrap();
    // Not the second delivery of the message that was retried.
    assert_eq!((queued.count, queued.get("traced_broker.queue.clock")), (2, Some("broker")));
    assert!(queued.sum >= 0.0);
}

#[tokio::test]
async fn failures_have_their_type() {
    let measured = Measured::new();
    let failed = measured.broker.publish("not/a/topic", Message::new("x")).await.unwrap_err();
    let [timed] = measured.points("messaging.client.operation.duration").try_into().unwrap();
    assert_eq!(timed.get("error.type"), Some(failed.kind().as_str()));
    assert!(measured.points("messaging.client.sent.messages").is_empty(), "it was never sent");
    let mut deliveries = measured.broker.subscribe(group("t")).await.unwrap();
    measured.broker.publish("t", Message::new("x")).await.unwrap();
    next(&mut deliveries).await.process(|_| async { Err::<(), _>("no".into()) }).await.unwrap();
    let [processed] = measured.points("messaging.process.duration").try_into().unwrap();
    assert_eq!(processed.get("error.type"), Some("handler_error"));
}

#[tokio::test]
async fn a_cancelled_publish_is_measured_as_such() {
    let measured = Measured::new();
    let full = Memory::connect(&"memory://measured-and-full?capacity=1".parse().unwrap()).unwrap();
    let broker = Traced::new(Arc::new(full)).with_meter_provider(&measured.provider);
    let _unsettled = broker.subscribe(group("t")).await.unwrap();
    broker.publish("t", Message::new("x")).await.unwrap();
    let mut waiting = Box::pin(broker.publish("t", Message::new("y")));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(waiting);
    let sent = measured.points("messaging.client.sent.messages");
    let cancelled = sent.iter().find(|point| point.get("error.type") == Some("cancelled")).unwrap();
    assert_eq!((cancelled.count, sent.iter().map(|point| point.count).sum::<u64>()), (1, 2));
}

#[tokio::test]
async fn headers_that_were_not_used_are_counted_with_the_reason() {
    let measured = Measured::new();
    let mut deliveries = measured.broker.subscribe(group("t")).await.unwrap();
    let mut foreign = Outbound::new("x");
    foreign.headers.append("traceparent", "00-zz");
    foreign.headers.append("tracestate", "a=1");
    foreign.headers.append("baggage", "a=1,no good");
    measured.broker.get_ref().enqueue(&Topic::new("t").unwrap(), foreign).await.unwrap();
    process(&mut deliveries).await;
    let rejected = measured.points("traced_broker.context.rejected");
    let kind = |point: &Point| {
        let get = |name| point.get(name).unwrap().to_owned();
        (get("traced_broker.context.header"), get("traced_broker.context.reason"), point.count)
    };
    let mut kinds: Vec<_> = rejected.iter().map(kind).collect();
    kinds.sort();
    let expected = [("baggage", "member", 1), ("traceparent", "length", 1), ("tracestate", "orphaned", 1)];
    assert_eq!(kinds, expected.map(|(header, reason, count)| (header.to_owned(), reason.to_owned(), count)));
}

#[tokio::test]
async fn what_is_discarded_is_counted() {
    let measured = Measured::new();
    let mut deliveries = measured.broker.subscribe(group("t")).await.unwrap();
    let mut kept = measured.broker.subscribe(group("kept").dead_letter("dead")).await.unwrap();
    for topic in ["t", "t", "kept"] {
        measured.broker.publish(topic, Message::new("x")).await.unwrap();
    }
    next(&mut deliveries).await.reject("by hand").await.unwrap();
    let fails = |_| async { Err::<(), _>(HandlerError::reject("sold out")) };
    next(&mut deliveries).await.process(fails).await.unwrap();
    next(&mut kept).await.reject("kept").await.unwrap();
    let discarded = measured.points("traced_broker.message.discarded");
    let mut errors: Vec<_> = discarded.iter().map(|point| (point.get("error.type"), point.count)).collect();
    errors.sort();
    assert_eq!(errors, [(None, 1), (Some("handler_error"), 1)]);
    assert!(discarded.iter().all(|point| point.get("messaging.destination.name") == Some("t")));
}

#[tokio::test]
async fn the_queue_is_measured_from_the_brokers_timestamp() {
    let measured = Measured::new();
    let mut deliveries = measured.broker.subscribe(group("t")).await.unwrap();
    let before = SystemTime::now();
    measured.broker.publish("t", Message::new("x")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    process(&mut deliveries).await;
    let most = before.elapsed().unwrap().as_secs_f64();
    let [queued] = measured.points("traced_broker.queue.duration").try_into().unwrap();
    assert!((0.029..=most).contains(&queued.sum), "{queued:?}");
    assert!(measured.points("traced_broker.queue.skewed").is_empty());
}
