//! What a case works with: connections, fresh names, and the spans that were exported.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, Value};
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData};
use traced_broker::{Broker, Deliveries, Delivery, Subscription, connect};

/// How long a case waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long a case watches for something that must not happen.
pub(crate) const QUIET: Duration = Duration::from_millis(700);

pub(crate) struct World {
    pub(crate) url: String,
    pub(crate) topic: String,
    number: String,
    exporter: InMemorySpanExporter,
    pub(crate) provider: SdkTracerProvider,
    /// The embedded broker dies with its last connection; this one is there until the case ends.
    _anchor: Option<Broker>,
}

impl World {
    /// A world with topic names that no other case or run uses.
    pub(crate) async fn new(url: &str, case: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let number = format!("{now:x}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let case: String = case.chars().take(40).collect();
        let _anchor = if url.starts_with("memory:") { Some(connect(url).await.expect("connects")) } else { None };
        Self { url: url.to_owned(), topic: format!("{case}-{number}"), number, exporter, provider, _anchor }
    }

    /// A connection whose spans are exported to this world.
    pub(crate) async fn broker(&self) -> Broker {
        self.untraced().await.with_tracer_provider(&self.provider)
    }

    /// A connection as a program without an SDK has it.
    pub(crate) async fn untraced(&self) -> Broker {
        connect(&self.url).await.expect("connects")
    }

    /// A connection with one more URL option.
    pub(crate) async fn connect_with(&self, option: &str) -> Broker {
        let lead = if self.url.contains('?') { '&' } else { '?' };
        let broker = connect(format!("{}{lead}{option}", self.url)).await.expect("connects");
        broker.with_tracer_provider(&self.provider)
    }

    /// What a group is called in full. A group of Kafka's spans topics: cases must not share one, or they disturb each other.
    pub(crate) fn group_name(&self, name: &str) -> String {
        format!("{name}-{}", self.number)
    }

    pub(crate) fn group_on(&self, topic: &str, name: &str) -> Subscription {
        Subscription::new(topic).group(self.group_name(name))
    }

    pub(crate) fn group(&self, name: &str) -> Subscription {
        self.group_on(&self.topic, name)
    }

    /// A span of the application's own, and the context in which it is current.
    pub(crate) fn root(&self, name: &'static str) -> Context {
        let tracer = self.provider.tracer("application");
        Context::new().with_span(tracer.build_with_context(tracer.span_builder(name), &Context::new()))
    }

    pub(crate) fn unsampled(&self) -> SdkTracerProvider {
        let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        SdkTracerProvider::builder().with_sampler(sampler).with_simple_exporter(self.exporter.clone()).build()
    }

    pub(crate) fn spans(&self) -> Vec<SpanData> {
        self.exporter.get_finished_spans().expect("the exporter works")
    }

    pub(crate) fn spans_named(&self, name: &str) -> Vec<SpanData> {
        let mut spans: Vec<SpanData> = self.spans().into_iter().filter(|span| span.name == name).collect();
        spans.sort_by_key(|span| span.start_time);
        spans
    }

    pub(crate) fn the_span(&self, name: &str) -> SpanData {
        let mut spans = self.spans_named(name);
        assert_eq!(spans.len(), 1, "one span named {name}, among {:?}", self.names());
        spans.remove(0)
    }

    fn names(&self) -> Vec<String> {
        self.spans().iter().map(|span| span.name.to_string()).collect()
    }

    pub(crate) fn send_name(&self) -> String {
        format!("send {}", self.topic)
    }

    pub(crate) fn process_name(&self) -> String {
        format!("process {}", self.topic)
    }

    /// Every parent and every link of every exported span is an exported span.
    pub(crate) fn assert_everything_resolves(&self) {
        let spans = self.spans();
        let known: Vec<SpanId> = spans.iter().map(|span| span.span_context.span_id()).collect();
        for span in &spans {
            let parent = span.parent_span_id;
            assert!(parent == SpanId::INVALID || known.contains(&parent), "{} has a parent nobody exported", span.name);
            for link in span.links.iter() {
                let linked = link.span_context.span_id();
                assert!(known.contains(&linked), "{} links to a span nobody exported", span.name);
            }
        }
    }
}

/// Waits for what must happen.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// The next delivery.
pub(crate) async fn next(deliveries: &mut Deliveries) -> Delivery {
    within("the next delivery", async {
        loop {
            match deliveries.next().await.expect("the stream goes on") {
                Ok(delivery) => return delivery,
                Err(error) => eprintln!("reported by the stream: {error}"),
            }
        }
    })
    .await
}

/// Nothing more is handed out.
pub(crate) async fn nothing_comes(deliveries: &mut Deliveries) {
    if let Ok(item) = tokio::time::timeout(QUIET, deliveries.next()).await {
        panic!("nothing should have come: {item:?}");
    }
}

/// Takes and acknowledges until `count` messages have come, and returns their payloads as text.
pub(crate) async fn drain(deliveries: &mut Deliveries, count: usize) -> Vec<String> {
    let mut payloads = Vec::with_capacity(count);
    while payloads.len() < count {
        let delivery = next(deliveries).await;
        payloads.push(text(delivery.message().payload()));
        delivery.ack().await.expect("acknowledges");
    }
    payloads
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

pub(crate) fn attribute<'a>(span: &'a SpanData, key: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| &pair.value)
}

pub(crate) fn attribute_text(span: &SpanData, key: &str) -> String {
    attribute(span, key).map(|value| value.as_str().into_owned()).unwrap_or_default()
}

pub(crate) fn assert_linked(span: &SpanData, to: &SpanContext) {
    let linked = span.links.iter().any(|link| link.span_context.span_id() == to.span_id());
    assert!(linked, "{} is not linked to the creation context", span.name);
}

pub(crate) fn assert_kind(span: &SpanData, kind: SpanKind) {
    assert_eq!(span.span_kind, kind, "the kind of {}", span.name);
}
