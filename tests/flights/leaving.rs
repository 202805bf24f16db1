use std::task::Poll;
use std::time::{Duration, Instant};

use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, SdkMeterProvider};
use tokio::time::timeout;
use traced_broker::driver::Confirmer;
use traced_broker::names::metric;
use traced_broker::{Error, ErrorKind, Message, PublishOutcome, Receipt, Traced, TracedBroker};

use crate::driver::{Manual, begin, poll};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_publish_that_is_given_up_keeps_its_place_until_the_driver_answers() {
    let driver = Manual::new(4);
    let broker = Traced::new(driver.clone());
    for number in 0..1000 {
        drop(begin(&broker, &number.to_string()));
    }
    tokio::task::yield_now().await;
    assert_eq!(driver.unanswered(), 4, "no more than the bound");

    let waiting = begin(&broker, "last");
    (0..4).for_each(|_| driver.confirm());
    timeout(SOON, driver.was_given(5)).await.expect("the places are free again");
    driver.confirm();
    waiting.await.unwrap();
    assert_eq!(driver.given(), ["0", "1", "2", "3", "last"], "a waiting publish leaves with its future");
}

#[tokio::test]
async fn an_answer_frees_the_place_though_no_caller_polls() {
    let driver = Manual::new(1);
    let broker = Traced::new(driver.clone());
    let mut first = begin(&broker, "1");
    let second = begin(&broker, "2");
    driver.confirm();
    timeout(SOON, driver.was_given(2)).await.expect("the place is free");
    driver.confirm();
    second.await.unwrap();
    assert!(poll(&mut first).is_ready());
}

#[tokio::test]
async fn a_dropped_confirmer_frees_the_place_and_leaves_the_outcome_unknown() {
    let driver = Manual::new(1);
    let broker = Traced::new(driver.clone());
    let first = begin(&broker, "1");
    let _second = begin(&broker, "2");
    drop(driver.take());
    assert_eq!(first.await.unwrap_err().publish_outcome(), PublishOutcome::Unknown);
    timeout(SOON, driver.was_given(2)).await.expect("the place is free");
}

/// The task that gives places on may live in a runtime that ends.
#[test]
fn waiting_publishes_outlive_the_runtime_of_another() {
    let driver = Manual::new(1);
    let broker = Traced::new(driver.clone());
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let gone = runtime();
    // Kept and never polled again: the timers of its runtime are gone too.
    let _waiting = gone.block_on(async { (begin(&broker, "1"), begin(&broker, "2")) });
    drop(gone);
    runtime().block_on(async {
        let third = tokio::spawn({
            let broker = broker.clone();
            async move { broker.publish("orders", Message::new("3")).await }
        });
        tokio::task::yield_now().await;
        let _confirming = driver.confirm_all();
        driver.confirm();
        timeout(SOON, third).await.expect("another task took over").unwrap().unwrap();
    });
    assert_eq!(driver.given(), ["1", "2", "3"]);
}

#[test]
fn a_publish_that_would_wait_outside_a_runtime_is_refused() {
    let driver = Manual::new(1);
    let broker = Traced::new(driver.clone());
    let _first = begin(&broker, "1");
    let mut second = broker.publish("orders", Message::new("2"));
    let Poll::Ready(Err(refused)) = poll(&mut second) else { panic!("it has a place, or waits") };
    assert_eq!(refused.kind(), ErrorKind::Busy);
    assert_eq!(refused.publish_outcome(), PublishOutcome::NotSent);
    driver.confirm();
    assert_eq!(driver.given(), ["1"], "it left the queue");
}

#[tokio::test]
async fn closing_ends_in_time_and_tells_what_was_not_sent() {
    let driver = Manual::new(1);
    let broker = Traced::new(driver.clone());
    let sent = begin(&broker, "1");
    let waiting = begin(&broker, "2");
    let started = Instant::now();
    broker.close_within(Duration::from_millis(200)).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());

    let error = waiting.await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Closed, PublishOutcome::NotSent));
    drop(driver.take());
    assert_eq!(sent.await.unwrap_err().publish_outcome(), PublishOutcome::Unknown);
    assert_eq!(driver.given(), ["1"]);
}

#[tokio::test]
async fn closing_lets_the_accepted_publishes_go_out() {
    let driver = Manual::undeclared(1);
    let broker = Traced::new(driver.clone());
    let waiting = [begin(&broker, "1"), begin(&broker, "2"), begin(&broker, "3")];
    let closing = tokio::spawn({
        let broker = broker.clone();
        async move { broker.close().await }
    });
    tokio::task::yield_now().await;
    let late = broker.publish("orders", Message::new("late")).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Closed);

    driver.let_declare();
    let _confirming = driver.confirm_all();
    closing.await.unwrap().unwrap();
    for publish in waiting {
        publish.await.unwrap();
    }
    assert_eq!(driver.given(), ["1", "2", "3"]);
}

/// Only messages that the driver was given count as sent, also in batches.
#[tokio::test]
async fn only_what_the_driver_was_given_counts_as_sent() {
    let exporter = InMemoryMetricExporter::default();
    let provider = SdkMeterProvider::builder().with_periodic_exporter(exporter.clone()).build();
    let sent = || {
        exporter.reset();
        provider.force_flush().unwrap();
        counts(&exporter)
    };
    let driver = Manual::new(2);
    let broker = Traced::new(driver.clone()).with_meter_provider(&provider);

    let given = [begin(&broker, "1"), begin(&broker, "2")];
    drop([begin(&broker, "3"), begin(&broker, "4")]);
    assert_eq!(sent(), [], "no answer yet, and two were never sent");
    drop(given);
    assert_eq!(sent(), [("cancelled".to_owned(), 2)]);
    assert!(broker.publish("not/a/topic", Message::new("x")).await.is_err());
    assert_eq!(sent(), [("cancelled".to_owned(), 2)], "refused before it could be sent");

    (0..2).for_each(|_| driver.confirm());
    let batch = (0..5).map(|number| Message::new(number.to_string())).collect();
    let mut batch = broker.publish_batch("orders", batch);
    assert!(poll(&mut batch).is_pending());
    timeout(SOON, driver.was_given(4)).await.expect("two of the batch");
    driver.confirm();
    timeout(SOON, driver.was_given(5)).await.expect("the third of the batch");
    assert!(poll(&mut batch).is_pending());
    drop(batch);
    // One of the batch was confirmed, two were given up, two were never sent.
    assert_eq!(sent(), [(String::new(), 1), ("cancelled".to_owned(), 4)]);
}

fn counts(exporter: &InMemoryMetricExporter) -> Vec<(String, u64)> {
    let exported = exporter.get_finished_metrics().unwrap();
    let metrics = exported.iter().flat_map(|resource| resource.scope_metrics()).flat_map(|scope| scope.metrics());
    let mut counts = Vec::new();
    for metric in metrics.filter(|metric| metric.name() == metric::SENT_MESSAGES.name) {
        let AggregatedMetrics::U64(MetricData::Sum(sum)) = metric.data() else { panic!("a sum") };
        counts.extend(sum.data_points().map(|point| {
            let error = point.attributes().find(|pair| pair.key.as_str() == "error.type");
            (error.map(|pair| pair.value.to_string()).unwrap_or_default(), point.value())
        }));
    }
    counts.sort();
    counts
}

/// A driver may answer from within the call, and under its own lock.
#[tokio::test]
async fn a_message_given_back_by_a_missing_topic_is_published_once_more() {
    let driver = Manual::new(1);
    let broker = Traced::new(driver.clone());
    let publish = tokio::spawn({
        let broker = broker.clone();
        async move { broker.publish("orders", Message::new("shoes")).await }
    });
    let missing = || Error::new(ErrorKind::NotFound, "the topic was deleted");
    let give_back = |confirmer: Confirmer<Receipt>| {
        confirmer.give_back(traced_broker::driver::Outbound::new("shoes"), missing());
    };
    timeout(SOON, driver.was_given(1)).await.unwrap();
    give_back(driver.take());
    timeout(SOON, driver.was_given(2)).await.expect("published once more");
    assert_eq!(driver.declared(), ["orders", "orders"]);
    give_back(driver.take());
    let error = timeout(SOON, publish).await.expect("only once").unwrap().unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::NotFound, PublishOutcome::NotSent));
    assert_eq!(driver.given().len(), 2);
}

/// The sender is told, the message keeps its place, and a publish that waits for one is not sent.
#[tokio::test]
async fn a_publish_ends_in_time_though_the_driver_never_answers() {
    let driver = Manual::with_limit(1, Duration::from_millis(100));
    let broker = Traced::new(driver.clone());
    let (sent, waiting) = (begin(&broker, "1"), begin(&broker, "2"));
    let (sent, waiting) = timeout(SOON, async { tokio::join!(sent, waiting) }).await.expect("both end");
    let (sent, waiting) = (sent.unwrap_err(), waiting.unwrap_err());
    assert_eq!((sent.kind(), sent.publish_outcome()), (ErrorKind::Timeout, PublishOutcome::Unknown));
    assert_eq!((waiting.kind(), waiting.publish_outcome()), (ErrorKind::Busy, PublishOutcome::NotSent));

    let next = begin(&broker, "3");
    tokio::task::yield_now().await;
    assert_eq!(driver.given(), ["1"], "the driver still has the first");
    driver.confirm();
    timeout(SOON, driver.was_given(2)).await.expect("the place is free");
    driver.confirm();
    next.await.unwrap();
}
