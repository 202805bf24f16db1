//! [`TracedBroker`] over any driver.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use opentelemetry::Context;
use opentelemetry::global::BoxedTracer;
use opentelemetry::metrics::MeterProvider;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TraceId, Tracer, TracerProvider};
use tokio::time::{Instant, timeout_at};

use super::TracedBroker;
use super::consumer::Consumer;
use super::copies::carry;
use super::dead_letter::{DeadLetters, Forward};
use super::deliveries::Deliveries;
use super::discarded::Discarded;
use super::held::Held;
use super::publisher::{Publisher, Shared};
use super::replay::ReplayMark;
use super::verdicts::Verdicts;
use super::waiting::Waiting;
use crate::context::ambient;
use crate::context::propagation::{Propagation, TrustBoundary};
use crate::driver::capability::{Capabilities, REPOSITIONING, unsupported};
use crate::driver::{Driver, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Guarantee, Message, Receipt, Start, Subscription, Topic};
use crate::telemetry::{Settings, SubscriptionTelemetry, Telemetry, scope};

/// Maximum duration of closing. Together with draining and the export of the last spans, it fits
/// into the 30 seconds that orchestrators grant by default.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// A [`TracedBroker`] over any [`Driver`], with all of the telemetry. Cheap to clone and safe to
/// share.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use futures_util::StreamExt;
/// use traced_broker::{Message, Subscription, Traced, TracedBroker, adapters::memory::Memory};
///
/// let broker = Traced::new(Memory::new());
/// let mut deliveries = broker.subscribe(Subscription::new("orders").group("workers")).await?;
/// broker.publish("orders", Message::new("one pair of shoes")).await?;
///
/// let delivery = deliveries.next().await.expect("open")?;
/// delivery.process(|message| async move {
///     assert_eq!(message.payload(), "one pair of shoes");
///     Ok(())
/// }).await?;
/// # Ok(()) }
/// ```
///
/// Clones, and the handles that the `with_` methods return, share one driver: its bound on
/// publishes in flight, its replay marks, and its closing.
pub struct Traced<D> {
    publisher: Arc<Publisher<D>>,
}

impl<D: Driver> Traced<D> {
    /// Wraps a driver. Spans go to the global tracer provider, and contexts travel in the W3C
    /// headers.
    ///
    /// The global provider is looked up when the first span is created; a provider that is
    /// installed later is found within 64 spans.
    pub fn new(driver: D) -> Self {
        Self::assemble(Arc::new(Shared::new(driver)), Settings::default())
    }

    /// Sends spans to this provider instead of the global one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
    /// use traced_broker::{Message, Traced, TracedBroker, adapters::memory::Memory};
    ///
    /// let exporter = InMemorySpanExporter::default();
    /// let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    /// let broker = Traced::new(Memory::new()).with_tracer_provider(&provider);
    /// broker.publish("orders", Message::new("one pair of shoes")).await?;
    ///
    /// let spans = exporter.get_finished_spans().expect("exported");
    /// assert_eq!(spans[0].name, "send orders");
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn with_tracer_provider<P>(self, provider: &P) -> Self
    where
        P: TracerProvider,
        P::Tracer: Send + Sync + 'static,
        <P::Tracer as Tracer>::Span: Send + Sync + 'static,
    {
        let tracer = BoxedTracer::new(Box::new(provider.tracer_with_scope(scope())));
        self.with(|settings| settings.tracer = Some(Arc::new(tracer)))
    }

    /// Sends [measurements](crate::names::metric) to this provider instead of the global one.
    ///
    /// Needed for a global provider whose type has no size: OpenTelemetry's placeholder has none
    /// either, so that such a provider counts as missing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use opentelemetry_sdk::metrics::{InMemoryMetricExporter, SdkMeterProvider};
    /// use traced_broker::names::metric;
    /// use traced_broker::{Message, Traced, TracedBroker, adapters::memory::Memory};
    ///
    /// let exporter = InMemoryMetricExporter::default();
    /// let provider = SdkMeterProvider::builder().with_periodic_exporter(exporter.clone()).build();
    /// let broker = Traced::new(Memory::new()).with_meter_provider(&provider);
    /// broker.publish("orders", Message::new("one pair of shoes")).await?;
    ///
    /// provider.force_flush().expect("collected");
    /// let exported = exporter.get_finished_metrics().expect("exported");
    /// let mut metrics = exported[0].scope_metrics().flat_map(|scope| scope.metrics());
    /// assert!(metrics.any(|metric| metric.name() == metric::SENT_MESSAGES.name));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn with_meter_provider(self, provider: &impl MeterProvider) -> Self {
        let meter = provider.meter_with_scope(scope());
        self.with(|settings| settings.meter = Some(meter))
    }

    /// Carries contexts with this propagator instead of in the W3C headers.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::StreamExt;
    /// use opentelemetry::KeyValue;
    /// use opentelemetry::baggage::BaggageExt;
    /// use opentelemetry_sdk::propagation::TraceContextPropagator;
    /// use traced_broker::{Message, Subscription, Traced, TracedBroker, adapters::memory::Memory};
    /// # use traced_broker::TraceReference;
    /// # let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// # let asked: TraceReference = format!("{traceparent};0").parse().expect("a reference");
    /// # let context = asked.context();
    ///
    /// // This propagator carries no baggage.
    /// let broker = Traced::new(Memory::new()).with_propagator(TraceContextPropagator::new());
    /// let mut deliveries = broker.subscribe(Subscription::new("orders").group("workers")).await?;
    /// let context = context.with_baggage([KeyValue::new("tenant", "acme")]);
    /// broker.publish("orders", Message::new("one pair of shoes").context(context)).await?;
    ///
    /// let delivery = deliveries.next().await.expect("the broker is open")?;
    /// let headers = delivery.message().headers();
    /// assert!(headers.get("traceparent").is_some() && headers.get("baggage").is_none());
    /// # delivery.ack().await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn with_propagator(self, propagator: impl TextMapPropagator + Send + Sync + 'static) -> Self {
        self.with(|settings| settings.propagation = Propagation::custom(Arc::new(propagator)))
    }

    /// Publishes only the context that the boundary allows; for brokers that untrusted peers read.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::StreamExt;
    /// use opentelemetry::baggage::BaggageExt;
    /// use opentelemetry::{Context, KeyValue};
    /// use traced_broker::adapters::memory::Memory;
    /// use traced_broker::{Message, Subscription, Traced, TracedBroker, TrustBoundary};
    ///
    /// let boundary = TrustBoundary::new().allow_baggage("tenant");
    /// let broker = Traced::new(Memory::new()).with_trust_boundary(boundary);
    /// let mut deliveries = broker.subscribe(Subscription::new("shipped").group("partner")).await?;
    /// let baggage = [KeyValue::new("tenant", "acme"), KeyValue::new("user", "ada")];
    /// let context = Context::new().with_baggage(baggage);
    /// broker.publish("shipped", Message::new("A-1").context(context)).await?;
    ///
    /// let delivery = deliveries.next().await.expect("the broker is open")?;
    /// assert_eq!(delivery.message().headers().get_str("baggage"), Some("tenant=acme"));
    /// # delivery.ack().await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn with_trust_boundary(self, boundary: TrustBoundary) -> Self {
        self.with(|settings| settings.boundary = Some(Arc::new(boundary)))
    }

    /// Creates a span of kind CLIENT for each settlement, `ack {topic}`, `retry {topic}` or `reject
    /// {topic}`, as a child of the process span.
    ///
    /// Off by default: the process span records the settlement and lasts until then, and the
    /// duration of settling is measured in any case.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::StreamExt;
    /// use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
    /// use traced_broker::adapters::memory::Memory;
    /// use traced_broker::{Message, Subscription, Traced, TracedBroker};
    ///
    /// let exporter = InMemorySpanExporter::default();
    /// let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    /// let broker = Traced::new(Memory::new()).with_tracer_provider(&provider).with_settle_spans();
    /// let mut deliveries = broker.subscribe(Subscription::new("orders").group("workers")).await?;
    /// broker.publish("orders", Message::new("one pair of shoes")).await?;
    /// deliveries.next().await.expect("the broker is open")?.ack().await?;
    ///
    /// let spans = exporter.get_finished_spans().expect("exported");
    /// assert!(spans.iter().any(|span| span.name == "ack orders"));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn with_settle_spans(self) -> Self {
        self.with(|settings| settings.settle_spans = true)
    }

    /// Closes the broker as [`close`](TracedBroker::close) does, in at most this long instead of 10
    /// seconds. Three quarters of it are for the confirms under way, the rest is for the driver.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use std::time::Duration;
    /// use traced_broker::{ErrorKind, Message, Traced, TracedBroker, adapters::memory::Memory};
    ///
    /// let broker = Traced::new(Memory::new());
    /// broker.close_within(Duration::from_secs(3)).await?;
    /// let error = broker.publish("orders", Message::new("too late")).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Closed);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`close`](TracedBroker::close).
    pub async fn close_within(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        self.publisher.stop(limit * 3 / 4).await;
        let closed = timeout_at(deadline, self.driver().close()).await;
        let closed = closed.unwrap_or_else(|_| {
            let message = "the broker did not answer in time: acknowledgements may be lost";
            Err(Error::new(ErrorKind::Timeout, message).with_context("limit_ms", limit.as_millis()))
        });
        closed.map_err(|error| self.annotate(error, "close"))
    }

    /// Returns another handle on the same driver, with changed settings.
    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.publisher.telemetry.settings.clone();
        change(&mut settings);
        Self::assemble(Arc::clone(&self.publisher.shared), settings)
    }

    fn assemble(shared: Arc<Shared<D>>, settings: Settings) -> Self {
        let telemetry = Arc::new(Telemetry::new(settings));
        Self { publisher: Arc::new(Publisher { shared, telemetry }) }
    }

    fn driver(&self) -> &D {
        &self.publisher.shared.driver
    }

    /// Returns the driver.
    ///
    /// ```
    /// use traced_broker::adapters::memory::Memory;
    /// use traced_broker::driver::Driver;
    /// use traced_broker::Traced;
    ///
    /// let broker = Traced::new(Memory::new());
    /// assert_eq!(broker.get_ref().identity().system, "memory");
    /// ```
    pub fn get_ref(&self) -> &D {
        self.driver()
    }

    fn consumer(&self, subscription: &Subscription, source: &Source, replayed: ReplayMark) -> Result<Consumer> {
        let driver = self.driver();
        let topic = Topic::new(subscription.topic())?;
        let dead_letters = subscription.dead_letter_topic().map(|dead| {
            let publisher: Arc<dyn Forward> = self.publisher.clone();
            DeadLetters::new(dead, publisher)
        });
        let telemetry = Arc::new(SubscriptionTelemetry::new(
            Arc::clone(&self.publisher.telemetry),
            driver.identity(),
            &topic,
            &source.destination,
            subscription.group_name(),
        ));
        Ok(Consumer {
            system: driver.identity().system,
            held: Held::new(&telemetry),
            telemetry,
            reception: subscription.reception.clone(),
            replayed,
            guarantee: subscription.guarantee(),
            capabilities: driver.capabilities().clone(),
            dead_letters,
            discarded: Discarded::default(),
            waiting: Waiting::new(subscription),
            verdicts: Verdicts::default(),
            topic,
        })
    }

    /// Converts a copy of a received message to a form that this broker carries.
    fn carry(&self, message: &mut Message) {
        carry(message, self.driver().identity().system, self.driver().capabilities());
    }

    fn annotate(&self, error: Error, operation: &'static str) -> Error {
        error.with_system(self.driver().identity().system).with_operation(operation)
    }
}

#[async_trait]
impl<D: Driver> TracedBroker for Traced<D> {
    fn system(&self) -> &'static str {
        self.driver().identity().system
    }

    fn capabilities(&self) -> &Capabilities {
        self.driver().capabilities()
    }

    fn publish<'a>(&'a self, topic: &'a str, mut message: Message) -> BoxFuture<'a, Result<Receipt>> {
        let given = message.context.take();
        let called = if given.is_none() { ambient::active() } else { None };
        self.carry(&mut message);
        Box::pin(async move {
            let context = given.unwrap_or_else(|| made_in(called));
            self.publisher.publish(topic, message, context).await
        })
    }

    fn publish_batch<'a>(&'a self, topic: &'a str, mut messages: Vec<Message>) -> BoxFuture<'a, Vec<Result<Receipt>>> {
        let called = ambient::active();
        messages.iter_mut().for_each(|message| self.carry(message));
        Box::pin(async move { self.publisher.publish_batch(topic, messages, made_in(called)).await })
    }

    fn forward<'a>(&'a self, topic: &'a str, mut message: Message) -> BoxFuture<'a, Result<Receipt>> {
        let given = message.context.take();
        let called = if given.is_none() { ambient::active() } else { None };
        self.carry(&mut message);
        Box::pin(async move {
            let context = given.unwrap_or_else(|| made_in(called));
            self.publisher.forward_within(topic, message, context).await
        })
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Deliveries> {
        let operation = "subscribe";
        let checked = subscription.validate().and_then(|()| supports(self.capabilities(), &subscription));
        checked.map_err(|error| self.annotate(error, operation))?;
        // Before the subscription begins, so that no message that arrives meanwhile counts as a
        // replay.
        let replayed = self.publisher.shared.replays.begin(&subscription);
        let source = self.driver().subscribe(&subscription).await;
        let source =
            source.map_err(|error| self.annotate(error, operation).with_context("topic", subscription.topic()))?;
        let consumer = self.consumer(&subscription, &source, replayed)?;
        Ok(Deliveries::new(source, consumer))
    }

    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()> {
        let checked = subscription.validate().and_then(|()| repositions(self.capabilities(), subscription, start));
        if checked.is_ok() {
            // Before the group is moved: its members may get the next messages at once.
            self.publisher.shared.replays.moved(subscription);
        }
        let moved = match checked {
            Ok(()) => self.driver().reposition(subscription, start).await,
            Err(error) => Err(error),
        };
        moved.map_err(|error| self.annotate(error, "reposition").with_context("topic", subscription.topic()))
    }

    async fn ping(&self) -> Result<()> {
        self.driver().ping().await.map_err(|error| self.annotate(error, "ping"))
    }

    async fn close(&self) -> Result<()> {
        self.close_within(CLOSE_LIMIT).await
    }
}

impl<D> Clone for Traced<D> {
    fn clone(&self) -> Self {
        Self { publisher: Arc::clone(&self.publisher) }
    }
}

impl<D: Driver> fmt::Debug for Traced<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traced").field("driver", self.driver()).finish_non_exhaustive()
    }
}

/// Returns the context of a publish. It is chosen when the future is first polled, from the context
/// of the call and that of the poll.
///
/// The two differ if the future is polled elsewhere. If the span at the poll is of the same trace
/// (`publish(…).instrument(span)`), it is the closer one and wins. Otherwise it is unrelated, and
/// the context of the call wins.
fn made_in(called: Option<Context>) -> Context {
    let polled = ambient::current();
    match called {
        Some(called) if trace_of(&called) != trace_of(&polled) => called,
        _ => polled,
    }
}

fn trace_of(context: &Context) -> TraceId {
    context.span().span_context().trace_id()
}

/// Checks that the broker can do what the subscription asks, so that it fails here and not at the
/// first settlement.
fn supports(capabilities: &Capabilities, subscription: &Subscription) -> Result<()> {
    let unsupported = |message: &str| Err(Error::new(ErrorKind::Unsupported, message));
    if subscription.guarantee() == Guarantee::AtLeastOnce && !capabilities.at_least_once {
        return unsupported(
            "this broker forgets a message once it is handed out: subscribe at_most_once(), or use a broker that keeps it",
        );
    }
    if subscription.guarantee() == Guarantee::AtMostOnce && subscription.dead_letter_topic().is_some() {
        return unsupported("an at-most-once subscription cannot reject messages, so it has no dead-letter topic");
    }
    capabilities.check_start(subscription.start_position())?;
    if subscription.group_name().is_some() && !capabilities.groups {
        return unsupported("this broker has no consumer groups");
    }
    Ok(())
}

fn repositions(capabilities: &Capabilities, subscription: &Subscription, start: Start) -> Result<()> {
    if subscription.group_name().is_none() {
        let message =
            "only a group has a position that can be moved: give the subscription a group, or let a reader start there";
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    if !capabilities.reposition {
        return Err(unsupported("move the position of a group", REPOSITIONING));
    }
    capabilities.check_start(start)
}

impl<D: Driver> Forward for Publisher<D> {
    fn is_of_trace(&self, name: &str) -> bool {
        self.telemetry.settings.propagation.fields().contain(name)
    }

    fn forward<'a>(&'a self, topic: &'a str, mut message: Message, context: Context) -> BoxFuture<'a, Result<Receipt>> {
        let driver = &self.shared.driver;
        carry(&mut message, driver.identity().system, driver.capabilities());
        Box::pin(self.forward_within(topic, message, context))
    }
}
