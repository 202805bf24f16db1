//! Dead letters sent back to where they came from.

use std::fmt;
use std::future::{Future, pending};
use std::pin::pin;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use tokio::time::timeout;

use crate::address::{Subscription, Topic};
use crate::broker::TracedBroker;
use crate::dead_letter;
use crate::delivery::Delivery;
use crate::error::Result;
use crate::message::Message;
use crate::propagation::Hop;

/// How long nothing may come before the dead letters count as all sent back, unless [`Redrive::idle`] says otherwise.
pub const DEFAULT_IDLE: Duration = Duration::from_secs(5);

/// How many letters a [dry run](Redrive::dry_run) looks at, at most.
pub const MAX_LOOKED_AT: usize = 10_000;

/// A redrive that is being set up: nothing happens until [`run`](Self::run).
///
/// Each dead letter goes to the topic it [came from](dead_letter::TOPIC), without the headers of its death and with its creation context,
/// and is settled when the broker has confirmed it: none is lost; after a crash in between one may be sent back twice. Letters that
/// do not say where they came from stay where they are, and so do those that died after the redrive began, by their timestamp: what
/// fails again at once is not sent back for ever.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use std::time::Duration;
/// use traced_broker::{HandlerError, Message, Received, Retry, Subscription, TracedBroker, TracedBrokerExt, connect};
///
/// let broker = connect("memory://").await?;
/// broker.publish("orders", Message::new("one pair of shoes")).await?;
/// let workers = Subscription::new("orders").group("workers").dead_letter("orders.dead");
/// let closed = async |_: Received| Err::<(), _>(HandlerError::reject("the warehouse is closed"));
/// broker.consume(workers, closed).run_until(tokio::time::sleep(Duration::from_millis(50))).await?;
///
/// let redriven = broker.redrive("orders.dead").idle(Duration::from_millis(50)).run().await?;
/// assert_eq!((redriven.sent_back, redriven.left), (1, 0));
/// # Ok(()) }
/// ```
#[must_use = "a redrive does nothing until it is run"]
pub struct Redrive<'a, B: ?Sized> {
    broker: &'a B,
    subscription: Subscription,
    most: u64,
    idle: Duration,
    dry: bool,
    progress: Option<Box<Watcher<'a>>>,
}

type Watcher<'a> = dyn Fn(Redriven) + Send + Sync + 'a;

/// What a redrive did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redriven {
    /// Confirmed at the topic they came from, and settled. Of a [dry run](Redrive::dry_run): would be sent.
    pub sent_back: u64,
    /// Left where they are: they do not say where they came from, could not be published there, or died after the redrive began.
    pub left: u64,
}

impl<'a, B: TracedBroker + ?Sized> Redrive<'a, B> {
    pub(crate) fn new(broker: &'a B, dead_letter_topic: &str) -> Self {
        let subscription = Subscription::new(dead_letter_topic).group("redrive");
        Self { broker, subscription, most: u64::MAX, idle: DEFAULT_IDLE, dry: false, progress: None }
    }

    /// The consumer group that reads the dead letters. Default `redrive`.
    ///
    /// A new group begins at the earliest letter where the broker keeps a [backlog](crate::Capabilities::backlog) for new groups. Where
    /// it keeps none (RabbitMQ), name a group that was there when the letters came.
    pub fn group(mut self, group: impl AsRef<str>) -> Self {
        self.subscription = self.subscription.group(group);
        self
    }

    /// Sends back no more than that many.
    pub fn at_most(mut self, letters: u64) -> Self {
        self.most = letters;
        self
    }

    /// How long nothing may come before it counts as done. Default 5 s; Kafka needs some to let a member join its group.
    pub fn idle(mut self, time: Duration) -> Self {
        self.idle = time;
        self
    }

    /// Sends nothing back, and leaves every letter where it is: it only looks at what the group would get, up to
    /// [`MAX_LOOKED_AT`] letters.
    ///
    /// The letters are taken in hand and given back, which the broker counts as an attempt where it counts any.
    pub fn dry_run(mut self) -> Self {
        self.dry = true;
        self
    }

    /// Calls `report` after each letter with what was done until then. It must not block.
    pub fn on_progress(mut self, report: impl Fn(Redriven) + Send + Sync + 'a) -> Self {
        self.progress = Some(Box::new(report));
        self
    }

    /// Sends the dead letters back.
    ///
    /// # Errors
    /// What [`subscribe`](TracedBroker::subscribe) and settling return. What was sent back before stays sent back.
    pub async fn run(self) -> Result<Redriven> {
        self.run_until(pending::<()>()).await
    }

    /// Sends dead letters back until there are no more, or until `shutdown` ends: the letter in hand then arrives, and no more is taken.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_until(self, shutdown: impl Future) -> Result<Redriven> {
        let mut subscription = self.subscription.clone();
        if self.dry {
            subscription = subscription.prefetch(self.most.clamp(1, MAX_LOOKED_AT as u64) as usize);
        }
        let room = subscription.max_unsettled();
        let mut letters = self.broker.subscribe(subscription).await?;
        let mut redriven = Redriven::default();
        let begun = SystemTime::now();
        // Kept in hand, so that they do not come again before the end.
        let mut kept = Vec::new();
        let mut shutdown = pin!(shutdown);
        while redriven.sent_back < self.most && kept.len() < room {
            let next = tokio::select! {
                biased;
                _ = &mut shutdown => break,
                next = timeout(self.idle, letters.next()) => next,
            };
            let Ok(Some(letter)) = next else { break };
            let letter = letter?;
            match self.send_back(&letter, begun).await {
                Ok(()) if self.dry => {
                    kept.push(letter);
                    redriven.sent_back += 1;
                }
                Ok(()) => {
                    letter.ack().await?;
                    redriven.sent_back += 1;
                }
                Err(reason) => {
                    tracing::warn!(topic = self.subscription.topic(), reason, "a dead letter is left where it is");
                    kept.push(letter);
                    redriven.left += 1;
                }
            }
            self.progress.iter().for_each(|report| report(redriven));
        }
        drop(letters);
        kept.into_iter().for_each(Delivery::give_back);
        Ok(redriven)
    }

    async fn send_back(&self, letter: &Delivery, begun: SystemTime) -> Result<(), String> {
        let letter = letter.message();
        if letter.timestamp().is_some_and(|timestamp| timestamp.time > begun) {
            return Err("it died after the redrive began".to_owned());
        }
        let origin = letter.headers().get_str(dead_letter::TOPIC).ok_or("it does not say where it came from")?;
        let origin = Topic::new(origin).map_err(|error| error.to_string())?;
        if self.dry {
            return Ok(());
        }
        let mut message = Message::from(letter).hop(Hop::Replay);
        for header in dead_letter::HEADERS {
            message.headers_mut().remove(header);
        }
        self.broker.forward(&origin, message).await.map(drop).map_err(|error| error.to_string())
    }
}

impl<B: ?Sized> fmt::Debug for Redrive<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redrive")
            .field("subscription", &self.subscription)
            .field("most", &self.most)
            .field("idle", &self.idle)
            .field("dry", &self.dry)
            .finish_non_exhaustive()
    }
}
