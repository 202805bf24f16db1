//! Our side: a broker whose spans are exported to the same place as theirs, and topics that no
//! other test uses.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{Span, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tokio::time::timeout;
use traced_broker::verify::otlp;
use traced_broker::{Broker, Deliveries, HandlerError, Message, Received, Subscription, TracedBroker, connect};

use crate::collector::Inbox;
use crate::evidence::Evidence;
use crate::library::Library;
use crate::program::Running;
use crate::support::{Kind, shared};
use crate::wire::Tap;

/// Maximum duration of any expected event.
pub(crate) const SOON: Duration = Duration::from_secs(60);
pub(crate) const PAYLOAD: &str = "order 42";
/// The names of the services: the sender, ours, and the receiver.
pub(crate) const SHOP: &str = "shop";
pub(crate) const OURS: &str = "ours";
pub(crate) const STORE: &str = "store";
/// Both sides of one test.
pub(crate) struct Setup {
    pub(crate) library: &'static Library,
    pub(crate) broker: Broker,
    url: String,
    /// The part that makes its names unique across tests and runs.
    number: String,
    inbox: Inbox,
    exporter: InMemorySpanExporter,
    provider: SdkTracerProvider,
}

impl Setup {
    pub(crate) async fn new(library: &'static Library) -> Self {
        let kind = library.broker;
        let server = tokio::task::spawn_blocking(move || shared(kind)).await.unwrap();
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let url = format!("{server}{}", library.options);
        let broker = connect(&url).await.unwrap().with_tracer_provider(&provider);
        Self { library, broker, url, number: number(), inbox: Inbox::new(), exporter, provider }
    }

    /// Returns the topic that is called `name` when spans are compared.
    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{name}-{}", self.number)
    }

    /// Subscribes our group to a topic.
    pub(crate) async fn subscribe(&self, topic: &str) -> Deliveries {
        self.broker.subscribe(self.group(topic, OURS)).await.unwrap()
    }

    fn group(&self, topic: &str, name: &str) -> Subscription {
        let subscription = Subscription::new(topic).group(self.topic(name));
        if self.library.is_core() { subscription.at_most_once() } else { subscription }
    }

    /// Runs a foreign program that sends one message on behalf of a request.
    pub(crate) async fn they_send(&self, topic: &str) {
        self.start("produce", topic, SHOP).await.end().await;
    }

    /// Starts a foreign program that consumes from a topic in its group, and waits until it is
    /// ready.
    pub(crate) async fn they_receive(&self, topic: &str) -> Running {
        if !self.library.is_core() {
            // A group receives the messages published after its creation. On Kafka every group
            // receives all messages, but the topic must exist, and the group must not have members
            // with a different protocol.
            let name = if self.library.broker == Kind::Kafka { "prepared" } else { STORE };
            let own = connect(&self.url).await.unwrap();
            drop(own.subscribe(self.group(topic, name)).await.unwrap());
            own.close().await.unwrap();
        }
        let mut running = self.start("consume", topic, STORE).await;
        running.ready().await;
        running
    }

    async fn start(&self, verb: &str, topic: &str, service: &str) -> Running {
        let Library { language, name, broker, .. } = self.library;
        let (url, group) = (address(*broker, &self.url), self.topic(service));
        let arguments = [name, verb, "--url", &url, "--topic", topic, "--group", &group];
        Running::start(*language, &arguments, &self.inbox.endpoint(), service).await
    }

    /// Taps the messages on an existing topic.
    pub(crate) async fn tap(&self, topic: &str) -> Tap {
        Tap::new(self.library.broker, &address(self.library.broker, &self.url), topic).await
    }

    /// Sends one message from our side on behalf of a request.
    pub(crate) async fn we_send(&self, topic: &str) {
        let tracer = self.provider.tracer("application");
        let request = tracer.start_with_context("place order", &Context::new());
        let context = Context::new().with_baggage([KeyValue::new("tenant", "blue")]).with_span(request);
        self.broker.publish(topic, Message::new(PAYLOAD).context(context.clone())).await.unwrap();
        context.span().end();
    }

    /// Processes the next message on our side, and sends one on if a topic is given.
    pub(crate) async fn we_receive(&self, deliveries: &mut Deliveries, on: Option<&str>) -> Received {
        let delivery = timeout(SOON, deliveries.next()).await.expect("a message").expect("it goes on").unwrap();
        let message = delivery.message().clone();
        let (tracer, broker) = (self.provider.tracer("application"), self.broker.clone());
        let work = delivery.process(|message| async move {
            let context = Context::current();
            let mut span = tracer.start_with_context("reserve stock", &context);
            let tenant = context.baggage().get("tenant").map(ToString::to_string);
            span.set_attribute(KeyValue::new("tenant", tenant.unwrap_or_default()));
            span.end();
            if let Some(topic) = on {
                broker.publish(topic, Message::new(message.payload().clone())).await?;
            }
            Ok::<(), HandlerError>(())
        });
        work.await.unwrap();
        message
    }

    /// Returns the spans that both sides exported.
    pub(crate) async fn end(self) -> Evidence {
        self.broker.close().await.unwrap();
        self.inbox.export(self.exporter.get_finished_spans().unwrap(), OURS).await;
        let exported = otlp::read(self.inbox.take().as_bytes()).unwrap();
        Evidence::new(exported, &self.number)
    }
}

/// Returns the address in the form that clients of other languages expect.
fn address(kind: Kind, url: &str) -> String {
    let plain = url.split('?').next().unwrap_or_default();
    // Among the Kafka clients only ours uses URLs.
    if kind == Kind::Kafka { plain.trim_start_matches("kafka://").to_owned() } else { plain.to_owned() }
}

fn number() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    format!("{time:x}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
