//! Publishing over any driver: spans, injection, order, and the bound of publishes in flight.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context as TaskContext, Waker};
use std::time::{Duration, SystemTime};

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::coop::consume_budget;

use super::channels::{Channel, Channels, Job, Opening, Route};
use super::flights::{Answer, Flight, Flights, closed};
use super::replay::Replays;
use crate::context::propagation::Hop;
use crate::driver::{Destination, Driver, Outbound};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Message, Receipt, Topic};
use crate::telemetry::Telemetry;
use crate::telemetry::span::{MAX_LINKS, Operation, SendSpan, SentCount, SpanTemplate};

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
    pub(crate) driver: Arc<D>,
    pub(crate) replays: Replays,
    channels: Arc<Channels>,
    flights: Arc<Flights>,
}

/// A message that was passed on, with its span.
struct Sending {
    flight: Flight,
    span: Option<SendSpan<Route>>,
    /// The count of a message whose span does not count it.
    count: Option<SentCount<Route>>,
}

/// A part of a batch that was passed on.
struct Chunk {
    messages: Vec<Sending>,
    span: SendSpan<Route>,
}

impl<D: Driver> Shared<D> {
    pub(crate) fn new(driver: D) -> Self {
        let identity = driver.identity();
        let flights = Flights::new(identity.max_in_flight, identity.delivery_timeout);
        Self { driver: Arc::new(driver), replays: Replays::default(), channels: Arc::default(), flights }
    }
}

impl<D> Drop for Shared<D> {
    fn drop(&mut self) {
        self.flights.forget_spare();
    }
}

impl<D: Driver> Publisher<D> {
    /// Publishes a message with its own creation context, a child of `parent`.
    pub(crate) async fn publish(&self, topic: &str, message: Message, parent: Context) -> Result<Receipt> {
        let sending = match self.shared.channels.open(topic) {
            Some(channel) => self.begin(&channel, message, &parent, false),
            None => {
                let context = parent.clone();
                let begin = move |publisher: &Self, channel: &_, accepted| {
                    publisher.begin(channel, message, &context, accepted)
                };
                match Box::pin(self.first(topic, begin)).await {
                    Ok(sending) => sending,
                    Err(error) => return self.refuse(topic, &parent, error),
                }
            }
        };
        self.conclude(sending).await
    }

    /// Publishes a message with the creation context in its headers, or as a new message if there
    /// is none.
    pub(crate) async fn forward_within(&self, topic: &str, message: Message, parent: Context) -> Result<Receipt> {
        let creation = self.telemetry.settings.propagation.extract(&message.headers).context;
        if !creation.span().span_context().is_valid() {
            return self.publish(topic, message, parent).await;
        }
        let context = parent.clone();
        let begin = move |publisher: &Self, channel: &_, accepted| {
            publisher.pass_on(channel, message, &creation, &context, accepted)
        };
        match self.opened(topic, begin).await {
            Ok(sending) => self.conclude(sending).await,
            Err(error) => self.refuse(topic, &parent, error),
        }
    }

    /// Publishes messages in order, each with its own creation context.
    pub(crate) async fn publish_batch(
        &self,
        topic: &str,
        messages: Vec<Message>,
        parent: Context,
    ) -> Vec<Result<Receipt>> {
        let count = messages.len();
        let mut results = Vec::with_capacity(count);
        let mut messages = messages.into_iter();
        while messages.len() > 0 {
            let (chunk, context) = (messages.by_ref().take(MAX_LINKS).collect(), parent.clone());
            let begin = move |publisher: &Self, channel: &_, accepted| {
                publisher.begin_chunk(channel, chunk, &context, accepted)
            };
            match self.opened(topic, begin).await {
                Ok(chunk) => results.extend(self.conclude_chunk(chunk).await),
                Err(error) => {
                    results.extend((results.len()..count).map(|_| Err(error.without_source())));
                    let _ = self.refuse(topic, &parent, error);
                    return results;
                }
            }
        }
        results
    }

    /// Begins a publish now if the topic is declared, otherwise when it is.
    async fn opened<T: Send + 'static>(
        &self,
        topic: &str,
        begin: impl FnOnce(&Self, &Arc<Channel>, bool) -> T + Send + Sync + 'static,
    ) -> Result<T> {
        match self.shared.channels.open(topic) {
            Some(channel) => Ok(begin(self, &channel, false)),
            None => Box::pin(self.first(topic, begin)).await,
        }
    }

    /// Begins a publish once its topic is declared, in line with those that wait for the same.
    /// After a failure, the next publish declares it again.
    async fn first<T: Send + 'static>(
        &self,
        topic: &str,
        begin: impl FnOnce(&Self, &Arc<Channel>, bool) -> T + Send + Sync + 'static,
    ) -> Result<T> {
        if self.shared.flights.is_closing() {
            return Err(self.annotate(closed(), None).with_context("topic", topic));
        }
        let (sender, begun) = oneshot::channel();
        let publisher = self.clone();
        let job: Job =
            Box::new(move |opened| drop(sender.send(opened.map(|channel| begin(&publisher, channel, true)))));
        let (_place, opening) = self.shared.channels.enqueue(topic, job);
        if let Some(opening) = opening {
            self.run(self.clone().declare(opening));
        }
        let begun = begun.await.unwrap_or_else(|_| {
            let message = "the runtime in which the topic was being declared has ended";
            Err(Error::new(ErrorKind::Unavailable, message))
        });
        begun.map_err(|error| {
            error
                .with_system(self.shared.driver.identity().system)
                .with_operation("publish")
                .with_context("topic", topic)
        })
    }

    /// Polls a declaration once, and leaves the rest to a task.
    fn run(&self, declaration: impl Future<Output = ()> + Send + 'static) {
        let mut declaration = Box::pin(declaration);
        let is_over = declaration.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())).is_ready();
        if let (false, Ok(runtime)) = (is_over, Handle::try_current()) {
            runtime.spawn(declaration);
        }
    }

    /// Declares a topic and runs its line. Closing waits for both.
    async fn declare(self, opening: Opening) {
        let Some(_declaring) = self.shared.flights.declaring() else {
            return opening.end(Err(closed()));
        };
        let driver = &self.shared.driver;
        let declared = match Topic::new(&opening.topic) {
            Ok(topic) => match driver.declare(&topic).await {
                Ok(destination) => Ok(Channel::new(&topic, driver.identity(), &destination)),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        opening.end(declared);
    }

    fn begin(&self, channel: &Arc<Channel>, mut message: Message, parent: &Context, accepted: bool) -> Sending {
        let span = SendSpan::start(channel.route(Operation::Send), &self.telemetry, parent, &message);
        message.mark_new();
        self.inject(span.span_context(), parent, &mut message);
        let flight = self.hand_over(channel, message, accepted);
        Sending { flight, span: Some(span), count: None }
    }

    fn pass_on(
        &self,
        channel: &Arc<Channel>,
        mut message: Message,
        creation: &Context,
        parent: &Context,
        accepted: bool,
    ) -> Sending {
        let (route, hop) = (channel.route(Operation::Transfer), message.hop_kind());
        let created = creation.span().span_context().clone();
        let span = SendSpan::start_linked(route, &self.telemetry, parent, vec![created], hop, None);
        message.mark_passed_on();
        // Written anew, not left as received: one header each, and only valid ones.
        self.inject(None, creation, &mut message);
        let flight = self.hand_over(channel, message, accepted);
        Sending { flight, span: Some(span), count: None }
    }

    fn begin_chunk(&self, channel: &Arc<Channel>, mut chunk: Vec<Message>, parent: &Context, accepted: bool) -> Chunk {
        let creates: Vec<_> = chunk.iter_mut().map(|message| self.create(channel, message, parent)).collect();
        let links: Vec<SpanContext> = creates.iter().filter_map(SendSpan::span_context).cloned().collect();
        let (route, count) = (channel.route(Operation::Transfer), Some(chunk.len()));
        let span = SendSpan::start_linked(route, &self.telemetry, parent, links, Hop::Direct, count);
        let messages = chunk.into_iter().zip(creates).map(|(message, create)| {
            let count = SentCount::new(channel.route(Operation::Transfer), &self.telemetry);
            Sending { flight: self.hand_over(channel, message, accepted), span: Some(create), count: Some(count) }
        });
        Chunk { messages: messages.collect(), span }
    }

    /// Gives a message of a batch its creation context.
    fn create(&self, channel: &Arc<Channel>, message: &mut Message, parent: &Context) -> SendSpan<Route> {
        let own = message.context.take();
        let parent = own.as_ref().unwrap_or(parent);
        let span = SendSpan::start(channel.route(Operation::Create), &self.telemetry, parent, message);
        message.mark_new();
        self.inject(span.span_context(), parent, message);
        span
    }

    fn inject(&self, span: Option<&SpanContext>, parent: &Context, message: &mut Message) {
        let boundary = message.boundary.as_deref().or(self.telemetry.settings.boundary.as_deref());
        self.telemetry.settings.propagation.inject(span, parent, boundary, &mut message.headers);
    }

    /// Passes a message to the driver, or puts it behind those that wait for a place in flight.
    fn hand_over(&self, channel: &Channel, mut message: Message, accepted: bool) -> Flight {
        let deliver_at = message.deliver_at.filter(|time| *time > SystemTime::now());
        let driver = &self.shared.driver;
        match driver.capabilities().check_message(message.payload.as_deref(), deliver_at.is_some()) {
            Ok(()) => {
                let message = Outbound { deliver_at, ..Outbound::take(&mut message) };
                self.shared.flights.begin(driver, &channel.topic, message, accepted)
            }
            Err(error) => Flight::Refused(Some(error)),
        }
    }

    /// Awaits the answer and ends the span.
    async fn conclude(&self, mut sending: Sending) -> Result<Receipt> {
        let Shared { driver, flights, .. } = &*self.shared;
        let mut answer = sending.flight.land(flights, driver, driver.identity().delivery_timeout).await;
        if answer.is_missing_topic() {
            answer = Box::pin(self.once_more(&mut sending, answer)).await;
        }
        // Otherwise a loop of publishes to a broker that answers at once would never yield the
        // thread.
        consume_budget().await;
        let Answer { result, was_sent, .. } = answer;
        let result = result.map_err(|error| self.annotate(error, sending.topic()));
        sending.finish(&result, was_sent);
        result
    }

    async fn conclude_chunk(&self, chunk: Chunk) -> Vec<Result<Receipt>> {
        let Chunk { messages, span } = chunk;
        let mut results = Vec::with_capacity(messages.len());
        for sending in messages {
            results.push(self.conclude(sending).await);
        }
        span.finish_batch(&results);
        results
    }

    /// Forgets the channel of a topic that was deleted at the broker, so that it is declared again.
    /// Publishes the message once more if the driver gave it back: it was certainly not sent.
    async fn once_more(&self, sending: &mut Sending, missing: Answer) -> Answer {
        let Some(channel) = sending.channel().cloned() else { return missing };
        self.shared.channels.forget(&channel);
        let Some(message) = missing.message else { return missing };
        let begin = move |publisher: &Self, channel: &Arc<Channel>, accepted| {
            let Shared { driver, flights, .. } = &*publisher.shared;
            flights.begin(driver, &channel.topic, *message, accepted)
        };
        match self.opened(&channel.topic, begin).await {
            Ok(flight) => {
                sending.flight = flight;
                let Shared { driver, flights, .. } = &*self.shared;
                let mut answer = sending.flight.land(flights, driver, driver.identity().delivery_timeout).await;
                answer.was_sent = true;
                answer
            }
            Err(error) => Answer { result: Err(error), message: None, was_sent: true },
        }
    }

    /// Waits for the accepted publishes, at most this long, and accepts no more.
    pub(crate) async fn stop(&self, patience: Duration) {
        self.shared.flights.stop(patience).await;
    }

    /// Records a span for a publish that failed before its topic was declared, so that it can be
    /// seen.
    fn refuse(&self, topic: &str, parent: &Context, error: Error) -> Result<Receipt> {
        // An invalid name may be anything, even an id or a secret, so it is not used as the name of
        // a span.
        let shown = if Topic::new(topic).is_ok() { topic } else { "invalid" };
        let identity = self.shared.driver.identity();
        let template = SpanTemplate::new(Operation::Send, identity, &shown.into(), &Destination::new(), None);
        let result = Err(error);
        let span = SendSpan::start_linked(&template, &self.telemetry, parent, Vec::new(), Hop::Direct, None);
        span.finish(&result, false);
        result
    }

    fn annotate(&self, error: Error, topic: Option<&Topic>) -> Error {
        let error = error.with_system(self.shared.driver.identity().system).with_operation("publish");
        match topic {
            Some(topic) => error.with_context("topic", topic),
            None => error,
        }
    }
}

impl Sending {
    fn channel(&self) -> Option<&Arc<Channel>> {
        self.span.as_ref().map(|span| span.template().channel())
    }

    fn topic(&self) -> Option<&Topic> {
        self.channel().map(|channel| &channel.topic)
    }

    fn finish(mut self, result: &Result<Receipt>, was_sent: bool) {
        if let Some(count) = self.count.take().filter(|_| was_sent) {
            count.add(Some(result));
        }
        if let Some(span) = self.span.take() {
            span.finish(result, was_sent);
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let Some(span) = self.span.take() else { return };
        let was_sent = self.flight.abandon();
        if let Some(count) = self.count.take().filter(|_| was_sent) {
            count.add(None);
        }
        span.cancel(was_sent);
    }
}

impl<D> Clone for Publisher<D> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), telemetry: Arc::clone(&self.telemetry) }
    }
}
