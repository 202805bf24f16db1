//! Processing messages in batches.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use opentelemetry::trace::{SpanId, TraceContextExt};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tokio::time::sleep;
use traced_broker::consume::Failed;
use traced_broker::{ErrorKind, HandlerError, Message, Received, Retry, Subscription, TracedBroker, TracedBrokerExt};

use crate::shop::{DEAD, Record, TOPIC, broker, publish, text, workers};

fn joined(batch: &[Received]) -> String {
    batch.iter().map(|message| format!("{}/{}", text(message), message.attempt())).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_batch_is_full_or_has_waited_long_enough() {
    let (broker, record) = (broker(), Record::default());
    publish(&broker, (0..7).map(|number| number.to_string())).await;
    let begun = Instant::now();
    let handler = async |batch: Vec<Received>| {
        record.add(joined(&batch));
        Ok::<_, HandlerError>(Vec::new())
    };
    let consume = broker.consume_batch(workers(), handler).size(3).linger(Duration::from_millis(60));
    let report = consume.run_until(record.reaches(3)).await.unwrap();
    assert_eq!(record.lines(), ["0/1 1/1 2/1", "3/1 4/1 5/1", "6/1"]);
    assert!(begun.elapsed() >= Duration::from_millis(60));
    assert_eq!((report.handled, report.abandoned), (7, 0));
}

#[tokio::test]
async fn each_message_is_settled_by_its_own_outcome() {
    let (broker, record) = (broker(), Record::default());
    publish(&broker, ["good", "busy", "bad", "fine"]).await;
    let mut dead = broker.subscribe(Subscription::new(DEAD).group("desk")).await.unwrap();
    let handler = async |batch: Vec<Received>| {
        record.add(joined(&batch));
        let failed = |(index, message): (usize, &Received)| match text(message).as_str() {
            "busy" if message.attempt() == 1 => Some(Failed { index, error: HandlerError::retry("busy") }),
            "bad" => Some(Failed { index, error: HandlerError::reject("never") }),
            _ => None,
        };
        Ok(batch.iter().enumerate().filter_map(failed).collect())
    };
    let consume = broker.consume_batch(workers(), handler).size(4).linger(Duration::from_millis(5)).dead_letter(DEAD);
    let report = consume.retry(Retry::immediate(3)).run_until(record.reaches(2)).await.unwrap();
    assert_eq!(record.lines(), ["good/1 busy/1 bad/1 fine/1", "busy/2"]);
    assert_eq!((report.handled, report.retried, report.rejected), (3, 1, 1));
    let letter = dead.next().await.unwrap().unwrap();
    assert_eq!(text(letter.message()), "bad");
    letter.ack().await.unwrap();
}

#[tokio::test]
async fn an_error_a_panic_and_a_time_out_fail_the_whole_batch() {
    let (broker, record) = (broker(), Record::default());
    publish(&broker, ["a", "b"]).await;
    let handler = async |batch: Vec<Received>| {
        record.add(joined(&batch));
        match batch[0].attempt() {
            1 => return Err(HandlerError::retry("down")),
            2 => panic!("bang"),
            3 => sleep(Duration::from_secs(3600)).await,
            _ => {}
        }
        Ok(Vec::new())
    };
    let consume = broker.consume_batch(workers(), handler).size(2).linger(Duration::from_secs(1));
    let consume = consume.time_limit(Duration::from_millis(20)).retry(Retry::immediate(9));
    let report = consume.run_until(record.reaches(4)).await.unwrap();
    assert_eq!(record.lines(), ["a/1 b/1", "a/2 b/2", "a/3 b/3", "a/4 b/4"]);
    assert_eq!((report.handled, report.retried), (2, 6));
}

/// 300 creation contexts exceed the number of links that one span keeps.
#[tokio::test]
async fn one_span_links_every_message_and_loses_no_link() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let (broker, record) = (broker().with_tracer_provider(&provider), Record::default());
    let messages = (0..300).map(|number| Message::new(number.to_string())).collect();
    broker.publish_batch(TOPIC, messages).await.into_iter().for_each(|result| drop(result.unwrap()));
    let handler = async |batch: Vec<Received>| {
        let current = opentelemetry::Context::current().span().span_context().span_id();
        record.add(format!("{} {current}", batch.len()));
        Ok::<_, HandlerError>(Vec::new())
    };
    let consume = broker.consume_batch(workers(), handler).size(300).linger(Duration::from_secs(5));
    consume.run_until(record.reaches(1)).await.unwrap();

    let spans = exporter.get_finished_spans().unwrap();
    let named = |name: &str| spans.iter().filter(|span| span.name == name).cloned().collect::<Vec<_>>();
    let created: HashSet<SpanId> = named("create orders").iter().map(|span| span.span_context.span_id()).collect();
    let process = named("process orders");
    let linked: HashSet<SpanId> =
        process.iter().flat_map(|span| span.links.iter()).map(|link| link.span_context.span_id()).collect();
    assert_eq!((created.len(), &linked), (300, &created));
    assert!(process.iter().all(|span| span.links.len() <= 128 && span.links.dropped_count == 0));
    let root = process.iter().find(|span| span.parent_span_id == SpanId::INVALID).expect("a root");
    assert_eq!(record.lines(), [format!("300 {}", root.span_context.span_id())], "the span is current for the handler");
    assert!(process.iter().all(|span| span.span_context.trace_id() == root.span_context.trace_id()));
    let count = root.attributes.iter().find(|pair| pair.key.as_str() == "messaging.batch.message_count");
    assert_eq!(count.map(|pair| pair.value.as_str().into_owned()).as_deref(), Some("300"));
}

#[tokio::test]
async fn what_is_collected_when_it_stops_goes_back() {
    let (broker, record) = (broker(), Record::default());
    publish(&broker, ["a", "b"]).await;
    let handler = async |batch: Vec<Received>| {
        record.add(joined(&batch));
        Ok::<_, HandlerError>(Vec::new())
    };
    let consume = broker.consume_batch(workers(), handler).linger(Duration::from_secs(3600));
    let report = consume.run_until(sleep(Duration::from_millis(50))).await.unwrap();
    assert_eq!((report.handled, report.abandoned), (0, 2));
    let consume = broker.consume_batch(workers(), handler).linger(Duration::from_millis(50));
    consume.run_until(record.reaches(1)).await.unwrap();
    assert_eq!(record.lines(), ["a/1 b/1"]);
}

#[tokio::test]
async fn a_stream_is_published_in_order_with_a_result_for_each() {
    let (broker, record) = (broker(), Record::default());
    let numbers = stream::iter(0..500).map(|number| Message::new(number.to_string()));
    let results: Vec<_> = broker.publish_all(TOPIC, numbers, 64).collect().await;
    assert!(results.len() == 500 && results.iter().all(Result::is_ok));
    let handler = async |message: Received| {
        record.add(text(&message));
        Ok::<_, HandlerError>(())
    };
    broker.consume(workers(), handler).run_until(record.reaches(500)).await.unwrap();
    assert_eq!(record.lines(), (0..500).map(|number| number.to_string()).collect::<Vec<_>>());
    let refused: Vec<_> = broker.publish_all("not a topic", stream::iter([Message::new("x")]), 0).collect().await;
    assert!(refused.iter().all(|result| result.as_ref().is_err_and(|error| error.kind() == ErrorKind::InvalidConfig)));
}
