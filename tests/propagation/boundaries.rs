//! Contexts and baggage at a trust boundary.

use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{TraceContextExt, TraceId};
use opentelemetry::{Context, KeyValue};
use traced_broker::adapters::memory::Memory;
use traced_broker::{Message, TracePolicy, Traced, TracedBroker, TrustBoundary};

use crate::scene::{Scene, attribute, group, next, remote};

fn from_outside() -> Message {
    let baggage = [KeyValue::new("tenant", "acme"), KeyValue::new("role", "admin")];
    Message::new("x").context(remote("vendor=1").with_baggage(baggage))
}

#[tokio::test]
async fn on_the_way_in_nothing_but_a_link_and_the_allowed_baggage_gets_through() {
    let scene = Scene::new();
    let guarded = group("t").trust_boundary(TrustBoundary::new().allow_baggage("tenant"));
    let mut deliveries = scene.broker.subscribe(guarded).await.unwrap();
    // An untrusted peer, whatever policy it requests.
    let stranger = Traced::new(scene.broker.get_ref().clone());
    stranger.publish("t", from_outside().trace_policy(TracePolicy::Parent)).await.unwrap();
    let delivery = next(&mut deliveries).await;
    assert!(!delivery.creation_context().span().span_context().is_sampled(), "the decision is ours");
    let seen = delivery.process(|_| async {
        let current = Context::current();
        assert_eq!(current.baggage().get("tenant").map(ToString::to_string).as_deref(), Some("acme"));
        assert_eq!(current.baggage().get("role"), None);
        assert_ne!(current.span().span_context().trace_id(), TraceId::from(7));
        assert_eq!(current.span().span_context().trace_state().header(), "");
        Ok(())
    });
    assert!(seen.await.unwrap().error.is_none());
    let process = scene.span("process t");
    assert_eq!(process.links.len(), 1);
    assert_eq!(process.links[0].span_context.trace_id(), TraceId::from(7));
    assert_eq!(process.links[0].span_context.trace_state().header(), "");
    assert_eq!(attribute(&process, "traced_broker.context.policy").as_deref(), Some("link"));
}

#[tokio::test]
async fn an_inbound_boundary_may_keep_tracestate_and_may_ignore_everything() {
    let scene = Scene::new();
    let keeping = group("t").trust_boundary(TrustBoundary::new().keep_tracestate());
    let mut deliveries = scene.broker.subscribe(keeping).await.unwrap();
    let ignoring = traced_broker::Subscription::new("t").group("other").trust_boundary(TrustBoundary::new());
    let mut ignored = scene.broker.subscribe(ignoring.trace_policy(TracePolicy::Ignore)).await.unwrap();
    Traced::new(scene.broker.get_ref().clone()).publish("t", from_outside()).await.unwrap();
    next(&mut deliveries).await.process(|_| async { Ok(()) }).await.unwrap();
    next(&mut ignored).await.process(|_| async { Ok(()) }).await.unwrap();
    let spans = scene.spans("process t");
    assert_eq!(spans[0].links[0].span_context.trace_state().header(), "vendor=1");
    assert_eq!(spans[1].links.len(), 0);
}

/// Without spans, an untrusted peer's context still ends at the boundary.
#[tokio::test]
async fn without_an_sdk_a_strangers_context_is_not_passed_through() {
    let broker = Traced::new(Memory::new());
    let mut deliveries = broker.subscribe(group("t").trust_boundary(TrustBoundary::new())).await.unwrap();
    broker.publish("t", from_outside()).await.unwrap();
    let seen = next(&mut deliveries).await.process(|_| async {
        assert!(!Context::current().span().span_context().is_valid());
        assert!(Context::current().baggage().is_empty());
        Ok(())
    });
    assert!(seen.await.unwrap().error.is_none());
}

#[tokio::test]
async fn on_the_way_out_only_the_ids_and_what_is_allowed_travel() {
    let scene = Scene::new();
    let boundary = TrustBoundary::new().allow_baggage("tenant");
    let outward = scene.broker.clone().with_trust_boundary(boundary.clone());
    let mut deliveries = scene.broker.subscribe(group("t")).await.unwrap();
    outward.publish("t", from_outside()).await.unwrap();
    scene.broker.publish("t", from_outside().trust_boundary(boundary)).await.unwrap();
    scene.broker.publish("t", from_outside()).await.unwrap();
    for is_open in [false, false, true] {
        let delivery = next(&mut deliveries).await;
        let headers = delivery.message().headers();
        assert_eq!(headers.get_all("traceparent").count(), 1);
        let parent = headers.get_str("traceparent").unwrap();
        assert!(parent.contains(&format!("{:032x}", 7)) && parent.ends_with("-01"), "{parent}");
        assert_eq!(headers.get_str("tracestate"), is_open.then_some("vendor=1"));
        let baggage = headers.get_str("baggage").unwrap();
        assert_eq!(baggage.contains("role"), is_open, "{baggage}");
        assert!(baggage.contains("tenant=acme"), "{baggage}");
        delivery.ack().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_forwarded_outward_is_bounded_too() {
    let scene = Scene::new();
    let outward = scene.broker.clone().with_trust_boundary(TrustBoundary::new());
    let mut deliveries = scene.broker.subscribe(group("t")).await.unwrap();
    let message = Message::new("x")
        .header("traceparent", "00-00000000000000000000000000000007-0000000000000008-01")
        .header("tracestate", "vendor=1")
        .header("baggage", "role=admin");
    outward.forward("t", message).await.unwrap();
    let delivery = next(&mut deliveries).await;
    let headers = delivery.message().headers();
    assert!(headers.contains("traceparent") && !headers.contains("tracestate") && !headers.contains("baggage"));
    delivery.ack().await.unwrap();
}
