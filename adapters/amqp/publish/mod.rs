//! Publishing over the current connection.

mod admitting;
pub(crate) mod channel;
mod copies;
mod current;
pub(crate) mod in_flight;
mod keeping;
mod parking;
pub(crate) mod refusals;
pub(crate) mod routes;
mod sending;
mod sequence;
mod stranded;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use ::bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::ShortString;
use tokio::time::{Instant, timeout};

use self::channel::{Fate, Publication, PublishChannel};
use self::current::CurrentChannel;
use self::in_flight::{InFlight, Permit};
use self::refusals::Refusals;
use self::routes::{Interest, Routes};
use self::stranded::Parcel;
use super::SYSTEM;
use super::config::Settings;
use super::connection::Live;
use super::connection::link::{Link, closed};
use super::headers::outgoing::{Envelope, Waiting};
use super::topology::bindings::DeadLetterTopics;
use super::topology::delay::Delay;
use super::topology::waiting::{Target, exchange};
use crate::driver::{Confirmation, Confirmer, Native, Outbound, Topology};
use crate::error::{Error, ErrorKind, PublishOutcome, Result};
use crate::message::{Receipt, Subscription, Topic};

/// Publishes on the current [`PublishChannel`], and replaces it when it ends.
#[derive(Debug)]
pub(super) struct Publisher {
    settings: Arc<Settings>,
    /// `true` if no more messages are accepted. Accepted messages go on.
    closing: AtomicBool,
    current: CurrentChannel,
    places: Arc<InFlight>,
    /// The places of copies for delayed retries. Each copy stands for an unsettled delivery, so the
    /// prefetches of the subscriptions bound their number.
    copies: Arc<InFlight>,
    /// `true` if the server knows this program's user by another name than that of the credentials,
    /// so that copies cannot carry it.
    unsigned: Arc<AtomicBool>,
    refusals: Arc<Refusals>,
    routes: Arc<Routes>,
    dead_letters: Arc<DeadLetterTopics>,
}

impl Publisher {
    /// Opens the channel, and keeps a channel open until `link` is closed.
    pub(super) async fn start(
        settings: &Arc<Settings>,
        link: Arc<Link>,
        dead_letters: Arc<DeadLetterTopics>,
    ) -> Result<Arc<Self>> {
        let live = link.current()?;
        let routes = Arc::default();
        let channel = Arc::new(PublishChannel::open(&live, settings, &routes).await?);
        let publisher = Arc::new(Self {
            settings: Arc::clone(settings),
            closing: AtomicBool::new(false),
            current: CurrentChannel::new(Arc::clone(&channel), settings),
            places: InFlight::new(settings.max_in_flight),
            copies: InFlight::new(usize::MAX),
            unsigned: Arc::default(),
            refusals: Arc::default(),
            routes,
            dead_letters,
        });
        let closed = link.closed().clone();
        let keep_open = Arc::clone(&publisher).keep_open(link, live, channel);
        tokio::spawn(async move { closed.run_until_cancelled(keep_open).await });
        Ok(publisher)
    }

    /// Notes that a topic was declared.
    pub(super) fn declared(&self, topic: &str) {
        self.refusals.declared(topic);
    }

    /// Returns the interest of a subscription in its topics. Bindings that this program does not
    /// make are no promise that a message is taken.
    pub(super) fn interest(&self, subscription: &Subscription) -> Interest {
        let topics = [Some(subscription.topic()), subscription.dead_letter_topic()].into_iter().flatten();
        self.routes.interest(topics.filter(|_| self.settings.topology == Topology::Create))
    }

    /// Binds exchange and queue of a subscription to the delay queues, if messages were delayed for
    /// them: an operator may have deleted them, and their bindings with them.
    pub(super) async fn bind_again(&self, live: &Live, topic: &str, queue: &ShortString) {
        let Ok(channel) = self.current.get() else { return };
        for target in [Target::Queue(queue.to_string()), Target::Topic(topic.to_owned())] {
            if let Err(error) = channel.waits.restore(live, self.settings.topology, &target).await {
                tracing::warn!(%target, %error, "delayed messages may not reach their target");
            }
        }
    }

    /// Enqueues a message, in call order.
    pub(super) fn publish(self: &Arc<Self>, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        match message.deliver_at {
            Some(time) => self.publish_later(topic, message, time, confirmer),
            None => match self.check_open() {
                Ok(()) => {
                    let parcel = Parcel { topic: topic.clone(), message, confirmer };
                    self.current.publish(parcel, |channel, parcel| self.publish_on(&channel, parcel));
                }
                Err(error) => confirmer.confirm(Err(error)),
            },
        }
    }

    /// Publishes a message to be delivered at that time. It is enqueued before this returns, if its
    /// delay queues are known to exist.
    fn publish_later(
        self: &Arc<Self>,
        topic: &Topic,
        message: Outbound,
        until: SystemTime,
        confirmer: Confirmer<Receipt>,
    ) {
        let prepare = || {
            self.check_open()?;
            let payload = self.check(message.payload.as_ref())?;
            let delay = until.duration_since(SystemTime::now()).unwrap_or_default();
            Delay::of(delay)?;
            Ok((payload, delay, self.places.take()?))
        };
        let (payload, delay, place) = match prepare() {
            Ok(prepared) => prepared,
            Err(error) => return confirmer.confirm(Err(error)),
        };
        let (publisher, target) = (Arc::clone(self), Target::Topic(topic.as_str().to_owned()));
        let kept = Confirmation::running(async move {
            let routing = publisher.settings.routing_key;
            let encode = |channel: &PublishChannel, delay, number| {
                let wait = Some(Waiting { until, delay, target: &target });
                let (headers, key) = (&message.headers, message.key.as_ref());
                let original = original(message.native.as_ref());
                let id = message.id.as_deref();
                let envelope = Envelope { headers, key, id, original, number: Some(number), wait };
                envelope.encode(routing, channel.frame_max)
            };
            let due = Instant::now() + delay;
            publisher.current.opened().await?;
            publisher.keep(&target, due, payload, place, encode).await
        });
        kept.pass_to(confirmer);
    }

    /// Takes a place that closing waits for.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`].
    pub(super) fn copying(&self) -> Result<Permit> {
        self.check_open()?;
        self.copies.take()
    }

    /// Publishes a message to the delay queues, to be delivered at `due`.
    async fn keep(
        &self,
        target: &Target,
        due: Instant,
        payload: Bytes,
        place: Permit,
        encode: impl FnOnce(&PublishChannel, Delay, i64) -> Result<(BasicProperties, ShortString)>,
    ) -> Result<Receipt> {
        // The remaining delay depends on how long the declarations take, and so do the queues to
        // declare. Each round declares at least one, and their number is small.
        let (channel, delay) = loop {
            let channel = self.current.get()?;
            let delay = Delay::of(due.saturating_duration_since(Instant::now()))?;
            if channel.waits.all(delay, target) {
                break (channel, delay);
            }
            channel.declare_waits(self.settings.topology, delay, target.clone()).await?;
        };
        channel.waits.awaits(target, due.into_std());
        let number = channel.number();
        let (properties, routing_key) = encode(&channel, delay, number)?;
        let publication = Publication { routing_key, properties, payload, number, is_mandatory: true, place };
        let exchange = exchange(delay.first_level())?;
        let admission = self.refusals.check(exchange.as_str())?;
        let admitted = self.admitted(Arc::clone(&channel), admission).await?;
        let kept = admitted.enqueue_at(exchange.clone(), publication, self.refused_copy()).await;
        self.conclude(&admitted, admission, exchange.as_str());
        kept.and_then(Fate::or_error).map_err(|error| {
            if error.kind() != ErrorKind::Rejected || error.publish_outcome() == PublishOutcome::Unknown {
                return error;
            }
            channel.waits.forget();
            let message = "the delay queue for the message is gone; the next delayed message checks for it again";
            Error::new(ErrorKind::Rejected, message).with_context("delay", format_args!("{delay:?}"))
        })
    }

    fn check_open(&self) -> Result<()> {
        if self.closing.load(Ordering::Relaxed) { Err(closed()) } else { Ok(()) }
    }

    fn check(&self, payload: Option<&Bytes>) -> Result<Bytes> {
        let limit = self.settings.max_payload;
        match payload {
            None => Err(Error::new(ErrorKind::Unsupported, "RabbitMQ has no messages without a payload")),
            Some(payload) if payload.len() > limit => {
                Err(Error::new(ErrorKind::TooLarge, "the payload is larger than the broker accepts: see max_payload")
                    .with_context("size", payload.len())
                    .with_context("limit", limit))
            }
            Some(payload) => Ok(payload.clone()),
        }
    }

    /// Accepts no more messages. Waits for the confirms of accepted messages, and until copied
    /// deliveries are settled.
    pub(super) async fn finish(&self, patience: Duration) -> Result<()> {
        self.closing.store(true, Ordering::Relaxed);
        let message = "messages were unconfirmed when the broker was closed";
        let all = async {
            self.current.unheld().await;
            self.places.all_free().await;
            self.copies.all_free().await;
        };
        let finished = timeout(patience, all).await.map_err(|_| Error::new(ErrorKind::Timeout, message));
        self.current.close();
        finished
    }
}

/// Returns the properties of the message of which this is a copy, if RabbitMQ delivered it.
fn original(native: Option<&Native>) -> Option<&BasicProperties> {
    native?.of(SYSTEM)
}
