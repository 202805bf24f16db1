//! Endings of jobs: success, error, panic, cancellation; also without an SDK or without sampling.

use std::sync::Arc;
use std::time::Duration;
use traced_broker::names::attribute;

use futures_util::FutureExt;
use opentelemetry::trace::{Link, SpanKind, Status, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, Sampler, SamplingResult, SdkTracerProvider, ShouldSample, SpanData,
};
use parking_lot::Mutex;
use traced_broker::{Error, ErrorKind, HandlerError, Job, JobStyle, TraceReference, trace_ids};

use super::exported::{Exported, attribute, linked, same};

fn failed(span: &SpanData) -> (Option<String>, &str) {
    let Status::Error { description } = &span.status else { panic!("{:?}", span.status) };
    (attribute(span, "error.type"), description)
}

#[tokio::test]
async fn an_error_is_told_and_given_back() {
    let exported = Exported::new();
    let io = exported.job("io").run(async { Err::<(), _>(std::io::Error::other("disk full")) }).await;
    assert_eq!(io.unwrap_err().to_string(), "disk full");
    assert_eq!(failed(&exported.one("job io")), (Some("job_error".to_owned()), "disk full"));

    let busy = || Error::new(ErrorKind::Busy, "full");
    exported.job("own").run(async { Err::<(), _>(busy()) }).await.unwrap_err();
    exported
        .job("boxed")
        .run(async { Err::<(), Box<dyn std::error::Error + Send + Sync>>(busy().into()) })
        .await
        .unwrap_err();
    exported.job("handled").run(async { Err::<(), _>(HandlerError::retry(busy())) }).await.unwrap_err();
    for name in ["job own", "job boxed", "job handled"] {
        let span = exported.one(name);
        assert_eq!(failed(&span).0.as_deref(), Some("busy"), "{name}");
    }
    exported.job("other").run(async { Err::<(), _>(HandlerError::reject("no")) }).await.unwrap_err();
    assert_eq!(failed(&exported.one("job other")).0.as_deref(), Some("handler_error"));
}

#[tokio::test]
async fn a_panic_is_told_and_goes_on() {
    let exported = Exported::new();
    let work = async {
        tokio::task::yield_now().await;
        if exported.all().is_empty() {
            panic!("out of {}", String::from("paper"));
        }
        Ok::<_, Error>(())
    };
    let panic = std::panic::AssertUnwindSafe(exported.job("print").run(work)).catch_unwind().await.unwrap_err();
    assert_eq!(panic.downcast_ref::<String>().map(String::as_str), Some("out of paper"), "the same panic");
    let expected = (Some("panic".to_owned()), "the job panicked: out of paper");
    assert_eq!(failed(&exported.one("job print")), expected);
    assert_eq!(trace_ids(), None, "the span is no longer current");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_job_says_so() {
    let exported = Exported::new();
    let references = exported.references(129);
    let work = async {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        Ok::<_, Error>(())
    };
    let run = exported.job("slow").references(references).run(work);
    tokio::time::timeout(Duration::from_secs(1), run).await.unwrap_err();
    let expected = (Some("cancelled".to_owned()), "the job was cancelled before it finished");
    let span = exported.one("job slow");
    assert_eq!(failed(&span), expected);
    assert_eq!(exported.one("job slow links").parent_span_id, span.span_context.span_id());
}

#[tokio::test]
async fn a_job_that_is_never_polled_leaves_no_span() {
    let exported = Exported::new();
    drop(exported.job("never").run(async { Ok::<_, Error>(()) }));
    assert_eq!(exported.all().len(), 0);
}

/// No test of this binary installs a global provider.
#[tokio::test]
async fn works_without_an_sdk() {
    let asked: TraceReference =
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01;1795368288498;;0rojo=1".parse().unwrap();
    let current = || async { Ok::<_, Error>(TraceReference::current()) };
    let other = || Exported::new().references(1);
    let run =
        |style, references: Vec<TraceReference>| Job::new("quiet").style(style).references(references).run(current());
    // The context that is current around the job is not the job's.
    let around = Exported::new().root("scheduler");
    let _current = around.attach();
    let one = vec![asked.clone()];
    let two = vec![asked.clone(), other().remove(0)];
    for (style, references) in [(JobStyle::Link, one.clone()), (JobStyle::Child, one), (JobStyle::Child, two.clone())] {
        let current =
            run(style, references).await.unwrap().expect("the reference is current, so that its trace goes on");
        assert_eq!(
            (current.traceparent(), current.tracestate()),
            (asked.traceparent(), asked.tracestate()),
            "{style:?}"
        );
    }
    for (style, references) in [(JobStyle::Link, two), (JobStyle::Link, vec![]), (JobStyle::None, vec![asked])] {
        assert_eq!(run(style, references).await.unwrap(), None, "{style:?}");
    }
    let failing = Job::new("failing").run(async { Err::<(), _>("no") }).await;
    assert_eq!(failing, Err("no"));
}

#[tokio::test]
async fn carries_a_context_where_nothing_is_sampled() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).with_simple_exporter(exporter.clone());
    let references = Exported::new().references(200);
    let job = Job::new("quiet").with_tracer_provider(&provider.build()).references(references.clone());
    let ids = job.run(async { Ok::<_, Error>(trace_ids()) }).await.unwrap().expect("a context of its own");
    assert!(!ids.is_sampled());
    assert!(references.iter().all(|reference| reference.traceparent().trace_id() != ids.trace_id()));
    assert_eq!(exporter.get_finished_spans().unwrap().len(), 0);
}

/// A sampler that samples everything and records its inputs.
#[derive(Debug, Clone, Default)]
struct Asked(Arc<Mutex<Vec<Question>>>);

/// A span's name, its attributes and the number of its links.
type Question = (String, Vec<KeyValue>, usize);

impl ShouldSample for Asked {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        self.0.lock().push((name.to_owned(), attributes.to_vec(), links.len()));
        Sampler::AlwaysOn.should_sample(parent, trace, name, kind, attributes, links)
    }
}

#[tokio::test]
async fn a_sampler_knows_all_at_the_start() {
    let asked = Asked::default();
    let provider = SdkTracerProvider::builder().with_sampler(asked.clone()).build();
    let job = Job::new("report").trigger("schedule").job_type("nightly").with_tracer_provider(&provider);
    job.references(Exported::new().references(2)).run(async { Ok::<_, Error>(()) }).await.unwrap();
    let asked = asked.0.lock();
    let [(name, attributes, 2)] = &**asked else { panic!("{asked:?}") };
    assert_eq!(name, "job report");
    let told = |key: &str| attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| pair.value.to_string());
    assert_eq!(
        (told(attribute::JOB_TRIGGER).as_deref(), told(attribute::JOB_TYPE).as_deref()),
        (Some("schedule"), Some("nightly"))
    );
}

/// A job within a job, such as one that enqueues the next and runs it at once.
#[tokio::test]
async fn jobs_within_jobs_are_traces_of_their_own() {
    let exported = Exported::new();
    let inner = || exported.job("inner").run(async { Ok::<_, Error>(()) });
    exported.job("outer").run(async { inner().await }).await.unwrap();
    let (outer, inner) = (exported.one("job outer"), exported.one("job inner"));
    assert_ne!(outer.span_context.trace_id(), inner.span_context.trace_id());
    assert!(same(&linked(&inner)[0], &outer.span_context));
}
