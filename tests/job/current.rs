//! Work that a handler spawns, and the ids for its logs.

use std::sync::Arc;

use futures_util::StreamExt;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{SpanId, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use parking_lot::Mutex;
use traced_broker::adapters::memory::Memory;
use traced_broker::{Message, Subscription, TraceIds, Traced, TracedBroker, in_current, in_current_fn, trace_ids};

use super::exported::Exported;

/// Runs a handler over one message with baggage; `work` creates the handler's work.
async fn handle<F: Future<Output = ()>>(exported: &Exported, work: impl FnOnce(Traced<Arc<Memory>>) -> F) {
    let broker = Traced::new(Arc::new(Memory::new())).with_tracer_provider(&exported.provider);
    let mut deliveries = broker.subscribe(Subscription::new("orders").group("g")).await.unwrap();
    let sender = exported.root("request").with_baggage([KeyValue::new("tenant", "acme")]);
    broker.publish("orders", Message::new("x").context(sender)).await.unwrap();
    let delivery = deliveries.next().await.unwrap().unwrap();
    let work = work(broker.clone());
    let handled = delivery.process(|_| async {
        work.await;
        Ok(())
    });
    let processed = handled.await.unwrap();
    assert!(processed.error.is_none(), "a check in the handler: {:?}", processed.error);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_spawned_belongs_to_the_handler() {
    let exported = Exported::new();
    let tenants = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&tenants);
    handle(&exported, |broker| async move {
        let publish = |topic: &'static str| {
            let (broker, seen) = (broker.clone(), Arc::clone(&seen));
            async move {
                tokio::task::yield_now().await;
                seen.lock().push(Context::current().baggage().get("tenant").map(ToString::to_string));
                broker.publish(topic, Message::new("x")).await.unwrap();
            }
        };
        tokio::spawn(in_current(publish("carried"))).await.unwrap();
        tokio::spawn(publish("lost")).await.unwrap();
        let ids = tokio::task::spawn_blocking(in_current_fn(trace_ids)).await.unwrap();
        assert_eq!(ids, trace_ids());
        assert_eq!(tokio::task::spawn_blocking(trace_ids).await.unwrap(), None, "a thread begins with nothing");
        std::thread::scope(|scope| scope.spawn(in_current_fn(|| assert_eq!(trace_ids(), ids))).join().unwrap());
    })
    .await;
    let process = exported.one("process orders").span_context;
    assert_eq!(exported.one("send carried").parent_span_id, process.span_id());
    assert_eq!(exported.one("send lost").parent_span_id, SpanId::INVALID, "what the helper is for");
    assert_eq!(*tenants.lock(), [Some("acme".to_owned()), None]);
}

/// The context that is current at the call is carried, not the one where it is polled.
#[tokio::test]
async fn carries_what_was_current_at_the_call() {
    let exported = Exported::new();
    let (asking, driving) = (exported.root("asking"), exported.root("driving"));
    let ids_of =
        |context: &Context| (context.span().span_context().trace_id(), context.span().span_context().span_id());
    let asked = || trace_ids().map(|ids| (ids.trace_id(), ids.span_id()));
    let (work, function) = {
        let _current = asking.clone().attach();
        (in_current(async move { asked() }), in_current_fn(asked))
    };
    let _current = driving.clone().attach();
    assert_eq!(work.await, Some(ids_of(&asking)));
    assert_eq!(function(), Some(ids_of(&asking)));
    assert_eq!(asked(), Some(ids_of(&driving)), "and what is current here is so still");
    let nothing = {
        let _current = Context::new().attach();
        in_current(async move { asked() })
    };
    assert_eq!(nothing.await, None);
}

#[tokio::test]
async fn ids_are_those_of_the_process_span() {
    let exported = Exported::new();
    let mut seen: Option<TraceIds> = None;
    let ids = &mut seen;
    handle(&exported, |_| async move {
        tokio::task::yield_now().await;
        *ids = trace_ids();
    })
    .await;
    assert_eq!(trace_ids(), None, "outside of it");
    let process = exported.one("process orders").span_context;
    let ids = seen.unwrap();
    assert_eq!((ids.trace_id(), ids.span_id(), ids.is_sampled()), (process.trace_id(), process.span_id(), true));
    assert_eq!(ids.to_string(), format!("trace_id={:032x} span_id={:016x}", process.trace_id(), process.span_id()));
}
