//! A handler's events go through OpenTelemetry's log bridge with the ids of the process span,
//! whether or not `tracing` spans also become OpenTelemetry spans.

use std::sync::Arc;

use futures_util::StreamExt;
use opentelemetry::logs::AnyValue;
use opentelemetry::trace::{SpanId, TraceId, TracerProvider};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::{InMemoryLogExporter, SdkLoggerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tokio::sync::Notify;
use traced_broker::adapters::memory::Memory;
use traced_broker::{
    HandlerError, Job, Message, Received, Subscription, Traced, TracedBroker, TracedBrokerExt, in_current,
    in_current_fn, trace_ids,
};
use tracing::Instrument;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::SubscriberExt;

/// The layers that an application installs besides the log bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layers {
    /// None: its spans are created through OpenTelemetry's API.
    Logs,
    /// The layer that turns `tracing` spans into OpenTelemetry spans and makes their contexts
    /// current.
    Joined,
    /// The same layer, without making contexts current.
    Apart,
}

const ALL: [Layers; 3] = [Layers::Logs, Layers::Joined, Layers::Apart];

/// An application whose spans and logs are exported to memory, until it is dropped.
struct Application {
    broker: Traced<Arc<Memory>>,
    provider: SdkTracerProvider,
    spans: InMemorySpanExporter,
    logs: InMemoryLogExporter,
    _loggers: SdkLoggerProvider,
    _installed: DefaultGuard,
}

type Ids = (TraceId, SpanId);

impl Application {
    fn start(layers: Layers) -> Self {
        let (spans, logs) = (InMemorySpanExporter::default(), InMemoryLogExporter::default());
        let provider = SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build();
        let loggers = SdkLoggerProvider::builder().with_simple_exporter(logs.clone()).build();
        let layer = (layers != Layers::Logs).then(|| {
            let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("application"));
            layer.with_context_activation(layers == Layers::Joined)
        });
        let subscriber = tracing_subscriber::registry().with(layer).with(OpenTelemetryTracingBridge::new(&loggers));
        let broker = Traced::new(Arc::new(Memory::new())).with_tracer_provider(&provider);
        let installed = tracing::subscriber::set_default(subscriber);
        Self { broker, provider, spans, logs, _loggers: loggers, _installed: installed }
    }

    /// Returns the ids of the only event with this text.
    #[track_caller]
    fn logged(&self, text: &str) -> Option<Ids> {
        let said = |body: &AnyValue| matches!(body, AnyValue::String(body) if body.as_str() == text);
        let logs = self.logs.get_emitted_logs().unwrap();
        let mut found = logs.iter().filter(|log| log.record.body().is_some_and(said));
        let log = found.next().unwrap_or_else(|| panic!("no event {text} in {logs:#?}"));
        assert!(found.next().is_none(), "{text} once");
        log.record.trace_context().map(|context| (context.trace_id, context.span_id))
    }

    #[track_caller]
    fn span(&self, name: &str) -> SpanData {
        let spans = self.spans.get_finished_spans().unwrap();
        let mut named = spans.iter().filter(|span| span.name == name);
        let span = named.next().unwrap_or_else(|| panic!("no span {name} in {spans:#?}")).clone();
        assert!(named.next().is_none(), "{name} once");
        span
    }

    /// Returns the ids of the only span of this name, in the form used in logs.
    #[track_caller]
    fn ids(&self, name: &str) -> Option<Ids> {
        let context = self.span(name).span_context;
        Some((context.trace_id(), context.span_id()))
    }
}

async fn handle(_: Received) -> Result<(), HandlerError> {
    tracing::info!("at once");
    tokio::task::yield_now().await;
    tracing::info!("after an await");
    async {
        tokio::task::yield_now().await;
        tracing::info!("in a span of its own");
    }
    .instrument(tracing::info_span!("ship"))
    .await;
    tokio::spawn(in_current(async {
        tokio::task::yield_now().await;
        tracing::info!("in a task");
    }))
    .await?;
    tokio::spawn(async { tracing::info!("in a task that was told nothing") }).await?;
    let function = in_current_fn(|| {
        tracing::info!("in a function");
        trace_ids()
    });
    // Called here because the test's subscriber is installed only for its own thread.
    assert_eq!(std::iter::once_with(function).next(), Some(trace_ids()));
    tracing::info!("at last");
    Ok(())
}

fn check_events(application: &Application, layers: Layers) {
    let process = application.ids("process orders");
    for text in ["at once", "after an await", "in a task", "in a function", "at last"] {
        assert_eq!(application.logged(text), process, "{text}, {layers:?}");
    }
    assert_eq!(application.logged("in a task that was told nothing"), None, "{layers:?}");
    // The layer determines the current context within a `tracing` span; it is always in the
    // message's trace.
    let within = if layers == Layers::Joined { application.ids("ship") } else { process };
    assert_eq!(application.logged("in a span of its own"), within, "{layers:?}");
    assert_eq!(application.logged("outside"), None, "{layers:?}");
}

#[tokio::test]
async fn events_of_a_handler_carry_the_ids_of_the_process_span() {
    for layers in ALL {
        let application = Application::start(layers);
        let mut deliveries = application.broker.subscribe(Subscription::new("orders").group("g")).await.unwrap();
        application.broker.publish("orders", Message::new("x")).await.unwrap();
        let processed = deliveries.next().await.unwrap().unwrap().process(handle).await.unwrap();
        assert!(processed.error.is_none(), "{processed:?}");
        tracing::info!("outside");
        check_events(&application, layers);
    }
}

/// The span around the loop belongs to another trace; the handler's events are not part of it.
#[tokio::test]
async fn a_span_around_the_receiving_loop_takes_no_event_from_the_handler() {
    for layers in ALL {
        let application = Application::start(layers);
        let mut deliveries = application.broker.subscribe(Subscription::new("orders").group("g")).await.unwrap();
        application.broker.publish("orders", Message::new("x")).await.unwrap();
        async {
            tracing::info!("in the loop");
            let processed = deliveries.next().await.unwrap().unwrap().process(handle).await.unwrap();
            assert!(processed.error.is_none(), "{processed:?}");
        }
        .instrument(tracing::info_span!("receiving loop"))
        .await;
        tracing::info!("outside");
        check_events(&application, layers);
        let in_loop = (layers == Layers::Joined).then(|| application.ids("receiving loop")).flatten();
        assert_eq!(application.logged("in the loop"), in_loop);
    }
}

#[tokio::test]
async fn events_of_the_consumer_runtime_do_too() {
    for layers in ALL {
        let application = Application::start(layers);
        let handled = Notify::new();
        application.broker.publish("orders", Message::new("x")).await.unwrap();
        let handler = async |message: Received| {
            let result = handle(message).await;
            handled.notify_one();
            result
        };
        let subscription = Subscription::new("orders").group("g");
        let consume = application.broker.consume(subscription, handler).concurrency(4);
        consume.run_until(handled.notified()).await.unwrap();
        tracing::info!("outside");
        check_events(&application, layers);
    }
}

#[tokio::test]
async fn events_of_a_batch_carry_the_ids_of_its_span() {
    for layers in ALL {
        let application = Application::start(layers);
        let handled = Notify::new();
        for _ in 0..3 {
            application.broker.publish("orders", Message::new("x")).await.unwrap();
        }
        let handler = async |_: Vec<Received>| {
            tokio::task::yield_now().await;
            tracing::info!("three at once");
            handled.notify_one();
            Ok::<_, HandlerError>(Vec::new())
        };
        let subscription = Subscription::new("orders").group("g");
        let consume = application.broker.consume_batch(subscription, handler).size(3);
        consume.run_until(handled.notified()).await.unwrap();
        assert_eq!(application.logged("three at once"), application.ids("process orders"), "{layers:?}");
    }
}

#[tokio::test]
async fn events_of_a_job_carry_the_ids_of_its_span() {
    for layers in ALL {
        let application = Application::start(layers);
        let work = async {
            tracing::info!("at once");
            tokio::task::yield_now().await;
            tracing::info!("after an await");
            async { tracing::info!("in a span of its own") }.instrument(tracing::info_span!("write")).await;
            Ok::<_, HandlerError>(trace_ids())
        };
        let job = Job::new("report").with_tracer_provider(&application.provider);
        let run = async { job.run(work).await }.instrument(tracing::info_span!("scheduler"));
        let told = run.await.unwrap().map(|ids| (ids.trace_id(), ids.span_id()));
        let ids = application.ids("job report");
        assert_eq!((application.logged("at once"), application.logged("after an await")), (ids, ids), "{layers:?}");
        assert_eq!(told, ids, "{layers:?}");
        let within = if layers == Layers::Joined { application.ids("write") } else { ids };
        assert_eq!(application.logged("in a span of its own"), within, "{layers:?}");

        // The scheduler's span is not the parent; it is linked if it is an OpenTelemetry span.
        let job = application.span("job report");
        assert_eq!(job.parent_span_id, SpanId::INVALID);
        let linked: Vec<SpanId> = job.links.iter().map(|link| link.span_context.span_id()).collect();
        let expected = (layers != Layers::Logs).then(|| application.span("scheduler").span_context.span_id());
        assert_eq!(linked, expected.into_iter().collect::<Vec<_>>(), "{layers:?}");
    }
}
