//! Parent, link or ignore.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::KeyValue;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::TraceContextExt;
use traced_broker::adapters::memory::Memory;
use traced_broker::{Hop, Message, Start, Subscription, TracePolicy, Traced, TracedBroker, TracedBrokerExt};

use crate::scene::{Relation, Scene, attribute, group, next, process, remote};

const SOON: Duration = Duration::from_millis(20);

/// Publishes a message, processes it through the subscription, and returns the relation of the two
/// spans.
async fn relation(scene: &Scene, subscription: Subscription, message: Message) -> Relation {
    let mut deliveries = scene.broker.subscribe(subscription).await.unwrap();
    scene.broker.publish("t", message).await.unwrap();
    process(&mut deliveries).await;
    scene.relation("t")
}

#[tokio::test]
async fn a_direct_hop_is_a_child_and_what_comes_later_is_linked() {
    assert_eq!(relation(&Scene::new(), group("t"), Message::new("x")).await, Relation::Child);
    assert_eq!(relation(&Scene::new(), group("t"), Message::new("x").delay(SOON)).await, Relation::Linked);
    assert_eq!(relation(&Scene::new(), group("t"), Message::new("x").hop(Hop::Scheduled)).await, Relation::Linked);
    assert_eq!(relation(&Scene::new(), group("t"), Message::new("x").hop(Hop::Bridge)).await, Relation::Child);
    let past = Message::new("x").deliver_at(std::time::UNIX_EPOCH);
    assert_eq!(relation(&Scene::new(), group("t"), past).await, Relation::Child, "a delay that is over delays nothing");
}

#[tokio::test]
async fn says_on_the_spans_what_kind_of_hop_it_was() {
    let scene = Scene::new();
    relation(&scene, group("t"), Message::new("x").delay(SOON)).await;
    let (send, process) = (scene.span("send t"), scene.span("process t"));
    assert_eq!(attribute(&send, "traced_broker.hop").as_deref(), Some("delayed"));
    assert_eq!(attribute(&process, "traced_broker.hop").as_deref(), Some("delayed"));
    assert_eq!(attribute(&process, "traced_broker.context.policy").as_deref(), Some("link"));
    let scene = Scene::new();
    relation(&scene, group("t"), Message::new("x")).await;
    for span in [scene.span("send t"), scene.span("process t")] {
        assert_eq!(attribute(&span, "traced_broker.hop"), None);
        assert_eq!(attribute(&span, "traced_broker.context.policy"), None);
    }
}

#[tokio::test]
async fn the_sender_may_ask_and_the_subscription_decides() {
    let linked = || Message::new("x").trace_policy(TracePolicy::Link);
    assert_eq!(relation(&Scene::new(), group("t"), linked()).await, Relation::Linked);
    let parent = group("t").trace_policy(TracePolicy::Parent);
    assert_eq!(relation(&Scene::new(), parent, linked()).await, Relation::Child);
    let by_hop = group("t").trace_policy_for(Hop::Direct, TracePolicy::Parent);
    assert_eq!(relation(&Scene::new(), by_hop, linked()).await, Relation::Linked, "the sender is closer than the hop");
    let ignored = group("t").trace_policy_for(Hop::Direct, TracePolicy::Ignore);
    assert_eq!(relation(&Scene::new(), ignored, Message::new("x")).await, Relation::None);
    let child = Message::new("x").delay(SOON).trace_policy(TracePolicy::Parent);
    assert_eq!(relation(&Scene::new(), group("t"), child).await, Relation::Child);
    let delayed = group("t").trace_policy_for(Hop::Delayed, TracePolicy::Parent);
    assert_eq!(relation(&Scene::new(), delayed, Message::new("x").delay(SOON)).await, Relation::Child);
}

#[tokio::test]
async fn what_was_said_of_a_message_does_not_hold_for_the_next() {
    let scene = Scene::new();
    let mut first = scene.broker.subscribe(group("t")).await.unwrap();
    let mut second = scene.broker.subscribe(group("onward")).await.unwrap();
    let delayed = Message::new("x").delay(SOON).trace_policy(TracePolicy::Ignore);
    scene.broker.publish("t", delayed).await.unwrap();
    let delivery = next(&mut first).await;
    let again = Message::from(delivery.message());
    assert!(again.headers().contains("trace-hop"), "a message that was received has what was said of it");
    scene.broker.publish("onward", again).await.unwrap();
    delivery.ack().await.unwrap();
    process(&mut second).await;
    assert_eq!(scene.relation("onward"), Relation::Child);
}

#[tokio::test]
async fn a_reader_of_the_past_links_and_what_comes_after_is_a_child() {
    let scene = Scene::new();
    scene.broker.publish("t", Message::new("past")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let mut reader = scene.broker.subscribe(Subscription::new("t").start(Start::Earliest)).await.unwrap();
    process(&mut reader).await;
    assert_eq!(scene.relation("t"), Relation::Linked);
    assert_eq!(attribute(&scene.span("process t"), "traced_broker.hop").as_deref(), Some("replay"));
    scene.broker.publish("t", Message::new("now")).await.unwrap();
    process(&mut reader).await;
    let (sends, processes) = (scene.spans("send t"), scene.spans("process t"));
    assert_eq!(processes[1].parent_span_id, sends[1].span_context.span_id());
}

#[tokio::test]
async fn a_group_that_was_moved_links_what_it_gets_again() {
    let scene = Scene::new();
    let mut deliveries = scene.broker.subscribe(group("t")).await.unwrap();
    scene.broker.publish("t", Message::new("x").trace_policy(TracePolicy::Parent)).await.unwrap();
    process(&mut deliveries).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    scene.broker.reposition(&group("t"), Start::Earliest).await.unwrap();
    process(&mut deliveries).await;
    let processes = scene.spans("process t");
    assert_eq!(processes[0].parent_span_id, scene.span("send t").span_context.span_id());
    assert_ne!(processes[1].span_context.trace_id(), processes[0].span_context.trace_id(), "not the sender's to judge");
    assert_eq!(processes[1].links.len(), 1);
}

#[tokio::test]
async fn a_dead_letter_is_a_child_and_one_that_is_sent_back_is_linked() {
    let scene = Scene::new();
    let mut deliveries = scene.broker.subscribe(group("t").dead_letter("t.dead")).await.unwrap();
    let mut letters = scene.broker.subscribe(group("t.dead")).await.unwrap();
    scene.broker.publish("t", Message::new("x")).await.unwrap();
    next(&mut deliveries).await.reject("no").await.unwrap();
    process(&mut letters).await;
    let (send, letter) = (scene.span("send t"), scene.span("process t.dead"));
    assert_eq!(letter.parent_span_id, send.span_context.span_id());
    assert_eq!(attribute(&letter, "traced_broker.hop").as_deref(), Some("dead_letter"));
    let redriven = scene.broker.redrive("t.dead").idle(Duration::from_millis(200)).run().await.unwrap();
    assert_eq!(redriven.sent_back, 1);
    process(&mut deliveries).await;
    let process = scene.span("process t");
    assert_eq!(attribute(&process, "traced_broker.hop").as_deref(), Some("replay"));
    assert_eq!(process.links[0].span_context.span_id(), send.span_context.span_id());
    assert_ne!(process.span_context.trace_id(), send.span_context.trace_id());
}

#[tokio::test]
async fn baggage_reaches_the_handler_of_a_linked_message_too() {
    for (policy, expected) in [(TracePolicy::Parent, 1), (TracePolicy::Link, 1), (TracePolicy::Ignore, 0)] {
        let scene = Scene::new();
        let mut deliveries = scene.broker.subscribe(group("t").trace_policy(policy)).await.unwrap();
        let context = Context::new().with_baggage([KeyValue::new("tenant", "acme")]);
        scene.broker.publish("t", Message::new("x").context(context)).await.unwrap();
        let seen = next(&mut deliveries).await.process(|_| async {
            assert_eq!(Context::current().baggage().len(), expected);
            Ok(())
        });
        assert!(seen.await.unwrap().error.is_none(), "{policy:?}");
    }
}

/// Without spans, a link would lose the trace.
#[tokio::test]
async fn without_an_sdk_a_linked_context_is_passed_through() {
    for (policy, is_passed) in [(TracePolicy::Link, true), (TracePolicy::Ignore, false)] {
        let broker = Traced::new(Memory::new());
        let mut deliveries = broker.subscribe(group("t").trace_policy(policy)).await.unwrap();
        broker.publish("t", Message::new("x").context(remote("a=1"))).await.unwrap();
        let seen = next(&mut deliveries).await.process(|_| async {
            assert_eq!(Context::current().span().span_context().is_valid(), is_passed);
            Ok(())
        });
        assert!(seen.await.unwrap().error.is_none(), "{policy:?}");
    }
}
