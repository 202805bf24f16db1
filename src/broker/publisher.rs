//! Publishing over any driver: spans, injection, order, and the bound of publishes in flight.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, stream};
use hashbrown::HashMap;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use parking_lot::RwLock;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::coop::{consume_budget, unconstrained};

use super::replay::Replays;
use crate::context::propagation::Hop;
use crate::driver::{Destination, Driver, Outbound};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Message, Receipt, Topic};
use crate::telemetry::Telemetry;
use crate::telemetry::span::{MAX_LINKS, Operation, SendSpan, SpanTemplate};

/// Maximum number of topics that are remembered as declared. Beyond it, all are forgotten, and each
/// is declared again when it is next used.
const MAX_CHANNELS: usize = 4096;

/// Maximum duration for which closing waits for publishes in flight.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// The publisher of one handle: the driver that all handles share, and this handle's telemetry.
#[derive(Debug)]
pub(crate) struct Publisher<D> {
    pub(crate) shared: Arc<Shared<D>>,
    pub(crate) telemetry: Arc<Telemetry>,
}

/// The state that all handles on one driver share: one bound holds for all of their publishes, and
/// closing one waits for the publishes of all.
#[derive(Debug)]
pub(crate) struct Shared<D> {
    pub(crate) driver: D,
    pub(crate) replays: Replays,
    channels: RwLock<HashMap<Box<str>, Arc<OnceCell<Channel>>>>,
    in_flight: Semaphore,
}

impl<D: Driver> Shared<D> {
    pub(crate) fn new(driver: D) -> Self {
        let in_flight = Semaphore::new(driver.identity().max_in_flight.min(Semaphore::MAX_PERMITS));
        Self { driver, replays: Replays::default(), channels: RwLock::default(), in_flight }
    }
}

/// A topic that is declared at the broker, with the templates of its spans.
#[derive(Debug)]
struct Channel {
    topic: Topic,
    create: SpanTemplate,
    send: SpanTemplate,
    transfer: SpanTemplate,
}

impl<D: Driver> Publisher<D> {
    /// Publishes a message with its own creation context, a child of `parent`.
    pub(crate) async fn publish(&self, topic: &str, mut message: Message, parent: Context) -> Result<Receipt> {
        let cell = self.channel(topic);
        let channel = match self.declared(&cell, topic).await {
            Ok(channel) => channel,
            Err(error) => return self.refuse(topic, &parent, error),
        };
        let span = SendSpan::start(&channel.send, &self.telemetry, &parent, &message);
        message.mark_new();
        self.inject(span.span_context(), &parent, &mut message);
        let result = self.hand_over(&channel.topic, &mut message).await;
        span.finish(&result);
        result
    }

    /// Publishes a message with the creation context in its headers, or as a new message if there
    /// is none.
    pub(crate) async fn forward_within(&self, topic: &str, mut message: Message, parent: Context) -> Result<Receipt> {
        let creation = self.telemetry.settings.propagation.extract(&message.headers).context;
        let created = creation.span().span_context().clone();
        if !created.is_valid() {
            return self.publish(topic, message, parent).await;
        }
        let cell = self.channel(topic);
        let channel = match self.declared(&cell, topic).await {
            Ok(channel) => channel,
            Err(error) => return self.refuse(topic, &parent, error),
        };
        let hop = message.hop_kind();
        let span = SendSpan::start_linked(&channel.transfer, &self.telemetry, &parent, vec![created], hop, None);
        message.mark_passed_on();
        // Written anew, not left as received: one header each, and only valid ones.
        self.inject(None, &creation, &mut message);
        let result = self.hand_over(&channel.topic, &mut message).await;
        span.finish(&result);
        result
    }

    /// Publishes messages in order, each with its own creation context.
    pub(crate) async fn publish_batch(
        &self,
        topic: &str,
        messages: Vec<Message>,
        parent: Context,
    ) -> Vec<Result<Receipt>> {
        let cell = self.channel(topic);
        let channel = match self.declared(&cell, topic).await {
            Ok(channel) => channel,
            Err(error) => {
                let results = messages.iter().map(|_| Err(error.without_source())).collect();
                let _ = self.refuse(topic, &parent, error);
                return results;
            }
        };
        let mut results = Vec::with_capacity(messages.len());
        let mut messages = messages.into_iter();
        while messages.len() > 0 {
            let chunk: Vec<Message> = messages.by_ref().take(MAX_LINKS).collect();
            results.extend(self.publish_chunk(channel, chunk, &parent).await);
        }
        results
    }

    async fn publish_chunk(
        &self,
        channel: &Channel,
        mut chunk: Vec<Message>,
        parent: &Context,
    ) -> Vec<Result<Receipt>> {
        let creates: Vec<SendSpan> = chunk.iter_mut().map(|message| self.create(channel, message, parent)).collect();
        let links: Vec<SpanContext> = creates.iter().filter_map(SendSpan::span_context).cloned().collect();
        let count = Some(chunk.len());
        let span = SendSpan::start_linked(&channel.transfer, &self.telemetry, parent, links, Hop::Direct, count);
        let mut sends = Vec::with_capacity(creates.len());
        for (message, create) in chunk.into_iter().zip(creates) {
            sends.push(self.hand_over_created(&channel.topic, message, create));
        }
        let results: Vec<_> = stream::iter(sends).buffered(MAX_LINKS).collect().await;
        span.finish_batch(&results);
        results
    }

    /// Gives a message of a batch its creation context.
    fn create<'a>(&self, channel: &'a Channel, message: &mut Message, parent: &Context) -> SendSpan<'a> {
        let own = message.context.take();
        let parent = own.as_ref().unwrap_or(parent);
        let span = SendSpan::start(&channel.create, &self.telemetry, parent, message);
        message.mark_new();
        self.inject(span.span_context(), parent, message);
        span
    }

    async fn hand_over_created(&self, topic: &Topic, mut message: Message, create: SendSpan<'_>) -> Result<Receipt> {
        let result = self.hand_over(topic, &mut message).await;
        create.finish(&result);
        result
    }

    fn inject(&self, span: Option<&SpanContext>, parent: &Context, message: &mut Message) {
        let boundary = message.boundary.as_deref().or(self.telemetry.settings.boundary.as_deref());
        self.telemetry.settings.propagation.inject(span, parent, boundary, &mut message.headers);
    }

    /// Waits for a place among the publishes in flight, first come first served, enqueues the
    /// message, and awaits the answer.
    async fn hand_over(&self, topic: &Topic, message: &mut Message) -> Result<Receipt> {
        let deliver_at = message.deliver_at.filter(|time| *time > SystemTime::now());
        let checked = self.shared.driver.capabilities().check_message(message.payload.as_deref(), deliver_at.is_some());
        checked.map_err(|error| self.annotate(error, topic))?;
        // Unconstrained: a task without budget would be queued later, in the scheduler's order.
        let place = unconstrained(self.shared.in_flight.acquire()).await;
        let _place = place.map_err(|_| self.annotate(closed(), topic))?;
        // Taken out only here: otherwise the future would hold the message, and each move would
        // copy both.
        let confirmation = self.shared.driver.publish(topic, Outbound { deliver_at, ..Outbound::take(message) });
        let answer = confirmation.await;
        // Otherwise a loop of publishes to a broker that answers at once would never yield the
        // thread.
        consume_budget().await;
        answer.map_err(|error| self.annotate(error, topic))
    }

    /// Waits for the publishes in flight and accepts no more.
    ///
    /// A publish whose future is kept and not polled cannot end; the wait is at most
    /// [`STOP_PATIENCE`].
    pub(crate) async fn stop(&self) {
        let all = u32::try_from(self.shared.driver.identity().max_in_flight).unwrap_or(u32::MAX);
        let _places = tokio::time::timeout(STOP_PATIENCE, self.shared.in_flight.acquire_many(all)).await;
        self.shared.in_flight.close();
    }

    fn channel(&self, topic: &str) -> Arc<OnceCell<Channel>> {
        if let Some(channel) = self.shared.channels.read().get(topic) {
            return Arc::clone(channel);
        }
        let mut channels = self.shared.channels.write();
        if channels.len() >= MAX_CHANNELS {
            channels.clear();
        }
        Arc::clone(channels.entry(topic.into()).or_default())
    }

    /// Returns the channel of a topic, and declares it at the broker if needed. After a failure,
    /// the next publish tries again.
    async fn declared<'a>(&self, cell: &'a OnceCell<Channel>, topic: &str) -> Result<&'a Channel> {
        match cell.get() {
            Some(channel) => Ok(channel),
            // Boxed, so that the future of every publish has no room for a step that happens once
            // per topic.
            None => Box::pin(self.declare(cell, topic)).await,
        }
    }

    async fn declare<'a>(&self, cell: &'a OnceCell<Channel>, topic: &str) -> Result<&'a Channel> {
        let declare = || async {
            let topic = Topic::new(topic)?;
            // Takes a place in flight, so that closing waits for it.
            let _place = self.shared.in_flight.acquire().await.map_err(|_| closed())?;
            let destination = self.shared.driver.declare(&topic).await?;
            let identity = self.shared.driver.identity();
            let template = |operation| SpanTemplate::new(operation, identity, &topic.to_shared(), &destination, None);
            Ok(Channel {
                create: template(Operation::Create),
                send: template(Operation::Send),
                transfer: template(Operation::Transfer),
                topic: topic.clone(),
            })
        };
        // Unconstrained to keep the order, as for the places in flight.
        unconstrained(cell.get_or_try_init(declare)).await.map_err(|error: Error| {
            error
                .with_system(self.shared.driver.identity().system)
                .with_operation("publish")
                .with_context("topic", topic)
        })
    }

    /// Records a span for a publish that failed before its topic was declared, so that it can be
    /// seen.
    fn refuse(&self, topic: &str, parent: &Context, error: Error) -> Result<Receipt> {
        self.shared.channels.write().remove(topic);
        // An invalid name may be anything, even an id or a secret, so it is not used as the name of
        // a span.
        let shown = if Topic::new(topic).is_ok() { topic } else { "invalid" };
        let identity = self.shared.driver.identity();
        let template = SpanTemplate::new(Operation::Send, identity, &shown.into(), &Destination::new(), None);
        let result = Err(error);
        SendSpan::start_linked(&template, &self.telemetry, parent, Vec::new(), Hop::Direct, None).finish(&result);
        result
    }

    fn annotate(&self, error: Error, topic: &Topic) -> Error {
        error.with_system(self.shared.driver.identity().system).with_operation("publish").with_context("topic", topic)
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the broker is closed")
}
