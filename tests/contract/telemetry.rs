//! Traces, checked on the spans that were exported.

use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use traced_broker::{HandlerError, Message, TracePolicy, TracedBroker, span};

use super::World;
use super::world::{assert_kind, assert_linked, attribute, attribute_text, next, text, within};

pub(crate) async fn makes_one_trace_of_send_and_process(world: &World) {
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g")).await.unwrap();
    let root = world.root("POST /orders");
    broker.publish(&world.topic, Message::new("x").key("k").context(root.clone())).await.unwrap();

    let delivery = next(&mut deliveries).await;
    let handler_began = SystemTime::now();
    let provider = world.provider.clone();
    delivery
        .process(|_| async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            // What the application does is inside, after an await too.
            let tracer = provider.tracer("application");
            drop(tracer.start("ship"));
            Ok(())
        })
        .await
        .unwrap();
    root.span().end();
    broker.close().await.unwrap();

    let [root, send, process, ship] = [
        world.the_span("POST /orders"),
        world.the_span(&world.send_name()),
        world.the_span(&world.process_name()),
        world.the_span("ship"),
    ];
    world.assert_everything_resolves();
    for span in [&send, &process, &ship] {
        assert_eq!(span.span_context.trace_id(), root.span_context.trace_id(), "{} is in the trace", span.name);
    }
    assert_eq!(send.parent_span_id, root.span_context.span_id());
    assert_eq!(process.parent_span_id, send.span_context.span_id(), "child of the creation context");
    assert_linked(&process, &send.span_context);
    assert_eq!(ship.parent_span_id, process.span_context.span_id());
    assert_kind(&send, SpanKind::Producer);
    assert_kind(&process, SpanKind::Consumer);
    assert_eq!((&send.status, &process.status), (&Status::Unset, &Status::Unset));
    assert!(process.start_time <= handler_began + Duration::from_millis(1));
    assert!(process.end_time >= ship.end_time, "ends after the handler");

    let system = broker.system();
    for (span, operation) in [(&send, "send"), (&process, "process")] {
        assert_eq!(attribute_text(span, "messaging.system"), system);
        assert_eq!(attribute_text(span, "messaging.operation.name"), operation);
        assert_eq!(attribute_text(span, "messaging.operation.type"), operation);
        assert!(attribute_text(span, "messaging.destination.name").contains(&world.topic));
        if system != "memory" {
            assert!(attribute(span, "server.address").is_some() && attribute(span, "server.port").is_some());
        }
    }
    assert_eq!(attribute_text(&process, "messaging.consumer.group.name"), world.group_name("g"));
    assert!(attribute(&send, "messaging.consumer.group.name").is_none());
    assert_eq!(attribute_text(&process, span::DELIVERY_ATTEMPT), "1");
    assert_eq!(attribute_text(&process, span::SETTLEMENT), "ack");
    let queued: f64 = attribute_text(&process, span::QUEUE_DURATION).parse().expect("seconds");
    assert!((0.0..20.0).contains(&queued), "{queued} s in the queue");
}

pub(crate) async fn keeps_retries_in_the_trace(world: &World) {
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g")).await.unwrap();
    broker.publish(&world.topic, Message::new("x")).await.unwrap();
    for _ in 0..3 {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.message().headers().get_all("traceparent").count(), 1, "never accumulates");
        let handler = |message: traced_broker::Received| async move {
            if message.attempt() < 3 {
                return Err(HandlerError::retry_after("not yet", Duration::from_millis(50)));
            }
            Ok(())
        };
        delivery.process(handler).await.unwrap();
    }
    broker.close().await.unwrap();
    world.assert_everything_resolves();
    let send = world.the_span(&world.send_name());
    let attempts = world.spans_named(&world.process_name());
    assert_eq!(attempts.len(), 3, "a span per attempt");
    for (index, span) in attempts.iter().enumerate() {
        assert_eq!(span.parent_span_id, send.span_context.span_id());
        assert_linked(span, &send.span_context);
        assert_eq!(attribute_text(span, span::DELIVERY_ATTEMPT), (index + 1).to_string());
        let failed = index < 2;
        assert_eq!(matches!(span.status, Status::Error { .. }), failed, "attempt {}", index + 1);
        assert_eq!(attribute_text(span, "error.type"), if failed { "handler_error" } else { "" });
        assert_eq!(attribute_text(span, span::SETTLEMENT), if failed { "retry" } else { "ack" });
    }
}

pub(crate) async fn gives_each_message_of_a_batch_its_own_context(world: &World) {
    const COUNT: usize = 150;
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g").prefetch(COUNT)).await.unwrap();
    let root = world.root("import");
    let guard = root.clone().attach();
    let messages = (0..COUNT).map(|number| Message::new(number.to_string()).key("one")).collect();
    let publish = broker.publish_batch(&world.topic, messages);
    drop(guard);
    let results = publish.await;
    assert_eq!(results.len(), COUNT);
    assert!(results.iter().all(Result::is_ok));
    let mut order = Vec::new();
    for _ in 0..COUNT {
        let delivery = next(&mut deliveries).await;
        order.push(text(delivery.message().payload()));
        delivery.process(|_| async { Ok(()) }).await.unwrap();
    }
    root.span().end();
    broker.close().await.unwrap();
    assert_eq!(order, (0..COUNT).map(|number| number.to_string()).collect::<Vec<_>>());

    world.assert_everything_resolves();
    let creates = world.spans_named(&format!("create {}", world.topic));
    let sends = world.spans_named(&world.send_name());
    let processes = world.spans_named(&world.process_name());
    assert_eq!((creates.len(), sends.len(), processes.len()), (COUNT, 2, COUNT));
    let mut linked: Vec<SpanId> =
        sends.iter().flat_map(|send| send.links.iter()).map(|link| link.span_context.span_id()).collect();
    let mut created: Vec<SpanId> = creates.iter().map(|create| create.span_context.span_id()).collect();
    let mut parents: Vec<SpanId> = processes.iter().map(|process| process.parent_span_id).collect();
    for ids in [&mut linked, &mut created, &mut parents] {
        ids.sort_by_key(|id| id.to_bytes());
    }
    assert!(linked == created && parents == created, "each message has its own creation context");
    for send in &sends {
        assert_kind(send, SpanKind::Client);
        assert_eq!(send.links.dropped_count, 0);
        assert_eq!(attribute_text(send, "messaging.batch.message_count"), send.links.len().to_string());
    }
    creates.iter().for_each(|create| assert_kind(create, SpanKind::Producer));
    let trace = root.span().span_context().trace_id();
    assert!(world.spans().iter().all(|span| span.span_context.trace_id() == trace), "one trace");
}

pub(crate) async fn keeps_the_creation_context_when_forwarding(world: &World) {
    let onward = format!("{}.onward", world.topic);
    let broker = world.broker().await;
    let mut first = broker.subscribe(world.group("g")).await.unwrap();
    let mut second = broker.subscribe(world.group_on(&onward, "g")).await.unwrap();
    broker.publish(&world.topic, Message::new("x").header("tenant", "acme")).await.unwrap();
    let forwarder = broker.clone();
    let to = onward.clone();
    next(&mut first)
        .await
        .process(|message| async move { Ok(forwarder.forward(&to, Message::from(&message)).await?) })
        .await
        .unwrap();
    let delivery = next(&mut second).await;
    assert_eq!(delivery.message().headers().get_all("traceparent").count(), 1);
    assert_eq!(delivery.message().headers().get_str("tenant"), Some("acme"));
    delivery.process(|_| async { Ok(()) }).await.unwrap();
    broker.close().await.unwrap();

    world.assert_everything_resolves();
    let created = world.the_span(&world.send_name());
    let processed = world.the_span(&world.process_name());
    let forwarded = world.the_span(&format!("send {onward}"));
    let last = world.the_span(&format!("process {onward}"));
    assert_kind(&forwarded, SpanKind::Client);
    assert_linked(&forwarded, &created.span_context);
    assert_eq!(forwarded.parent_span_id, processed.span_context.span_id(), "the caller's context");
    assert_eq!(last.parent_span_id, created.span_context.span_id(), "the message keeps its own");
}

pub(crate) async fn carries_unsampled_contexts(world: &World) {
    let broker = world.untraced().await.with_tracer_provider(&world.unsampled());
    let mut deliveries = broker.subscribe(world.group("g")).await.unwrap();
    let parent = remote(0xabc, 0xdef, TraceFlags::default());
    broker.publish(&world.topic, Message::new("x").context(parent)).await.unwrap();
    let delivery = next(&mut deliveries).await;
    let creation = delivery.creation_context();
    assert_eq!(creation.span().span_context().trace_id(), TraceId::from(0xabc));
    assert!(!creation.span().span_context().is_sampled(), "the decision is kept");
    let seen = delivery.process(|_| async {
        assert_eq!(Context::current().span().span_context().trace_id(), TraceId::from(0xabc));
        assert!(!Context::current().span().span_context().is_sampled());
        Ok(())
    });
    assert!(seen.await.unwrap().error.is_none());
    broker.close().await.unwrap();
    assert!(world.spans().is_empty());
}

pub(crate) async fn carries_contexts_without_an_sdk(world: &World) {
    let broker = world.untraced().await;
    let mut deliveries = broker.subscribe(world.group("g")).await.unwrap();
    let parent = remote(0x123, 0x456, TraceFlags::SAMPLED);
    broker.publish(&world.topic, Message::new("x").context(parent)).await.unwrap();
    broker.publish(&world.topic, Message::new("no context at all")).await.unwrap();

    let delivery = next(&mut deliveries).await;
    let expected = format!("00-{:032x}-{:016x}-01", 0x123, 0x456);
    assert_eq!(delivery.message().headers().get_str("traceparent"), Some(&*expected));
    let onward = format!("{}.onward", world.topic);
    let mut last = broker.subscribe(world.group_on(&onward, "g")).await.unwrap();
    let (publisher, to) = (broker.clone(), onward.clone());
    delivery.process(|_| async move { Ok(publisher.publish(&to, Message::new("y")).await?) }).await.unwrap();
    let forwarded = next(&mut last).await;
    assert_eq!(forwarded.message().headers().get_str("traceparent"), Some(&*expected), "handed on by the handler");
    forwarded.ack().await.unwrap();

    let bare = next(&mut deliveries).await;
    assert!(!bare.message().headers().contains("traceparent"), "no context is no header");
    bare.ack().await.unwrap();
    broker.close().await.unwrap();
}

pub(crate) async fn uses_the_users_propagator(world: &World) {
    let broker = world.broker().await.with_propagator(OneHeader);
    let mut deliveries = broker.subscribe(world.group("g")).await.unwrap();
    let stale = "00-11111111111111111111111111111111-2222222222222222-01";
    let message = Message::new("x").header("traceparent", stale).header("X-One-Context", "stale");
    broker.publish(&world.topic, message).await.unwrap();
    let delivery = next(&mut deliveries).await;
    let headers = delivery.message().headers();
    assert!(!headers.contains("traceparent"), "a stale context does not travel beside the user's");
    assert_eq!(headers.get_all("x-one-context").count(), 1);
    delivery.process(|_| async { Ok(()) }).await.unwrap();
    broker.close().await.unwrap();
    world.assert_everything_resolves();
    let send = world.the_span(&world.send_name());
    assert_eq!(world.the_span(&world.process_name()).parent_span_id, send.span_context.span_id());
}

pub(crate) async fn carries_tracestate_and_baggage(world: &World) {
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g")).await.unwrap();
    let state = TraceState::from_key_value([("vendor", "a"), ("other", "b")]).unwrap();
    let remote = SpanContext::new(TraceId::from(7), SpanId::from(8), TraceFlags::SAMPLED, true, state);
    let context = Context::new()
        .with_remote_span_context(remote)
        .with_baggage([KeyValue::new("tenant", "acme, inc=1"), KeyValue::new("stage", "größe")]);
    broker.publish(&world.topic, Message::new("x").context(context)).await.unwrap();
    let delivery = next(&mut deliveries).await;
    assert_eq!(delivery.message().headers().get_str("tracestate"), Some("vendor=a,other=b"));
    let seen = delivery.process(|_| async {
        let current = Context::current();
        assert_eq!(current.baggage().get("tenant").map(|value| value.to_string()), Some("acme, inc=1".to_owned()));
        assert_eq!(current.baggage().get("stage").map(|value| value.to_string()), Some("größe".to_owned()));
        assert_eq!(current.span().span_context().trace_state().header(), "vendor=a,other=b");
        Ok(())
    });
    let processed = seen.await.unwrap();
    assert!(processed.error.is_none(), "{:?}", processed.error);
    broker.close().await.unwrap();
}

pub(crate) async fn never_mixes_contexts_of_concurrent_deliveries(world: &World) {
    const COUNT: u64 = 1_000;
    let broker = world.broker().await;
    let deliveries = broker.subscribe(world.group("g").prefetch(128)).await.unwrap();
    let publishes = (1..=COUNT).map(|number| {
        let context = remote(u128::from(number), number, TraceFlags::SAMPLED);
        let context = context.with_baggage([KeyValue::new("number", number.to_string())]);
        broker.publish(&world.topic, Message::new(number.to_string()).key(number.to_string()).context(context))
    });
    let all = futures_util::future::join_all(publishes);
    assert!(all.await.iter().all(Result::is_ok));
    let work = deliveries.take(COUNT as usize).for_each_concurrent(64, |delivery| async {
        let processed = delivery
            .expect("delivered")
            .process(|message| async move {
                tokio::task::yield_now().await;
                let number: u64 = text(message.payload()).parse()?;
                let current = Context::current();
                assert_eq!(current.span().span_context().trace_id(), TraceId::from(u128::from(number)));
                assert_eq!(current.baggage().get("number").map(ToString::to_string), Some(number.to_string()));
                Ok(())
            })
            .await;
        let error = processed.expect("settles").error;
        assert!(error.is_none(), "{error:?}");
    });
    within("all deliveries", work).await;
    broker.close().await.unwrap();
    assert_eq!(world.spans_named(&world.process_name()).len(), COUNT as usize, "one span per delivery");
}

pub(crate) async fn ends_the_span_of_a_cancelled_handler(world: &World) {
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g")).await.unwrap();
    broker.publish(&world.topic, Message::new("x")).await.unwrap();
    let slow = next(&mut deliveries).await.process(|_| async {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        Ok(())
    });
    assert!(tokio::time::timeout(Duration::from_millis(50), slow).await.is_err());
    let delivery = next(&mut deliveries).await;
    assert_eq!(delivery.message().attempt(), 2, "handed out again");
    delivery.process(|_| async { Ok(()) }).await.unwrap();
    broker.close().await.unwrap();
    let spans = world.spans_named(&world.process_name());
    assert_eq!(spans.len(), 2);
    assert_eq!(attribute_text(&spans[0], "error.type"), "cancelled");
    assert!(spans[0].end_time.duration_since(spans[0].start_time).unwrap() >= Duration::from_millis(40));
}

pub(crate) async fn keeps_the_receiving_loop_out_of_the_trace(world: &World) {
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g")).await.unwrap();
    let driver = broker.get_ref();
    let topic = traced_broker::Topic::new(&world.topic).unwrap();
    let bare = traced_broker::driver::Outbound::new;
    traced_broker::driver::Driver::declare(driver, &topic).await.unwrap();
    traced_broker::driver::Driver::publish(driver, &topic, bare("no context")).await.unwrap();
    broker.publish(&world.topic, Message::new("own context")).await.unwrap();
    let around = world.root("receiving loop");
    for _ in 0..2 {
        let delivery = next(&mut deliveries).await;
        let work = delivery.process(|_| async { Ok(()) });
        opentelemetry::context::FutureExt::with_context(work, around.clone()).await.unwrap();
    }
    around.span().end();
    broker.close().await.unwrap();
    let around = world.the_span("receiving loop");
    for process in world.spans_named(&world.process_name()) {
        assert_ne!(process.span_context.trace_id(), around.span_context.trace_id());
        assert_linked(&process, &around.span_context);
    }
}

pub(crate) async fn links_instead_of_parenting_when_asked(world: &World) {
    let broker = world.broker().await;
    let mut linked = broker.subscribe(world.group("linked").trace_policy(TracePolicy::Link)).await.unwrap();
    let mut alone = broker.subscribe(world.group("alone").trace_policy(TracePolicy::Ignore)).await.unwrap();
    broker.publish(&world.topic, Message::new("x")).await.unwrap();
    next(&mut linked).await.process(|_| async { Ok(()) }).await.unwrap();
    next(&mut alone).await.process(|_| async { Ok(()) }).await.unwrap();
    broker.close().await.unwrap();
    let send = world.the_span(&world.send_name());
    for process in world.spans_named(&world.process_name()) {
        assert_eq!(process.parent_span_id, SpanId::INVALID);
        assert_ne!(process.span_context.trace_id(), send.span_context.trace_id());
        match attribute_text(&process, "messaging.consumer.group.name") {
            group if group == world.group_name("linked") => assert_linked(&process, &send.span_context),
            _ => assert!(process.links.is_empty()),
        }
    }
}

fn remote(trace: u128, span: u64, flags: TraceFlags) -> Context {
    let context = SpanContext::new(TraceId::from(trace), SpanId::from(span), flags, true, TraceState::default());
    Context::new().with_remote_span_context(context)
}

/// A propagator that is not the W3C's: everything in one header.
#[derive(Debug)]
struct OneHeader;

const ONE_HEADER: &str = "X-One-Context";

impl TextMapPropagator for OneHeader {
    fn inject_context(&self, context: &Context, injector: &mut dyn Injector) {
        let span = context.span().span_context().clone();
        injector.set(ONE_HEADER, format!("{}/{}", span.trace_id(), span.span_id()));
    }

    fn extract_with_context(&self, context: &Context, extractor: &dyn Extractor) -> Context {
        let ids = extractor.get(ONE_HEADER).and_then(|value| value.split_once('/'));
        let Some((trace, span)) = ids else { return context.clone() };
        let (Ok(trace), Ok(span)) = (TraceId::from_hex(trace), SpanId::from_hex(span)) else { return context.clone() };
        context.with_remote_span_context(SpanContext::new(
            trace,
            span,
            TraceFlags::SAMPLED,
            true,
            TraceState::default(),
        ))
    }

    fn fields(&self) -> FieldIter<'_> {
        static FIELDS: std::sync::LazyLock<[String; 1]> = std::sync::LazyLock::new(|| [ONE_HEADER.to_owned()]);
        FieldIter::new(&*FIELDS)
    }
}
