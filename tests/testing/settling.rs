//! The wait until the application is idle, and the report if that does not happen.

use std::time::{Duration, Instant};

use opentelemetry::trace::{Tracer, TracerProvider};
use traced_broker::testing::{Capture, TestBed};
use traced_broker::{HandlerError, Message, Received, Subscription, TracedBroker, TracedBrokerExt};

use crate::shop;

const SHORT: Duration = Duration::from_millis(150);

fn bed() -> TestBed {
    TestBed::new().patience(SHORT)
}

#[tokio::test]
async fn it_waits_for_retries_dead_letters_and_what_handlers_publish() {
    let bed = TestBed::new();
    shop::open(&bed).await;
    for what in ["plain", "flaky", "hopeless"] {
        shop::order(&bed, what).await;
    }
    bed.settled().await.unwrap();
    assert_eq!(bed.messages("shipments").len(), 2);
    assert_eq!(bed.messages("orders.dead").len(), 1);
    assert_eq!(bed.messages("orders.dead")[0].payload.as_deref(), Some(&b"hopeless"[..]));
    assert!(bed.messages("nothing").is_empty());
    bed.capture().assert_whole();
    bed.settled().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn with_the_clock_paused_an_hour_takes_no_time() {
    let bed = TestBed::new().patience(Duration::from_secs(7200));
    shop::open(&bed).await;
    let before = Instant::now();
    shop::order(&bed, "late").await;
    bed.settled().await.unwrap();
    bed.trace("POST /orders").hops(["orders", "shipments"]);
    assert!(before.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn a_message_that_nobody_reads_is_named() {
    let bed = bed();
    shop::order(&bed, "plain").await;
    let left = bed.settled().await.unwrap_err();
    assert_eq!(left.messages(), ["1 message of `orders` waiting for a reader"]);
    assert!(left.open_spans().is_empty());
    let text = format!("{left:?}");
    assert!(text.starts_with("not settled within 150ms:\n- 1 message of `orders`"), "{text}");
    assert!(text.contains("└ send orders"), "the trace is drawn: {text}");
}

#[tokio::test]
async fn a_topic_without_reader_is_taken_for_granted_when_told() {
    let bed = bed().without_reader("orders");
    shop::order(&bed, "plain").await;
    bed.broker("api").publish("orders", Message::new("later").delay(Duration::from_secs(60))).await.unwrap();
    bed.settled().await.unwrap();
    bed.broker("api").publish("other", Message::new("x")).await.unwrap();
    assert_eq!(bed.settled().await.unwrap_err().messages(), ["1 message of `other` waiting for a reader"]);
}

#[tokio::test]
async fn a_handler_that_does_not_end_is_named_by_message_and_span() {
    let bed = bed();
    shop::open(&bed).await;
    shop::order(&bed, "late").await;
    let left = bed.settled().await.unwrap_err();
    assert_eq!(left.messages(), ["1 message of `orders` not settled by the group `workers`"]);
    assert_eq!(left.open_spans().iter().map(|span| &*span.name).collect::<Vec<_>>(), ["process orders"]);
    let text = left.to_string();
    assert!(text.contains("- the span `process orders` (worker) has not ended"), "{text}");
    assert!(text.contains("never finished"), "the picture marks it: {text}");
}

#[tokio::test]
async fn delayed_messages_and_full_topics_are_named() {
    let bed = bed();
    let api = bed.broker("api");
    let read = async |_: Received| Ok::<_, HandlerError>(());
    let reminders = Subscription::new("reminders").group("workers");
    let consumer = bed.broker("worker").consume(reminders, read).subscribed().await.unwrap();
    let consumer = tokio::spawn(consumer.run());
    api.publish("reminders", Message::new("x").delay(Duration::from_millis(20))).await.unwrap();
    bed.settled().await.unwrap();
    api.publish("reminders", Message::new("x").delay(Duration::from_secs(60))).await.unwrap();
    assert_eq!(bed.settled().await.unwrap_err().messages(), ["1 message of `reminders` waiting for their time"]);
    consumer.abort();
}

#[tokio::test]
async fn what_a_reader_left_unread_when_it_went_is_as_it_would_be_without_it() {
    let bed = bed();
    let api = bed.broker("api");
    let mut reader = api.subscribe(Subscription::new("news")).await.unwrap();
    api.publish("news", Message::new("1")).await.unwrap();
    let left = bed.settled().await.unwrap_err();
    assert_eq!(left.messages(), ["1 message of `news` not settled by a reader without a group"]);
    let delivery = futures_util::StreamExt::next(&mut reader).await.unwrap().unwrap();
    delivery.ack().await.unwrap();
    bed.settled().await.unwrap();
    drop(reader);
    bed.settled().await.unwrap();
    api.publish("news", Message::new("2")).await.unwrap();
    assert_eq!(bed.settled().await.unwrap_err().messages(), ["1 message of `news` waiting for a reader"]);
}

/// If no span ends, the broker notifies the wait.
#[tokio::test]
async fn what_is_settled_by_hand_is_noticed() {
    let bed = TestBed::new();
    let api = bed.broker("api");
    let mut reader = api.subscribe(Subscription::new("news").group("readers")).await.unwrap();
    api.publish("news", Message::new("1")).await.unwrap();
    let acknowledging = tokio::spawn(async move {
        let delivery = futures_util::StreamExt::next(&mut reader).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        delivery.ack().await.unwrap();
    });
    let before = Instant::now();
    bed.settled().await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(5));
    acknowledging.await.unwrap();
}

#[tokio::test]
async fn a_capture_waits_for_spans_alone() {
    let capture = Capture::new();
    let span = capture.provider("app").tracer("app").start("slow");
    let left = capture.ended(Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(left.open_spans().len(), 1);
    let ending = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(span);
    });
    capture.ended(Duration::from_secs(10)).await.unwrap();
    ending.await.unwrap();
    capture.trace("slow").assert_whole();
}

/// A waiting test bed does not wake itself up.
#[tokio::test(start_paused = true)]
async fn waiting_is_not_polling() {
    let bed = TestBed::new().patience(Duration::from_secs(7200));
    shop::order(&bed, "plain").await;
    shop::open(&bed).await;
    shop::order(&bed, "late").await;
    let mut polls = 0;
    let mut settled = Box::pin(bed.settled());
    std::future::poll_fn(|cx| {
        polls += 1;
        assert!(polls < 200, "asked over and over");
        settled.as_mut().poll(cx)
    })
    .await
    .unwrap();
}
