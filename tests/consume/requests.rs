//! Request and reply, and health.

use std::sync::Arc;
use std::time::Duration;
use traced_broker::names::{attribute, header};

use futures_util::future::join_all;
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, SdkMeterProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use traced_broker::adapters::memory::Memory;
use traced_broker::request::ReplyTopics;
use traced_broker::{ErrorKind, HandlerError, Message, Received, Subscription, Traced, TracedBroker, TracedBrokerExt};

use crate::shop::{broker, text};

const LIMIT: Duration = Duration::from_secs(10);

/// Answers every request with its text, doubled; does not answer `silence`.
async fn echo(broker: Traced<Arc<Memory>>) {
    let handler = async |message: Received| {
        let text = text(&message);
        if text != "silence" {
            broker.reply(&message, Message::new(text.repeat(2))).await?;
        }
        Ok::<_, HandlerError>(())
    };
    broker.consume(Subscription::new("echo").group("echo"), handler).concurrency(8).run().await.unwrap();
}

#[tokio::test]
async fn every_request_gets_its_own_reply() {
    let broker = broker();
    let answering = tokio::spawn(echo(broker.clone()));
    let (one, other) = (broker.requester("replies").await.unwrap(), broker.requester("replies").await.unwrap());
    let asking = (0..200).map(|number| {
        let requester = if number % 3 == 0 { &one } else { &other };
        requester.request("echo", Message::new(format!("{number};")), LIMIT)
    });
    for (number, reply) in join_all(asking).await.into_iter().enumerate() {
        assert_eq!(text(&reply.unwrap()), format!("{number};{number};"));
    }
    answering.abort();
}

#[tokio::test]
async fn the_trace_goes_through_both_hops() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let broker = broker().with_tracer_provider(&provider);
    let answering = tokio::spawn(echo(broker.clone()));
    let requester = broker.requester("replies").await.unwrap();
    let span = provider.tracer("application").start("ask");
    let root = opentelemetry::Context::new().with_span(span);
    let message = Message::new("x").context(root.clone());
    requester.request("echo", message, LIMIT).await.unwrap();
    answering.abort();

    let mut chain = Vec::new();
    let mut parent = root.span().span_context().span_id();
    let spans = exporter.get_finished_spans().unwrap();
    while let Some(span) = spans.iter().find(|span| span.parent_span_id == parent) {
        chain.push(span.name.to_string());
        parent = span.span_context.span_id();
    }
    assert_eq!(chain, ["send echo", "process echo", "send replies", "process replies"]);
}

#[tokio::test]
async fn no_reply_in_time_is_an_error_and_what_comes_too_late_disturbs_nobody() {
    let broker = broker();
    let answering = tokio::spawn(echo(broker.clone()));
    let requester = broker.requester("replies").await.unwrap();
    let error = requester.request("echo", Message::new("silence"), Duration::from_millis(50)).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Timeout, Some("request")));
    broker.publish("replies", Message::new("late").header(header::CORRELATION_ID, "gone")).await.unwrap();
    let reply = requester.request("echo", Message::new("a"), LIMIT).await.unwrap();
    assert_eq!(text(&reply), "aa");
    answering.abort();
}

#[tokio::test]
async fn only_requests_can_be_replied_to_and_only_valid_topics_reached() {
    let broker = broker();
    let mut deliveries = broker.subscribe(Subscription::new("echo").group("echo")).await.unwrap();
    let hostile = Message::new("b").header(header::REPLY_TO, "../etc").header(header::CORRELATION_ID, "1");
    for message in [Message::new("a"), hostile, Message::new("c").header(header::REPLY_TO, "replies")] {
        broker.publish("echo", message).await.unwrap();
        let delivery = futures_util::StreamExt::next(&mut deliveries).await.unwrap().unwrap();
        let error = broker.reply(delivery.message(), Message::new("x")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidMessage);
        delivery.ack().await.unwrap();
    }
    let error = broker.requester("not a topic").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}

#[tokio::test]
async fn those_who_wait_are_told_when_the_broker_is_closed() {
    let broker = broker();
    let requester = broker.requester("replies").await.unwrap();
    let closing = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        broker.close().await.unwrap();
    };
    let (reply, ()) = tokio::join!(requester.request("nobody", Message::new("x"), LIMIT), closing);
    assert_eq!(reply.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn health_tells_a_closed_broker_from_one_that_answers() {
    let broker = broker();
    let health = broker.health().await;
    assert!(health.is_ready() && health.is_live(), "{health}");
    broker.close().await.unwrap();
    let health = broker.health().await;
    assert!(!health.is_ready() && !health.is_live(), "{health}");
}

/// A request may come from a stranger, so it does not choose any topic for its reply.
#[tokio::test]
async fn a_reply_goes_only_to_topics_for_replies_or_to_those_that_are_allowed() {
    let broker = broker();
    let mut deliveries = broker.subscribe(Subscription::new("echo").group("echo")).await.unwrap();
    for topic in ["orders", "repliesx", "my_xreplies", "answers"] {
        let request = Message::new("x").header(header::REPLY_TO, topic).header(header::CORRELATION_ID, "1");
        broker.publish("echo", request).await.unwrap();
        let delivery = futures_util::StreamExt::next(&mut deliveries).await.unwrap().unwrap();
        let error = broker.reply(delivery.message(), Message::new("y")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{topic}");
        assert!(broker.get_ref().messages(topic).is_empty(), "{topic}");
        if topic == "answers" {
            let allowed = ReplyTopics::none().allow("answers");
            broker.reply_within(&allowed, delivery.message(), Message::new("y")).await.unwrap();
            assert_eq!(broker.get_ref().messages(topic).len(), 1);
        }
        delivery.ack().await.unwrap();
    }
}

/// The names of temporary reply topics are in an attribute of spans only.
#[tokio::test]
async fn a_reply_topic_of_one_process_names_neither_spans_nor_metrics() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let metrics = InMemoryMetricExporter::default();
    let meters = SdkMeterProvider::builder().with_periodic_exporter(metrics.clone()).build();
    let broker = broker().with_tracer_provider(&provider).with_meter_provider(&meters);
    broker.publish("prices.replies.7f3a", Message::new("x")).await.unwrap();

    let span = exporter.get_finished_spans().unwrap().pop().unwrap();
    let value = |name: &str| {
        let pair = span.attributes.iter().find(|pair| pair.key.as_str() == name);
        pair.map(|pair| pair.value.to_string())
    };
    assert_eq!(span.name, "send prices.replies.*");
    assert_eq!(value(attribute::DESTINATION_NAME).as_deref(), Some("prices.replies.7f3a"));
    assert_eq!(value(attribute::DESTINATION_TEMPLATE).as_deref(), Some("prices.replies.*"));
    assert_eq!(value(attribute::DESTINATION_TEMPORARY).as_deref(), Some("true"));
    meters.force_flush().unwrap();
    assert!(!format!("{:?}", metrics.get_finished_metrics().unwrap()).contains("7f3a"));
}
