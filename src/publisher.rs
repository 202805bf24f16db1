//! The way out: spans, injection, order and the bound of what is in flight, over any driver.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, stream};
use hashbrown::HashMap;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use parking_lot::RwLock;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::coop::{consume_budget, unconstrained};

use crate::address::Topic;
use crate::driver::{Destination, Driver, Outbound};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Message, Receipt};
use crate::propagation::{Hop, Propagation};
use crate::span::{MAX_LINKS, Operation, SendSpan, SpanTemplate};
use crate::tracer::Telemetry;

/// How many topics are remembered as declared; beyond it all are forgotten, and declared again when next used.
const MAX_CHANNELS: usize = 4096;

/// How long closing waits for publishes in flight.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// What publishing needs: the driver, its telemetry, and what is known of each topic.
#[derive(Debug)]
pub(crate) struct Publisher<D> {
    pub(crate) driver: D,
    pub(crate) telemetry: Arc<Telemetry>,
    channels: RwLock<HashMap<Box<str>, Arc<OnceCell<Channel>>>>,
    in_flight: Semaphore,
}

/// A topic that is declared at the broker, with what its spans have in common.
#[derive(Debug)]
struct Channel {
    topic: Topic,
    create: SpanTemplate,
    send: SpanTemplate,
    transfer: SpanTemplate,
}

impl<D: Driver> Publisher<D> {
    pub(crate) fn new(driver: D, telemetry: Arc<Telemetry>) -> Self {
        let in_flight = Semaphore::new(driver.identity().max_in_flight.min(Semaphore::MAX_PERMITS));
        Self { driver, telemetry, channels: RwLock::default(), in_flight }
    }

    /// Publishes a message with a creation context of its own, child of `parent`.
    pub(crate) async fn publish(&self, topic: &str, mut message: Message, parent: Context) -> Result<Receipt> {
        let cell = self.channel(topic);
        let channel = match self.declared(&cell, topic).await {
            Ok(channel) => channel,
            Err(error) => return self.refuse(topic, &parent, error),
        };
        let span = SendSpan::start(&channel.send, &self.telemetry, &parent, &message);
        Propagation::mark_new(&mut message);
        self.inject(span.span_context(), &parent, &mut message);
        let result = self.hand_over(&channel.topic, &mut message).await;
        span.finish(&result);
        result
    }

    /// Publishes a message with the creation context its headers hold, or as a new one if they hold none.
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
        Propagation::mark_passed_on(&mut message);
        // Written anew rather than left as received: one header each, and nothing that was not valid.
        self.inject(None, &creation, &mut message);
        let result = self.hand_over(&channel.topic, &mut message).await;
        span.finish(&result);
        result
    }

    /// Publishes messages in order, each with a creation context of its own.
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
        Propagation::mark_new(message);
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

    /// Waits for a place among the publishes in flight, first come first served, enqueues, and awaits the answer.
    async fn hand_over(&self, topic: &Topic, message: &mut Message) -> Result<Receipt> {
        let deliver_at = message.deliver_at.filter(|time| *time > SystemTime::now());
        let checked = self.driver.capabilities().check_message(message.payload.as_deref(), deliver_at.is_some());
        checked.map_err(|error| self.annotate(error, topic))?;
        // Unconstrained: a task out of its budget would be queued not now but in an order of the scheduler's.
        let place = unconstrained(self.in_flight.acquire()).await;
        let _place = place.map_err(|_| self.annotate(closed(), topic))?;
        // Taken out only now: a future that held the message would be copied with it.
        let Message { payload, key, id, headers, .. } = message;
        let (payload, key, id, headers) = (payload.take(), key.take(), id.take(), std::mem::take(headers));
        let confirmation = self.driver.publish(topic, Outbound { payload, key, id, headers, deliver_at });
        let answer = confirmation.await;
        // A broker that answers at once would otherwise let a loop of publishes keep the thread to itself.
        consume_budget().await;
        answer.map_err(|error| self.annotate(error, topic))
    }

    /// Lets what is in flight end, and nothing more in.
    ///
    /// A publish whose future is kept and not polled cannot end; it is not waited for longer than [`STOP_PATIENCE`].
    pub(crate) async fn stop(&self) {
        let all = u32::try_from(self.driver.identity().max_in_flight).unwrap_or(u32::MAX);
        let _places = tokio::time::timeout(STOP_PATIENCE, self.in_flight.acquire_many(all)).await;
        self.in_flight.close();
    }

    fn channel(&self, topic: &str) -> Arc<OnceCell<Channel>> {
        if let Some(channel) = self.channels.read().get(topic) {
            return Arc::clone(channel);
        }
        let mut channels = self.channels.write();
        if channels.len() >= MAX_CHANNELS {
            channels.clear();
        }
        Arc::clone(channels.entry(topic.into()).or_default())
    }

    /// The channel of a topic, declared at the broker if it is not yet; a failure is tried again by the next publish.
    async fn declared<'a>(&self, cell: &'a OnceCell<Channel>, topic: &str) -> Result<&'a Channel> {
        match cell.get() {
            Some(channel) => Ok(channel),
            // Boxed, so that not every publish carries room for what happens once per topic.
            None => Box::pin(self.declare(cell, topic)).await,
        }
    }

    async fn declare<'a>(&self, cell: &'a OnceCell<Channel>, topic: &str) -> Result<&'a Channel> {
        let declare = || async {
            let topic = Topic::new(topic)?;
            // A place in flight, so that closing waits for it.
            let _place = self.in_flight.acquire().await.map_err(|_| closed())?;
            let destination = self.driver.declare(&topic).await?;
            let identity = self.driver.identity();
            let template = |operation| SpanTemplate::new(operation, identity, &topic.to_shared(), &destination, None);
            Ok(Channel {
                create: template(Operation::Create),
                send: template(Operation::Send),
                transfer: template(Operation::Transfer),
                topic: topic.clone(),
            })
        };
        // Unconstrained for the sake of order, as for the places in flight.
        unconstrained(cell.get_or_try_init(declare)).await.map_err(|error: Error| {
            error.with_system(self.driver.identity().system).with_operation("publish").with_context("topic", topic)
        })
    }

    /// A publish that failed before there was a topic to publish to: still a span, so that it can be seen.
    fn refuse(&self, topic: &str, parent: &Context, error: Error) -> Result<Receipt> {
        self.channels.write().remove(topic);
        // A name that is not valid may be anything, an id or a secret: it does not become the name of a span.
        let shown = if Topic::new(topic).is_ok() { topic } else { "invalid" };
        let identity = self.driver.identity();
        let template = SpanTemplate::new(Operation::Send, identity, &shown.into(), &Destination::new(), None);
        let result = Err(error);
        SendSpan::start_linked(&template, &self.telemetry, parent, Vec::new(), Hop::Direct, None).finish(&result);
        result
    }

    fn annotate(&self, error: Error, topic: &Topic) -> Error {
        error.with_system(self.driver.identity().system).with_operation("publish").with_context("topic", topic)
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the broker is closed")
}
