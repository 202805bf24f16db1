//! Consuming: one channel per subscription, replaced when it ends.

pub(crate) mod delivery;
pub(crate) mod held;
pub(crate) mod intake;
pub(crate) mod looks;
pub(crate) mod retry;
pub(crate) mod settle;
pub(crate) mod stream;
pub(crate) mod time_limit;

use std::sync::{Arc, Weak};

use lapin::types::ShortString;
use parking_lot::Mutex;
use tokio_util::sync::DropGuard;

use self::held::Held;
use self::intake::{CurrentIntake, Intake};
use self::retry::RetryTarget;
use self::settle::Settler;
use self::time_limit::TimeLimit;
use super::config::Settings;
use super::connection::Live;
use super::connection::engine::Engine;
use super::connection::link::{Link, Pauses, closed};
use super::error::During;
use super::publish::Publisher;
use super::publish::routes::Interest;
use super::topology::bindings::Bindings;
use super::trials::Logs;
use crate::driver::{Destination, Topology};
use crate::error::Result;
use crate::message::Subscription;
use crate::names::attribute;

/// The number of times that a quorum queue returns a message, by default since RabbitMQ 4.
const DEFAULT_DELIVERY_LIMIT: u32 = 20;

/// The settlers of a driver's subscriptions, for closing. Settlers that are no longer in use are
/// removed at the next subscription.
#[derive(Debug, Default)]
pub(super) struct Settlers(Mutex<Vec<Weak<Settler>>>);

impl Settlers {
    fn add(&self, settler: &Arc<Settler>) {
        let mut settlers = self.0.lock();
        settlers.retain(|settler| settler.strong_count() > 0);
        settlers.push(Arc::downgrade(settler));
    }

    pub(super) fn all(&self) -> Vec<Arc<Settler>> {
        self.0.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

/// Everything that is needed to start a subscription, and to start it again.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) settings: Arc<Settings>,
    pub(super) engine: Arc<Engine>,
    pub(super) link: Arc<Link>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) settlers: Arc<Settlers>,
    pub(super) subscription: Subscription,
    pub(super) intake: CurrentIntake,
    pub(super) logs: Arc<Logs>,
    pub(super) held: Held,
    /// The topics whose messages this subscription wants to be taken.
    pub(super) interest: Arc<Interest>,
    pub(super) time_limit: Arc<TimeLimit>,
    /// Keeps the connection up while the subscription lives.
    pub(super) _life: Arc<DropGuard>,
}

impl Plan {
    /// Stops the deliveries for good.
    pub(super) fn stop(&self) {
        self.intake.stop(self.held.take());
    }

    /// Declares exchange and queue, or only checks them, and starts to consume.
    pub(super) async fn start(&self, live: Arc<Live>) -> Result<Arc<Intake>> {
        let prefetch = u16::try_from(self.subscription.prefetch_limit()).unwrap_or(u16::MAX);
        let channel = live.channel(During::Consume).await?;
        let bindings = Bindings::of(&self.subscription, &self.settings);
        let queue = bindings.declare(&live, &channel).await?;
        self.publisher.bind_again(&live, self.subscription.topic(), &queue).await;
        let retry_target = Arc::new(self.retry_target(&live, queue.clone()));
        let settler = Settler::start(live, channel, prefetch);
        let consumer = settler.consume(&queue, prefetch).await?;
        self.settlers.add(&settler);
        let intake = Intake::new(consumer, settler, retry_target, queue, Arc::clone(&self.time_limit));
        looks::start(&intake, bindings, &self.interest);
        self.intake.is_now(&intake);
        Ok(intake)
    }

    fn retry_target(&self, live: &Live, queue: ShortString) -> RetryTarget {
        let is_temporary = self.subscription.group_name().is_none();
        // The limit of a queue of another program is not visible. Queues of this one have none.
        let is_foreign = self.settings.topology == Topology::Check && !is_temporary;
        let assumed = live.server_major.filter(|major| is_foreign && *major >= 4).map(|_| DEFAULT_DELIVERY_LIMIT);
        let delivery_limit = self.settings.delivery_limit.or(assumed).filter(|_| !is_temporary);
        let (publisher, engine) = (Arc::clone(&self.publisher), Arc::clone(&self.engine));
        let frame_max = live.connection.configuration().frame_max() as usize;
        RetryTarget::new(publisher, engine, queue, is_temporary, delivery_limit, frame_max)
    }

    /// Starts the subscription again on the next connection, after its channel has ended.
    async fn resume(self: Arc<Self>, mut pauses: Pauses) -> (Result<Arc<Intake>>, Pauses) {
        loop {
            if self.intake.is_stopped() {
                return (Err(closed()), pauses);
            }
            if !self.link.closed().is_cancelled() {
                pauses.next().await;
            }
            let live = match self.link.restored().await {
                Ok(live) => live,
                Err(closed) => return (Err(closed), pauses),
            };
            match self.start(live).await {
                Err(error) if error.is_retryable() => {
                    tracing::warn!(topic = self.subscription.topic(), %error, "the subscription cannot be resumed yet");
                }
                result => return (result, pauses),
            }
        }
    }
}

/// Returns the source under the name that the semantic conventions prescribe: exchange and queue.
/// The routing key is left out, because it is empty or differs per message.
pub(super) fn destination(subscription: &Subscription) -> Destination {
    match subscription.group_name() {
        Some(group) => {
            let topic = subscription.topic();
            Destination::new().named(format!("{topic}:{topic}.{group}"))
        }
        None => Destination::new()
            .with_attribute(attribute::DESTINATION_ANONYMOUS, true)
            .with_attribute(attribute::DESTINATION_TEMPORARY, true),
    }
}
