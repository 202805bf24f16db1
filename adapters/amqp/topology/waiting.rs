//! The exchanges and queues in which messages wait.
//!
//! A message is published to the exchange of the first digit of its delay. Its headers route it
//! from there to the queue of that digit. When its time in that queue is over, the queue hands it
//! to the exchange of the next digit. A zero digit has no queue, and the message passes on at once.
//! After the last digit, an exchange hands it to its target: the exchange of a topic or the queue
//! of a group. The routing key stays the same all the way.
//!
//! The queues hand messages on at least once: they keep a message until the next queue has
//! confirmed it. A message that no queue takes would therefore hold up others, so there always is a
//! queue to take it. A message for a topic also goes to a queue that keeps no message, in case no
//! queue of the topic takes it. A message for a missing target goes to a separate queue.

use crate::names::header;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

use lapin::options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use parking_lot::Mutex;

use super::super::connection::Live;
use super::super::error::During;
use super::delay::{DIGITS, Delay, Wait};
use super::name;
use crate::driver::Topology;
use crate::error::{Error, Result};

/// The beginning of the names of all exchanges and queues for delays, of any version.
const FAMILY: &str = "traced-broker.delay.";
/// The prefix of the names. The arguments of a queue cannot be changed: a release that needs others
/// has another version, whose queues exist beside these until they are empty.
const PREFIX: &str = "traced-broker.delay.v1";

/// The destination of a message after its delay.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Topic(String),
    Queue(String),
}

/// Formats the target as in the header that the last exchange routes by.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(topic) => write!(f, "topic:{topic}"),
            Self::Queue(queue) => write!(f, "queue:{queue}"),
        }
    }
}

/// Returns `true` if the exchange belongs to the delay queues.
pub(crate) fn is_for_delays(exchange: &str) -> bool {
    exchange.starts_with(FAMILY)
}

/// Bytes left free in the frame for the headers that each queue adds to a message that it hands on.
pub(crate) const RESERVE: usize = 4096;

/// Returns the headers by which the broker routes the message.
pub(crate) fn labels(delay: Delay, target: &Target) -> impl Iterator<Item = (&'static str, String)> {
    let digits = delay.digits().map(|wait| (header::DELAY_DIGITS[wait.level], wait.text().to_owned()));
    digits.chain([(header::DELAYED_FOR, target.to_string())])
}

/// Returns the name of the exchange in front of the queues of a level.
pub(crate) fn exchange(level: usize) -> Result<ShortString> {
    name(&format!("{PREFIX}.{level}"))
}

fn out() -> Result<ShortString> {
    name(&format!("{PREFIX}.out"))
}

fn lost() -> Result<ShortString> {
    name(&format!("{PREFIX}.lost"))
}

fn queue(wait: Wait) -> Result<ShortString> {
    name(&format!("{PREFIX}.{}ms", wait.milliseconds()))
}

/// Returns the name of the exchange after a level: that of the next level, or the last one.
fn behind(level: usize) -> Result<ShortString> {
    level.checked_sub(1).map_or_else(out, exchange)
}

/// Time for which a target counts as declared. If an operator deletes an exchange or queue, its
/// binding goes with it, and the program that makes it again may be another one. Nothing tells a
/// publisher, because the broker takes the message into the first delay queue all the same. As long
/// as messages wait for it, it is bound again.
const LEASE: Duration = Duration::from_secs(5);

/// A target that was bound.
#[derive(Debug, Clone, Copy)]
struct Bound {
    /// The time at which it was bound, or `None` if its binding may be gone.
    at: Option<Instant>,
    /// The time until which messages wait for it, as far as they were published here.
    awaited: Instant,
}

impl Bound {
    fn holds(&self) -> bool {
        self.at.is_some_and(|at| at.elapsed() < LEASE)
    }
}

/// The delay queues and targets declared since the publishing channel was opened. Holds at most 105
/// waits, and the targets in use.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    seen: Mutex<HashSet<String>>,
    targets: Mutex<HashMap<Target, Bound>>,
    /// Held during a declaration, so that each is made once.
    declaring: tokio::sync::Mutex<()>,
}

impl Seen {
    /// Returns `true` if everything that a message with this delay and target needs was declared.
    pub(crate) fn all(&self, delay: Delay, target: &Target) -> bool {
        let seen = self.seen.lock();
        self.is_bound(target) && waits(delay).all(|wait| seen.contains(&key(wait)))
    }

    fn is_bound(&self, target: &Target) -> bool {
        self.targets.lock().get(target).is_some_and(Bound::holds)
    }

    fn bound(&self, target: &Target) {
        let now = Instant::now();
        let mut targets = self.targets.lock();
        targets.entry(target.clone()).or_insert(Bound { at: None, awaited: now }).at = Some(now);
    }

    /// Notes that a message waits for the target until this time.
    pub(crate) fn awaits(&self, target: &Target, until: Instant) {
        if let Some(bound) = self.targets.lock().get_mut(target) {
            bound.awaited = bound.awaited.max(until);
        }
    }

    /// Takes over the targets for which messages wait.
    pub(crate) fn inherit(&self, other: &Self) {
        self.targets.lock().extend(other.targets.lock().iter().map(|(target, bound)| (target.clone(), *bound)));
    }

    fn to_restore(&self) -> Vec<Target> {
        let (targets, now) = (self.targets.lock(), Instant::now());
        let lapsed = targets.iter().filter(|(_, bound)| now < bound.awaited && !bound.holds());
        lapsed.map(|(target, _)| target.clone()).collect()
    }

    /// Returns `true` if messages wait for a target whose binding may be gone.
    pub(crate) fn are_due(&self) -> bool {
        let (targets, now) = (self.targets.lock(), Instant::now());
        targets.values().any(|bound| now < bound.awaited && !bound.holds())
    }

    /// Binds all targets again for which messages wait, unless that is under way.
    pub(crate) async fn restore_due(&self, live: &Live, topology: Topology) {
        let Ok(_once) = self.declaring.try_lock() else { return };
        for target in self.to_restore() {
            if let Err(error) = self.bind(live, topology, &target).await {
                // It may be made again before the message is due.
                tracing::debug!(%target, %error, "the target of messages that wait cannot be bound now");
            }
        }
    }

    async fn bind(&self, live: &Live, topology: Topology, target: &Target) -> Result<()> {
        let declaring = Declaring { live, channel: live.channel(During::Declare).await?, topology };
        declaring.target(target).await?;
        self.bound(target);
        Ok(())
    }

    /// Forgets all declarations, because an exchange or queue is missing.
    pub(crate) fn forget(&self) {
        self.seen.lock().clear();
        self.targets.lock().values_mut().for_each(|bound| bound.at = None);
    }

    /// Binds a target that was made again, if messages may be on their way to it.
    pub(crate) async fn restore(&self, live: &Live, topology: Topology, target: &Target) -> Result<()> {
        let _once = self.declaring.lock().await;
        if !self.targets.lock().contains_key(target) {
            return Ok(());
        }
        self.bind(live, topology, target).await
    }

    /// Declares everything that the message needs on its way, or only checks it, depending on
    /// `topology`. Uses a separate channel, because a refusal ends the channel.
    pub(crate) async fn declare(&self, live: &Live, topology: Topology, delay: Delay, target: &Target) -> Result<()> {
        let _once = self.declaring.lock().await;
        let is_new = |name: &str| !self.seen.lock().contains(name);
        let declaring = Declaring { live, channel: live.channel(During::Declare).await?, topology };
        if is_new(PREFIX) {
            declaring.exchanges().await?;
            self.seen.lock().insert(PREFIX.to_owned());
        }
        for wait in waits(delay).filter(|wait| is_new(&key(*wait))) {
            declaring.queue(wait).await?;
            self.seen.lock().insert(key(wait));
        }
        if !self.is_bound(target) {
            declaring.target(target).await?;
            self.bound(target);
        }
        Ok(())
    }
}

fn waits(delay: Delay) -> impl Iterator<Item = Wait> {
    delay.digits().filter(|wait| wait.digit > 0)
}

fn key(wait: Wait) -> String {
    wait.milliseconds().to_string()
}

struct Declaring<'a> {
    live: &'a Live,
    channel: Channel,
    topology: Topology,
}

impl Declaring<'_> {
    async fn exchanges(&self) -> Result<()> {
        let mut lost_and_found = FieldTable::default();
        lost_and_found.insert("alternate-exchange".into(), text(lost()?.as_str()));
        self.declare_exchange(lost()?, ExchangeKind::Fanout, FieldTable::default()).await?;
        self.declare_queue(lost()?, &[("x-queue-type", text("quorum"))]).await?;
        self.bind_queue(lost()?, lost()?, FieldTable::default()).await?;
        self.declare_exchange(out()?, ExchangeKind::Headers, lost_and_found).await?;
        // A classic queue would be gone with its server, and with it all delays of a cluster.
        let (quorum, none) = (("x-queue-type", text("quorum")), ("x-max-length", AMQPValue::LongInt(0)));
        self.declare_queue(nothing()?, &[quorum, none]).await?;
        for (level, header) in header::DELAY_DIGITS.into_iter().enumerate() {
            self.declare_exchange(exchange(level)?, ExchangeKind::Headers, FieldTable::default()).await?;
            self.bind_exchange(behind(level)?, exchange(level)?, matching(header, DIGITS[0])).await?;
        }
        Ok(())
    }

    async fn queue(&self, wait: Wait) -> Result<()> {
        let arguments = [
            ("x-queue-type", text("quorum")),
            ("x-message-ttl", AMQPValue::LongLongInt(wait.milliseconds().into())),
            ("x-dead-letter-exchange", text(behind(wait.level)?.as_str())),
            ("x-dead-letter-strategy", text("at-least-once")),
            // Without it the queue would hand messages on at most once.
            ("x-overflow", text("reject-publish")),
        ];
        self.declare_queue(queue(wait)?, &arguments).await?;
        self.bind_queue(queue(wait)?, exchange(wait.level)?, matching(header::DELAY_DIGITS[wait.level], wait.text()))
            .await
    }

    async fn target(&self, target: &Target) -> Result<()> {
        let matching = matching(header::DELAYED_FOR, &target.to_string());
        match target {
            Target::Topic(topic) => {
                self.bind_exchange(name(topic)?, out()?, matching.clone()).await?;
                self.bind_queue(nothing()?, out()?, matching).await
            }
            Target::Queue(queue) => self.bind_queue(name(queue)?, out()?, matching).await,
        }
    }

    async fn declare_exchange(&self, name: ShortString, kind: ExchangeKind, arguments: FieldTable) -> Result<()> {
        let passive = self.topology == Topology::Check;
        let options = ExchangeDeclareOptions { passive, durable: true, ..ExchangeDeclareOptions::default() };
        let declared = self.channel.exchange_declare(name.clone(), kind, options, arguments);
        self.live.request(During::Declare, declared).await.map_err(|error| missing(error, "exchange", &name))
    }

    async fn declare_queue(&self, name: ShortString, arguments: &[(&'static str, AMQPValue)]) -> Result<()> {
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let passive = self.topology == Topology::Check;
        let options = QueueDeclareOptions { passive, durable: true, ..QueueDeclareOptions::default() };
        let declared = self.channel.queue_declare(name.clone(), options, table);
        self.live.request(During::Declare, declared).await.map_err(|error| missing(error, "queue", &name))?;
        Ok(())
    }

    async fn bind_queue(&self, queue: ShortString, source: ShortString, matching: FieldTable) -> Result<()> {
        if self.topology == Topology::Check {
            return Ok(());
        }
        let (key, options) = (ShortString::default(), QueueBindOptions::default());
        let bound = self.channel.queue_bind(queue.clone(), source, key, options, matching);
        self.live.request(During::Declare, bound).await.map_err(|error| missing(error, "queue", &queue))
    }

    async fn bind_exchange(&self, exchange: ShortString, source: ShortString, matching: FieldTable) -> Result<()> {
        if self.topology == Topology::Check {
            return Ok(());
        }
        let (key, options) = (ShortString::default(), ExchangeBindOptions::default());
        let bound = self.channel.exchange_bind(exchange.clone(), source, key, options, matching);
        self.live.request(During::Declare, bound).await.map_err(|error| missing(error, "exchange", &exchange))
    }
}

/// Returns the name of the queue that takes every message and keeps none.
fn nothing() -> Result<ShortString> {
    name(&format!("{PREFIX}.nothing"))
}

fn matching(header: &str, value: &str) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert(header.into(), text(value));
    arguments
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn missing(error: Error, what: &'static str, name: &ShortString) -> Error {
    error.with_context(what, name).with_context("needed", "to keep a message for later")
}
