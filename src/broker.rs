//! The trait that applications program against, and its one implementation.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use opentelemetry::Context;
use opentelemetry::global::BoxedTracer;
use opentelemetry::metrics::MeterProvider;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TraceId, Tracer, TracerProvider};

use crate::address::{Guarantee, Start, Subscription, Topic};
use crate::ambient;
use crate::capability::{Capabilities, REPOSITIONING, unsupported};
use crate::consumer::{Consumer, Deliveries};
use crate::dead_letter::{DeadLetters, Forward};
use crate::driver::{Driver, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::held::Held;
use crate::message::{Message, Receipt};
use crate::propagation::{Propagation, Rejections, ReplayMark, Replays, TrustBoundary};
use crate::publisher::Publisher;
use crate::span::{Operation, SettleTemplates, SpanTemplate};
use crate::tracer::{Settings, Telemetry};

/// A message broker whose traces do not break: what applications program against.
///
/// It is object-safe: `Arc<dyn TracedBroker>` works. [`connect`](crate::connect) returns a [`Broker`], which implements it
/// over whichever broker the URL names.
///
/// # Context
/// A message travels with the context [set on it](Message::context); else with the OpenTelemetry context that is current where
/// `publish` is *called*, or the one where its future is first polled if that is in the same trace or no span is active at the
/// call. With the cargo feature `tracing`, the current context is that of the current `tracing` span.
///
/// # Order
/// Messages reach a topic in the order in which the futures of their publishes are first polled, however many are in flight.
///
/// # Outcome
/// A publish ends in one of three ways: `Ok` means confirmed (with [one exception](Receipt::outcome)); an error tells by
/// [`Error::publish_outcome`] whether the message was certainly not sent or may have been. A publish that is dropped before it ends may
/// have been sent.
#[async_trait]
pub trait TracedBroker: fmt::Debug + Send + Sync {
    /// The messaging system: `kafka`, `rabbitmq`, `nats`, `redis` or `memory`.
    fn system(&self) -> &'static str;

    /// What this broker can do.
    fn capabilities(&self) -> &Capabilities;

    /// Publishes a message and waits for the broker's confirm.
    ///
    /// Makes a `send {topic}` span of kind PRODUCER, child of the message's context, that lasts until the confirm; the message
    /// carries its context. Trace headers that the message holds already are replaced: it is a new message. To pass a
    /// received message on with its own context, use [`forward`](Self::forward).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a name that is not valid, [`ErrorKind::InvalidMessage`], [`ErrorKind::TooLarge`] or
    /// [`ErrorKind::Unsupported`] for what this broker cannot carry, [`ErrorKind::NotFound`] for a topic that is missing and may not
    /// be created, [`ErrorKind::Rejected`] when the broker refuses, [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`] when it does not
    /// answer, [`ErrorKind::Closed`] after [`close`](Self::close).
    fn publish<'a>(&'a self, topic: &'a str, message: Message) -> BoxFuture<'a, Result<Receipt>>;

    /// Publishes messages in order, pipelined, and returns one result for each, in the same order.
    ///
    /// Each message gets a `create {topic}` span and with it a creation context of its own; `send {topic}` spans of kind CLIENT link
    /// them, one span per 128 messages, since OpenTelemetry keeps no more links per span.
    ///
    /// # Errors
    /// Per message, as for [`publish`](Self::publish).
    fn publish_batch<'a>(&'a self, topic: &'a str, messages: Vec<Message>) -> BoxFuture<'a, Vec<Result<Receipt>>>;

    /// Passes on a message that has a creation context, keeping it: the `send {topic}` span is of kind CLIENT and links it.
    ///
    /// A message without a valid context is published as a new one.
    ///
    /// # Errors
    /// As for [`publish`](Self::publish).
    fn forward<'a>(&'a self, topic: &'a str, message: Message) -> BoxFuture<'a, Result<Receipt>>;

    /// Starts to consume.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the subscription is not valid, [`ErrorKind::Unsupported`] when this broker cannot do
    /// what it asks, [`ErrorKind::NotFound`] for missing topology that may not be created, and what the connection reports.
    async fn subscribe(&self, subscription: Subscription) -> Result<Deliveries>;

    /// Moves the position of the subscription's group: its members get what comes from `start` on, again or for the first time.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a subscription without a group, [`ErrorKind::Unsupported`] where the broker cannot,
    /// [`ErrorKind::Conflict`] where the group must have no members for it and has some, [`ErrorKind::NotFound`] for a topic that is
    /// missing, and what the connection reports.
    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()>;

    /// A round trip to the broker.
    ///
    /// # Errors
    /// When the broker does not answer.
    async fn ping(&self) -> Result<()>;

    /// Stops publishing, waits for the confirms under way, brings acknowledgements to the broker, and disconnects.
    ///
    /// Streams of deliveries end. A second call does nothing.
    ///
    /// # Errors
    /// What could not be brought to the broker; it is closed all the same.
    async fn close(&self) -> Result<()>;
}

/// A broker chosen at run time by URL; what [`connect`](crate::connect) returns.
pub type Broker = Traced<Arc<dyn Driver>>;

/// All of the telemetry, over any [`Driver`]. Cheap to clone and safe to share.
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
pub struct Traced<D> {
    publisher: Arc<Publisher<D>>,
    replays: Arc<Replays>,
}

impl<D: Driver> Traced<D> {
    /// Wraps a driver; spans go to the global tracer provider, contexts travel in the W3C headers.
    ///
    /// The global provider is looked up when the first span is made; one that is installed later is found within 64 spans.
    pub fn new(driver: D) -> Self {
        Self::assemble(driver, Settings::default())
    }

    /// Sends spans to this provider in place of the global one.
    #[must_use]
    pub fn with_tracer_provider<P>(self, provider: &P) -> Self
    where
        P: TracerProvider,
        P::Tracer: Send + Sync + 'static,
        <P::Tracer as Tracer>::Span: Send + Sync + 'static,
        D: Clone,
    {
        let tracer = BoxedTracer::new(Box::new(provider.tracer_with_scope(Telemetry::scope())));
        self.with(|settings| settings.tracer = Some(Arc::new(tracer)))
    }

    /// Sends [measurements](crate::metrics) to this provider in place of the global one.
    #[must_use]
    pub fn with_meter_provider(self, provider: &impl MeterProvider) -> Self
    where
        D: Clone,
    {
        let meter = provider.meter_with_scope(Telemetry::scope());
        self.with(|settings| settings.meter = Some(meter))
    }

    /// Carries contexts by this propagator in place of the W3C's headers.
    #[must_use]
    pub fn with_propagator(self, propagator: impl TextMapPropagator + Send + Sync + 'static) -> Self
    where
        D: Clone,
    {
        self.with(|settings| settings.propagation = Propagation::custom(Arc::new(propagator)))
    }

    /// Lets only what the boundary allows travel with the messages that are published; for brokers that strangers read.
    #[must_use]
    pub fn with_trust_boundary(self, boundary: TrustBoundary) -> Self
    where
        D: Clone,
    {
        self.with(|settings| settings.boundary = Some(Arc::new(boundary)))
    }

    /// Makes a span of kind CLIENT for each settlement, `ack {topic}`, `retry {topic}` or `reject {topic}`, child of the process span.
    ///
    /// Off by default: the process span says how it was settled and lasts until then, and the duration is measured in any case.
    #[must_use]
    pub fn with_settle_spans(self) -> Self
    where
        D: Clone,
    {
        self.with(|settings| settings.settle_spans = true)
    }

    /// Another handle on the same driver, with settings changed.
    fn with(self, change: impl FnOnce(&mut Settings)) -> Self
    where
        D: Clone,
    {
        let mut settings = self.publisher.telemetry.settings.clone();
        change(&mut settings);
        Self::assemble(self.publisher.driver.clone(), settings)
    }

    fn assemble(driver: D, settings: Settings) -> Self {
        let telemetry = Arc::new(Telemetry::new(settings));
        Self { publisher: Arc::new(Publisher::new(driver, telemetry)), replays: Arc::default() }
    }

    /// The driver.
    pub fn get_ref(&self) -> &D {
        &self.publisher.driver
    }

    fn consumer(&self, subscription: &Subscription, source: &Source, replayed: ReplayMark) -> Result<Consumer> {
        let driver = &self.publisher.driver;
        let topic = Topic::new(subscription.topic())?;
        let dead_letters = subscription.dead_letter_topic().map(|dead| {
            let publisher: Arc<dyn Forward> = self.publisher.clone();
            DeadLetters::new(dead, publisher)
        });
        let template = |operation| {
            let (identity, group) = (driver.identity(), subscription.group_name());
            SpanTemplate::new(operation, identity, &topic.to_shared(), &source.destination, group)
        };
        Ok(Consumer {
            system: driver.identity().system,
            process: template(Operation::Process),
            settle: SettleTemplates::new(template),
            telemetry: Arc::clone(&self.publisher.telemetry),
            reception: subscription.reception.clone(),
            replayed,
            rejections: Rejections::default(),
            guarantee: subscription.guarantee(),
            capabilities: driver.capabilities().clone(),
            dead_letters,
            held: Held::default(),
            topic,
        })
    }

    fn annotate(&self, error: Error, operation: &'static str) -> Error {
        error.with_system(self.publisher.driver.identity().system).with_operation(operation)
    }
}

#[async_trait]
impl<D: Driver> TracedBroker for Traced<D> {
    fn system(&self) -> &'static str {
        self.publisher.driver.identity().system
    }

    fn capabilities(&self) -> &Capabilities {
        self.publisher.driver.capabilities()
    }

    fn publish<'a>(&'a self, topic: &'a str, mut message: Message) -> BoxFuture<'a, Result<Receipt>> {
        let given = message.context.take();
        let called = if given.is_none() { ambient::active() } else { None };
        Box::pin(async move {
            let context = given.unwrap_or_else(|| made_in(called));
            self.publisher.publish(topic, message, context).await
        })
    }

    fn publish_batch<'a>(&'a self, topic: &'a str, messages: Vec<Message>) -> BoxFuture<'a, Vec<Result<Receipt>>> {
        let called = ambient::active();
        Box::pin(async move { self.publisher.publish_batch(topic, messages, made_in(called)).await })
    }

    fn forward<'a>(&'a self, topic: &'a str, mut message: Message) -> BoxFuture<'a, Result<Receipt>> {
        let given = message.context.take();
        let called = if given.is_none() { ambient::active() } else { None };
        Box::pin(async move {
            let context = given.unwrap_or_else(|| made_in(called));
            self.publisher.forward_within(topic, message, context).await
        })
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Deliveries> {
        let operation = "subscribe";
        let checked = subscription.validate().and_then(|()| supports(self.capabilities(), &subscription));
        checked.map_err(|error| self.annotate(error, operation))?;
        // Before it begins, so that nothing that comes while it does is taken for the past.
        let replayed = self.replays.begin(&subscription);
        let source = self.publisher.driver.subscribe(&subscription).await;
        let source =
            source.map_err(|error| self.annotate(error, operation).with_context("topic", subscription.topic()))?;
        let consumer = self.consumer(&subscription, &source, replayed)?;
        Ok(Deliveries::new(source, consumer))
    }

    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()> {
        let checked = subscription.validate().and_then(|()| repositions(self.capabilities(), subscription, start));
        if checked.is_ok() {
            // Before it is done: members may get what comes next at once.
            self.replays.moved(subscription);
        }
        let moved = match checked {
            Ok(()) => self.publisher.driver.reposition(subscription, start).await,
            Err(error) => Err(error),
        };
        moved.map_err(|error| self.annotate(error, "reposition").with_context("topic", subscription.topic()))
    }

    async fn ping(&self) -> Result<()> {
        self.publisher.driver.ping().await.map_err(|error| self.annotate(error, "ping"))
    }

    async fn close(&self) -> Result<()> {
        self.publisher.stop().await;
        self.publisher.driver.close().await.map_err(|error| self.annotate(error, "close"))
    }
}

impl<D> Clone for Traced<D> {
    fn clone(&self) -> Self {
        Self { publisher: Arc::clone(&self.publisher), replays: Arc::clone(&self.replays) }
    }
}

impl<D: Driver> fmt::Debug for Traced<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traced").field("driver", &self.publisher.driver).finish_non_exhaustive()
    }
}

/// A shared broker is a broker.
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: TracedBroker + ?Sized> TracedBroker for Arc<B> {
    fn system(&self) -> &'static str {
        (**self).system()
    }

    fn capabilities(&self) -> &Capabilities {
        (**self).capabilities()
    }

    fn publish<'a>(&'a self, topic: &'a str, message: Message) -> BoxFuture<'a, Result<Receipt>> {
        (**self).publish(topic, message)
    }

    fn publish_batch<'a>(&'a self, topic: &'a str, messages: Vec<Message>) -> BoxFuture<'a, Vec<Result<Receipt>>> {
        (**self).publish_batch(topic, messages)
    }

    fn forward<'a>(&'a self, topic: &'a str, message: Message) -> BoxFuture<'a, Result<Receipt>> {
        (**self).forward(topic, message)
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Deliveries> {
        (**self).subscribe(subscription).await
    }

    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()> {
        (**self).reposition(subscription, start).await
    }

    async fn ping(&self) -> Result<()> {
        (**self).ping().await
    }

    async fn close(&self) -> Result<()> {
        (**self).close().await
    }
}

/// Which context a publish is made in: decided when it is first polled, knowing where it was called.
///
/// The two differ when the future is handed to someone else to drive. If that is a span of the same trace
/// (`publish(…).instrument(span)`), it is the closer one; if not, it is a bystander.
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

/// Refuses at subscribe what would fail at the first settlement.
fn supports(capabilities: &Capabilities, subscription: &Subscription) -> Result<()> {
    let unsupported = |message: &str| Err(Error::new(ErrorKind::Unsupported, message));
    if subscription.guarantee() == Guarantee::AtLeastOnce && !capabilities.at_least_once {
        return unsupported(
            "this broker forgets a message once it is handed out: subscribe at_most_once(), or use a broker that keeps it",
        );
    }
    if subscription.guarantee() == Guarantee::AtMostOnce && subscription.dead_letter_topic().is_some() {
        return unsupported("an at-most-once subscription cannot reject messages, so that it has no dead-letter topic");
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
    fn forward<'a>(&'a self, topic: &'a str, message: Message, context: Context) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(self.forward_within(topic, message, context))
    }
}
