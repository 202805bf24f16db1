//! Redrive: sends dead letters back to the topics they came from.

use std::collections::HashSet;
use std::fmt;
use std::future::{Future, pending};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use tokio::time::{Instant, timeout_at};

use crate::broker::{Deliveries, Delivery, TracedBroker};
use crate::context::propagation::Hop;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Message, Received, Subscription, Topic};
use crate::names::header;

/// The default of [`Redrive::idle`].
pub const DEFAULT_IDLE: Duration = Duration::from_secs(5);

/// The default of [`Redrive::in_flight`].
pub const DEFAULT_IN_FLIGHT: usize = 64;

/// Maximum number of redrives that a message names: [`header::REDRIVEN`].
const MAX_NAMED: usize = 16;

/// Maximum number of letters that a [dry run](Redrive::dry_run) reads.
pub const MAX_LOOKED_AT: usize = 10_000;

/// The builder of a redrive; it does nothing until [`run`](Self::run) or
/// [`run_until`](Self::run_until).
///
/// Each dead letter is sent to the topic it [came from](header::DEAD_LETTER_TOPIC), with its id,
/// its creation context, and without its dead-letter headers. It is settled when the broker has
/// confirmed the copy, so none is lost; after a crash or a lost connection in between, one may be
/// sent back twice. On RabbitMQ, a copy that no queue takes counts as refused.
///
/// A letter stays in place if it does not name the topic it came from, if the topic refuses it, if
/// parts of it [were cut off](header::DEAD_LETTER_CUT), or if this redrive has sent the message
/// back before: what fails again at once is not sent back forever. The header [`header::REDRIVEN`]
/// tells that; clocks play no part.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use std::time::Duration;
/// use traced_broker::{HandlerError, Message, Received, Subscription};
/// use traced_broker::{TracedBroker, TracedBrokerExt, connect};
///
/// let broker = connect("memory://").await?;
/// broker.publish("orders", Message::new("one pair of shoes")).await?;
/// let workers = Subscription::new("orders").group("workers").dead_letter("orders.dead");
/// let closed = async |_: Received| Err::<(), _>(HandlerError::reject("the warehouse is closed"));
/// let shutdown = tokio::time::sleep(Duration::from_millis(50));
/// broker.consume(workers, closed).run_until(shutdown).await?;
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
    in_flight: usize,
    dry: bool,
    progress: Option<Box<Watcher<'a>>>,
}

type Watcher<'a> = dyn Fn(Redriven) + Send + Sync + 'a;

/// The result of a redrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redriven {
    /// Letters that were confirmed at the topic they came from, and settled. In a [dry
    /// run](Redrive::dry_run), letters that would be sent.
    pub sent_back: u64,
    /// Letters that stay in place: they do not name the topic they came from, could not be
    /// published there, have lost a part, or are of a message that was sent back before.
    pub left: u64,
}

impl<'a, B: TracedBroker + ?Sized> Redrive<'a, B> {
    pub(crate) fn new(broker: &'a B, dead_letter_topic: &str) -> Self {
        let subscription = Subscription::new(dead_letter_topic).group("redrive");
        Self {
            broker,
            subscription,
            most: u64::MAX,
            idle: DEFAULT_IDLE,
            in_flight: DEFAULT_IN_FLIGHT,
            dry: false,
            progress: None,
        }
    }

    /// Sets the consumer group that reads the dead letters. Default `redrive`.
    ///
    /// A new group begins at the earliest letter if the broker keeps a
    /// [backlog](crate::Capabilities::backlog) for new groups. If it keeps none (RabbitMQ), name a
    /// group that existed when the letters arrived.
    pub fn group(mut self, group: impl AsRef<str>) -> Self {
        self.subscription = self.subscription.group(group);
        self
    }

    /// Sets the maximum number of letters to send back. Default: no limit.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// # use std::time::Duration;
    /// # use traced_broker::{HandlerError, Message, Received, Subscription};
    /// # use traced_broker::{TracedBroker, TracedBrokerExt, connect};
    /// # let broker = connect("memory://").await?;
    /// # broker.publish_batch("orders", vec![Message::new("shoes"), Message::new("a hat")]).await;
    /// # let workers = Subscription::new("orders").group("workers").dead_letter("orders.dead");
    /// # let closed = async |_: Received| Err::<(), _>(HandlerError::reject("closed"));
    /// # let shutdown = tokio::time::sleep(Duration::from_millis(50));
    /// # broker.consume(workers, closed).run_until(shutdown).await?;
    /// let idle = Duration::from_millis(50);
    /// let redriven = broker.redrive("orders.dead").at_most(1).idle(idle).run().await?;
    /// assert_eq!(redriven.sent_back, 1); // of two
    /// # Ok(()) }
    /// ```
    pub fn at_most(mut self, letters: u64) -> Self {
        self.most = letters;
        self
    }

    /// Sets the time without a letter after which the redrive is done. Default 5 s. Kafka needs
    /// some of it to let a member join its group.
    pub fn idle(mut self, time: Duration) -> Self {
        self.idle = time;
        self
    }

    /// Sets the maximum number of letters in flight, at least 1. Default 64. They are sent in the
    /// order of the dead-letter topic.
    pub fn in_flight(mut self, letters: usize) -> Self {
        self.in_flight = letters.max(1);
        self
    }

    /// Sends no letter back and leaves every letter in place: only reads the letters that the group
    /// would get, up to [`MAX_LOOKED_AT`].
    ///
    /// The letters are taken and given back, which counts as an attempt on brokers that count
    /// attempts.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// # use std::time::Duration;
    /// # use traced_broker::{HandlerError, Message, Received, Subscription};
    /// # use traced_broker::{TracedBroker, TracedBrokerExt, connect};
    /// # let broker = connect("memory://").await?;
    /// # broker.publish_batch("orders", vec![Message::new("shoes"), Message::new("a hat")]).await;
    /// # let workers = Subscription::new("orders").group("workers").dead_letter("orders.dead");
    /// # let closed = async |_: Received| Err::<(), _>(HandlerError::reject("closed"));
    /// # let shutdown = tokio::time::sleep(Duration::from_millis(50));
    /// # broker.consume(workers, closed).run_until(shutdown).await?;
    /// let idle = Duration::from_millis(50);
    /// let dry = broker.redrive("orders.dead").idle(idle).dry_run().run().await?;
    /// assert_eq!(dry.sent_back, 2); // would be sent
    ///
    /// let redriven = broker.redrive("orders.dead").idle(idle).run().await?;
    /// assert_eq!(redriven.sent_back, 2); // are sent
    /// # Ok(()) }
    /// ```
    pub fn dry_run(mut self) -> Self {
        self.dry = true;
        self
    }

    /// Calls `report` after each letter with the counts so far. It must not block.
    pub fn on_progress(mut self, report: impl Fn(Redriven) + Send + Sync + 'a) -> Self {
        self.progress = Some(Box::new(report));
        self
    }

    /// Sends the dead letters back.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// # use std::time::Duration;
    /// # use traced_broker::{HandlerError, Message, Received, Subscription};
    /// # use traced_broker::{TracedBroker, TracedBrokerExt, connect};
    /// # let broker = connect("memory://").await?;
    /// # broker.publish_batch("orders", vec![Message::new("shoes"), Message::new("a hat")]).await;
    /// # let workers = Subscription::new("orders").group("workers").dead_letter("orders.dead");
    /// # let closed = async |_: Received| Err::<(), _>(HandlerError::reject("closed"));
    /// # let shutdown = tokio::time::sleep(Duration::from_millis(50));
    /// # broker.consume(workers, closed).run_until(shutdown).await?;
    /// let idle = Duration::from_millis(50);
    /// broker.publish("orders.dead", Message::new("not a dead letter")).await?;
    /// let redriven = broker.redrive("orders.dead").idle(idle).run().await?;
    /// assert_eq!((redriven.sent_back, redriven.left), (2, 1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The errors of [`subscribe`](TracedBroker::subscribe), and an error of the subscription that
    /// does not pass by itself, such as a missing permission. A connection that is being restored
    /// is waited for. Letters that were sent back before stay sent back.
    pub async fn run(self) -> Result<Redriven> {
        self.run_until(pending::<()>()).await
    }

    /// Sends dead letters back until there are no more, or until `shutdown` ends; the letters in
    /// flight are then finished, and no more are taken.
    ///
    /// # Errors
    /// The errors of [`run`](Self::run).
    pub async fn run_until(self, shutdown: impl Future) -> Result<Redriven> {
        let mut subscription = self.subscription.clone();
        if self.dry {
            subscription = subscription.prefetch(self.most.clamp(1, MAX_LOOKED_AT as u64) as usize);
        }
        let room = subscription.prefetch_limit();
        let mut letters = self.broker.subscribe(subscription).await?;
        let mut run = Run {
            redrive: &self,
            id: format!("{:016x}", fastrand::u64(..)),
            room,
            redriven: Redriven::default(),
            under_way: FuturesOrdered::new(),
            kept: Vec::new(),
            unsettled: HashSet::new(),
        };
        let result = run.drive(&mut letters, shutdown).await;
        let Run { redriven, kept, .. } = run;
        drop(letters);
        kept.into_iter().for_each(Delivery::give_back);
        result.map(|()| redriven)
    }
}

/// The place of a letter in its topic, if the broker has offsets.
type Place = (Option<i32>, i64);

/// The end of the way of one letter.
enum Sent {
    Settled,
    /// It was sent back, and its settlement was lost, so that it will be redelivered.
    Unsettled(Option<Place>),
    /// It stays in place.
    Left(Delivery, String),
    Failed(Error),
}

/// A redrive that is running.
struct Run<'r, 'a, B: ?Sized> {
    redrive: &'r Redrive<'a, B>,
    /// The mark of what this redrive has sent back.
    id: String,
    /// Maximum number of unsettled letters.
    room: usize,
    redriven: Redriven,
    under_way: FuturesOrdered<BoxFuture<'r, Sent>>,
    /// The letters that stay in place, kept so that they are not redelivered before the end.
    kept: Vec<Delivery>,
    /// The places of letters that were sent back and could not be settled.
    unsettled: HashSet<Place>,
}

impl<'r, B: TracedBroker + ?Sized> Run<'r, '_, B> {
    /// Sends letters back until there are no more, or no more are wanted.
    async fn drive(&mut self, letters: &mut Deliveries, shutdown: impl Future) -> Result<()> {
        let mut shutdown = pin!(shutdown);
        let mut deadline = Instant::now() + self.redrive.idle;
        let mut has_more = true;
        loop {
            let is_idle = self.under_way.is_empty();
            if is_idle && !(has_more && self.wants_more()) {
                return Ok(());
            }
            tokio::select! {
                biased;
                Some(sent) = self.under_way.next(), if !is_idle => {
                    deadline = Instant::now() + self.redrive.idle;
                    self.finish(sent)?;
                }
                _ = &mut shutdown, if has_more => has_more = false,
                next = timeout_at(deadline, letters.next()), if has_more && self.wants_more() => {
                    deadline = Instant::now() + self.redrive.idle;
                    match next {
                        Ok(Some(Ok(letter))) => self.take(letter)?,
                        Ok(Some(Err(error))) if passes(&error) => {
                            tracing::warn!(%error, "the dead letters are interrupted; the redrive goes on");
                        }
                        Ok(Some(Err(error))) => return Err(error),
                        Ok(None) | Err(_) => has_more = false,
                    }
                }
            }
        }
    }

    fn wants_more(&self) -> bool {
        let (sending, most) = (self.under_way.len(), self.redrive.most);
        self.redriven.sent_back.saturating_add(sending as u64) < most
            && sending < self.redrive.in_flight
            && self.kept.len() + sending < self.room
    }

    /// Starts to send a letter back, or decides at once that it stays.
    fn take(&mut self, letter: Delivery) -> Result<()> {
        let is_sent = place(letter.message()).is_some_and(|place| self.unsettled.contains(&place));
        let copy = if is_sent { Ok(None) } else { self.copy(letter.message()).map(Some) };
        match copy {
            Err(why) => self.finish(Sent::Left(letter, why)),
            Ok(_) if self.redrive.dry => {
                self.kept.push(letter);
                self.finish(Sent::Settled)
            }
            Ok(copy) => {
                let broker = self.redrive.broker;
                self.under_way.push_back(Box::pin(async move {
                    if let Some((origin, message)) = copy
                        && let Err(error) = broker.forward(&origin, message).await
                    {
                        return Sent::Left(letter, error.to_string());
                    }
                    settle(letter).await
                }));
                Ok(())
            }
        }
    }

    /// Returns the message to send back and its topic, or the reason to leave the letter in place.
    fn copy(&self, letter: &Received) -> Result<(Topic, Message), String> {
        let headers = letter.headers();
        let origin = headers.get_str(header::DEAD_LETTER_TOPIC).ok_or("it does not say where it came from")?;
        let origin = Topic::new(origin).map_err(|error| error.to_string())?;
        if let Some(cut) = headers.get_str(header::DEAD_LETTER_CUT).filter(|cut| *cut != "reason") {
            return Err(format!("parts of it were cut off: {cut}"));
        }
        let redriven = headers.get_str(header::REDRIVEN).unwrap_or_default();
        let mut earlier: Vec<&str> = redriven.split(',').filter(|id| !id.is_empty()).collect();
        if earlier.contains(&&*self.id) {
            return Err("this redrive has sent the message back before".to_owned());
        }
        earlier.push(&self.id);
        let named = earlier[earlier.len().saturating_sub(MAX_NAMED)..].join(",");
        let mut message = Message::from(letter).hop(Hop::Replay);
        message.is_mandatory = true;
        for header in header::DEAD_LETTER {
            message.headers_mut().remove(header);
        }
        message.headers_mut().insert(header::REDRIVEN, named);
        Ok((origin, message))
    }

    fn finish(&mut self, sent: Sent) -> Result<()> {
        match sent {
            Sent::Settled => self.redriven.sent_back += 1,
            // Counted when it comes again.
            Sent::Unsettled(place) => {
                if self.unsettled.len() < MAX_LOOKED_AT {
                    self.unsettled.extend(place);
                }
            }
            Sent::Left(letter, reason) => {
                let topic = self.redrive.subscription.topic();
                tracing::warn!(topic, reason, "a dead letter is left where it is");
                self.kept.push(letter);
                self.redriven.left += 1;
            }
            Sent::Failed(error) => return Err(error),
        }
        self.redrive.progress.iter().for_each(|report| report(self.redriven));
        Ok(())
    }
}

/// Settles a letter that was sent back.
async fn settle(letter: Delivery) -> Sent {
    let place = place(letter.message());
    match letter.ack().await {
        Ok(()) => Sent::Settled,
        Err(error) if error.kind() == ErrorKind::SettlementLost || error.is_retryable() => {
            tracing::warn!(%error, "a dead letter was sent back and will be redelivered");
            Sent::Unsettled(place)
        }
        Err(error) => Sent::Failed(error),
    }
}

fn place(letter: &Received) -> Option<Place> {
    Some((letter.partition(), letter.offset()?))
}

/// Returns `true` if a subscription recovers from this error by itself.
fn passes(error: &Error) -> bool {
    use ErrorKind::{Busy, Conflict, Rejected, SettlementLost, Timeout, Unavailable, Unexpected};
    matches!(error.kind(), Unavailable | Timeout | Busy | Conflict | Rejected | SettlementLost | Unexpected)
}

impl<B: ?Sized> fmt::Debug for Redrive<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redrive")
            .field("subscription", &self.subscription)
            .field("most", &self.most)
            .field("idle", &self.idle)
            .field("in_flight", &self.in_flight)
            .field("dry", &self.dry)
            .finish_non_exhaustive()
    }
}
