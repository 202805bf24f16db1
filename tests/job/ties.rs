//! The ties of a job's span, by its style.

use std::sync::Arc;
use traced_broker::names::attribute;

use futures_util::StreamExt;
use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{SpanId, SpanKind, TraceContextExt};
use opentelemetry_sdk::trace::SpanData;
use traced_broker::adapters::memory::Memory;
use traced_broker::{JobStyle, Message, Subscription, TraceReference, Traced, TracedBroker, trace_ids};

use super::exported::{Exported, attribute, linked, same};

type Done = Result<(), std::convert::Infallible>;

async fn nothing() -> Done {
    Ok(())
}

fn spans_of(references: &[TraceReference]) -> Vec<SpanId> {
    references.iter().map(|reference| reference.traceparent().span_id()).collect()
}

fn linked_ids(span: &SpanData) -> Vec<SpanId> {
    linked(span).iter().map(|context| context.span_id()).collect()
}

#[tokio::test]
async fn is_a_root_linked_to_all_who_asked_for_it() {
    let exported = Exported::new();
    let old = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00;1700000000000;asked%20by%20Ada;rojo=1";
    let mut references = exported.references(2);
    references.push(old.parse().unwrap());
    let job = exported.job("nightly report").trigger("schedule").job_type("report");
    job.references(references.clone()).run(nothing()).await.unwrap();

    let span = exported.one("job nightly report");
    assert_eq!((span.parent_span_id, span.span_kind.clone()), (SpanId::INVALID, SpanKind::Internal));
    let known = [attribute::JOB_NAME, attribute::JOB_TRIGGER, attribute::JOB_TYPE].map(|key| attribute(&span, key));
    assert_eq!(known, ["nightly report", "schedule", "report"].map(|value| Some(value.to_owned())));
    assert!(references.iter().all(|reference| reference.traceparent().trace_id() != span.span_context.trace_id()));
    assert_eq!(linked_ids(&span), spans_of(&references));
    assert_eq!(linked(&span)[2], references[2].span_context(), "flags and tracestate, too");

    let told = |index: usize, key: &str| {
        let link = &span.links.links[index];
        link.attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| pair.value.clone())
    };
    let age = |index: usize| match told(index, attribute::REFERENCE_AGE) {
        Some(opentelemetry::Value::F64(seconds)) => seconds,
        other => panic!("{other:?}"),
    };
    assert!((0.0..60.0).contains(&age(0)) && age(2) > 90_000_000.0, "{} and {} s", age(0), age(2));
    assert_eq!(told(0, attribute::REFERENCE_NOTE), None);
    assert_eq!(told(2, attribute::REFERENCE_NOTE), Some("asked by Ada".into()));
    assert_eq!(span.status, opentelemetry::trace::Status::Unset);
}

#[tokio::test]
async fn its_span_is_current_for_the_work() {
    let exported = Exported::new();
    let broker = Traced::new(Arc::new(Memory::new())).with_tracer_provider(&exported.provider);
    let mut deliveries = broker.subscribe(Subscription::new("reports").group("g")).await.unwrap();
    let work = async {
        let before = trace_ids();
        tokio::task::yield_now().await;
        assert_eq!(trace_ids(), before, "after an await as well");
        broker.publish("reports", Message::new("x")).await.map(|_| before)
    };
    let ids = exported.job("report").references(exported.references(1)).run(work).await.unwrap().unwrap();
    assert_eq!(trace_ids(), None, "and no longer");

    let (job, send) = (exported.one("job report"), exported.one("send reports"));
    assert_eq!((ids.trace_id(), ids.span_id()), (job.span_context.trace_id(), job.span_context.span_id()));
    assert_eq!(send.parent_span_id, job.span_context.span_id());
    let carried = deliveries.next().await.unwrap().unwrap().creation_context();
    assert!(same(carried.span().span_context(), &send.span_context));
}

#[tokio::test]
async fn is_a_child_of_the_first_where_told_so() {
    let exported = Exported::new();
    let references = exported.references(3);
    exported.job("mail").style(JobStyle::Child).references(references.clone()).run(nothing()).await.unwrap();
    let span = exported.one("job mail");
    assert_eq!(span.parent_span_id, references[0].traceparent().span_id());
    assert_eq!(span.span_context.trace_id(), references[0].traceparent().trace_id());
    assert_eq!(linked_ids(&span), spans_of(&references[1..]));

    exported.job("alone").style(JobStyle::Child).run(nothing()).await.unwrap();
    let alone = exported.one("job alone");
    assert_eq!((alone.parent_span_id, alone.links.len()), (SpanId::INVALID, 0));
}

#[tokio::test]
async fn is_tied_to_nothing_where_told_so() {
    let exported = Exported::new();
    let caller = exported.root("scheduler");
    let job = exported.job("cleanup").style(JobStyle::None).references(exported.references(2));
    let run = {
        let _current = caller.clone().attach();
        job.run(nothing())
    };
    run.await.unwrap();
    let span = exported.one("job cleanup");
    assert_eq!((span.parent_span_id, span.links.len()), (SpanId::INVALID, 0));
    assert_ne!(span.span_context.trace_id(), caller.span().span_context().trace_id());
}

/// A span with its own baggage around the scheduler's loop.
#[tokio::test]
async fn is_linked_to_who_runs_it_and_not_in_its_trace() {
    let exported = Exported::new();
    let caller = exported.root("scheduler").with_baggage([opentelemetry::KeyValue::new("loop", "1")]);
    let work = async {
        assert_eq!(Context::current().baggage().len(), 0, "the loop's baggage is not the job's");
        Ok::<_, std::convert::Infallible>(())
    };
    // Called within the span, run in another task, as with `tokio::spawn`.
    let run = {
        let _current = caller.clone().attach();
        exported.job("called").references(exported.references(1)).run(work)
    };
    tokio::spawn(run).await.unwrap().unwrap();
    let span = exported.one("job called");
    assert_eq!(span.parent_span_id, SpanId::INVALID);
    assert_ne!(span.span_context.trace_id(), caller.span().span_context().trace_id());
    assert_eq!(linked_ids(&span)[..1], [caller.span().span_context().span_id()]);
    assert_eq!(span.links.len(), 2);

    // The request and the runner are the same span: one link.
    let itself = async { exported.job("itself").references(TraceReference::current()).run(nothing()).await };
    itself.with_context(caller.clone()).await.unwrap();
    let span = exported.one("job itself");
    assert_eq!(linked_ids(&span), [caller.span().span_context().span_id()]);
}

#[tokio::test]
async fn drops_none_of_a_thousand_links() {
    let exported = Exported::new();
    let references = exported.references(1000);
    exported.job("bulk").trigger("schedule").references(references.clone()).run(nothing()).await.unwrap();
    let root = exported.one("job bulk");
    let more = exported.named("job bulk links");
    assert_eq!((root.links.len(), more.len()), (128, 7));
    let mut ids = linked_ids(&root);
    for span in &more {
        assert_eq!(span.parent_span_id, root.span_context.span_id());
        assert_eq!(attribute(span, attribute::JOB_TRIGGER).as_deref(), Some("schedule"));
        assert!(span.start_time >= root.start_time && span.end_time <= root.end_time, "within the job");
        ids.extend(linked_ids(span));
    }
    assert!(exported.all().iter().all(|span| span.links.dropped_count == 0));
    let mut expected = spans_of(&references);
    ids.sort_unstable_by_key(|id| id.to_bytes());
    expected.sort_unstable_by_key(|id| id.to_bytes());
    assert_eq!(ids, expected, "each once");
}
