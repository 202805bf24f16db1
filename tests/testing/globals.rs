//! Applications that use the global tracer provider.

use opentelemetry::global;
use opentelemetry::trace::{Span as _, SpanKind, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use traced_broker::testing::{Capture, TestBed};
use traced_broker::verify::Value;
use traced_broker::{
    HandlerError, Job, Message, Received, Subscription, TracePolicy, TraceReference, TracedBroker, TracedBrokerExt,
    connect,
};

fn work(name: &'static str) {
    global::tracer("application").in_span(name, |context| {
        context.span().set_attributes([
            KeyValue::new("text", "abc"),
            KeyValue::new("number", 7),
            KeyValue::new("share", 0.5),
            KeyValue::new("flag", true),
            KeyValue::new("list", opentelemetry::Value::Array(vec![1_i64, 2].into())),
        ]);
        context.span().add_event("done", vec![KeyValue::new("how", "well")]);
    });
}

async fn pack(_: Received) -> Result<(), HandlerError> {
    tokio::task::yield_now().await;
    work("pack");
    Ok(())
}

#[tokio::test]
async fn what_a_handler_does_with_a_global_tracer_is_captured_under_its_service() {
    let bed = TestBed::new();
    let worker = bed.broker("worker");
    let consumer = worker.consume(Subscription::new("orders").group("workers"), pack).subscribed().await.unwrap();
    tokio::spawn(consumer.run());
    let api = bed.broker("api");
    bed.in_root_span("api", "POST /orders", async {
        work("validate");
        api.publish("orders", Message::new("shoes")).await.unwrap();
    })
    .await;
    bed.settled().await.unwrap();

    let trace = bed.trace("POST /orders");
    trace.assert_whole().spans(["POST /orders", "validate", "send orders", "process orders", "pack"]);
    assert_eq!((&*trace.span("validate").service, &*trace.span("pack").service), ("api", "worker"));
    let pack = trace.span("pack");
    assert_eq!(pack.attributes.text("text"), Some("abc"));
    assert_eq!(pack.attributes.int("number"), Some(7));
    assert_eq!(pack.attributes.double("share"), Some(0.5));
    assert_eq!(pack.attributes.get("flag"), Some(&Value::Bool(true)));
    assert_eq!(pack.attributes.get("list"), Some(&Value::Array(vec![Value::Int(1), Value::Int(2)])));
    assert_eq!((pack.events.len(), &*pack.events[0].name), (1, "done"));
    assert_eq!(pack.events[0].attributes.text("how"), Some("well"));
}

/// A stand-alone application: it connects by URL and knows only the global provider.
async fn application(url: String, policy: TracePolicy) {
    let broker = connect(url).await.unwrap();
    let workers = Subscription::new("orders").group("workers").trace_policy(policy);
    broker.consume(workers, pack).run().await.unwrap();
}

#[tokio::test]
async fn an_application_that_connects_by_itself_is_captured_by_its_messages() {
    for (policy, root) in [(TracePolicy::Parent, "POST /orders"), (TracePolicy::Link, "process orders")] {
        let bed = TestBed::new();
        let running = tokio::spawn(application(bed.url(), policy));
        let api = bed.broker("api");
        bed.in_root_span("api", "POST /orders", api.publish("orders", Message::new("shoes"))).await.unwrap();
        // The consumer has not subscribed yet; `settled` waits for it.
        bed.settled().await.unwrap();
        assert!(!running.is_finished());
        bed.capture().assert_whole();
        let trace = bed.trace(root);
        trace.hops(["orders"]);
        assert_eq!(&*trace.span("process orders").service, "unknown_service");
        assert_eq!(trace.span("pack").parent, Some(trace.span("process orders").span_id));
    }
}

/// The stored reference is its only tie to the test.
#[tokio::test]
async fn a_job_in_a_task_of_its_own_is_captured_by_what_it_links() {
    let capture = Capture::new();
    let asked =
        capture.in_root_span("api", "POST /reports", async { TraceReference::current().unwrap().to_string() }).await;
    let job = tokio::spawn(async move {
        let report = Job::new("report").reference(asked.parse().unwrap());
        let write = async {
            work("write");
            Ok::<_, HandlerError>(())
        };
        report.run(write).await.unwrap();
    });
    job.await.unwrap();
    capture.assert_whole();
    capture
        .trace("POST /reports")
        .linked("job report")
        .follow("job report")
        .spans(["job report", "write"])
        .links_to("POST /reports");
}

#[tokio::test]
async fn what_belongs_to_no_capture_is_missing_as_a_whole() {
    let capture = Capture::new();
    let tracer = global::tracer("application");
    let foreign = tracer.start_with_context("outside", &Context::new());
    assert!(foreign.span_context().is_valid() && !foreign.span_context().is_sampled());
    let within = Context::new().with_span(foreign);
    let child = tracer.start_with_context("below", &within);
    assert_eq!(child.span_context().trace_id(), within.span().span_context().trace_id());
    assert!(!child.span_context().is_sampled());
    capture.scope(async { tracer.span_builder("own").with_kind(SpanKind::Server).start(&tracer) }).await.end();
    assert_eq!(capture.traces().len(), 1);
    assert_eq!(capture.traces().iter().next().unwrap().spans()[0].name, "own");
}

#[tokio::test]
async fn a_scope_keeps_what_is_current_and_a_root_span_does_not() {
    let capture = Capture::new();
    capture
        .in_root_span("shop", "outer", async {
            capture.scope(async { work("inner") }).await;
            capture.in_root_span("shop", "another", async { work("apart") }).await;
        })
        .await;
    capture.trace("outer").assert_whole().spans(["outer", "inner"]);
    capture.trace("another").assert_whole().spans(["another", "apart"]);
}

#[tokio::test]
async fn an_unsampled_context_stays_so() {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    let bed = TestBed::new();
    let worker = bed.broker("worker");
    let consumer = worker.consume(Subscription::new("orders").group("workers"), pack).subscribed().await.unwrap();
    tokio::spawn(consumer.run());
    let (trace, span) = (TraceId::from(0xabc_u128), SpanId::from(0xdef_u64));
    let unsampled = SpanContext::new(trace, span, TraceFlags::default(), true, TraceState::default());
    let context = Context::new().with_remote_span_context(unsampled);
    bed.broker("api").publish("orders", Message::new("shoes").context(context)).await.unwrap();
    bed.settled().await.unwrap();
    assert!(bed.capture().traces().is_empty());
    let sent = &bed.messages("orders")[0];
    assert!(sent.headers.get_str("traceparent").unwrap().starts_with(&format!("00-{trace}-")));
    assert!(sent.headers.get_str("traceparent").unwrap().ends_with("-00"));
}
