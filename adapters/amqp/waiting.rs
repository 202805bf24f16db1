//! The exchanges and queues in which messages wait.
//!
//! A message goes to the exchange of its delay's first digit, from there by its headers to the queue of that digit, and when its time there
//! is over, the queue hands it to the exchange of the next digit. A digit that is zero is passed over. Behind the last, an exchange
//! hands it to its target: a topic's exchange or a group's queue. All the while it keeps its routing key.
//!
//! The queues hand messages on at least once: they keep a message until what comes next has confirmed it. That makes a message without a
//! next place one that holds up others, so there always is one. What is for a topic also goes to a queue that keeps nothing, in
//! case no queue of the topic takes it; what is for a target that is gone goes to a queue of its own.

use std::collections::HashSet;
use std::fmt;

use lapin::options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use parking_lot::Mutex;

use super::connection::Live;
use super::delay::{DIGITS, Delay, HEADERS, Wait};
use super::error::During;
use super::names;
use super::topology::name;
use crate::broker_url::Topology;
use crate::error::{Error, Result};

/// What the names of all that is for waiting begin with.
const PREFIX: &str = "traced-broker.delay";

/// Where a message goes when its time has come.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Topic(String),
    Queue(String),
}

/// As in the header that the last exchange goes by.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(topic) => write!(f, "topic:{topic}"),
            Self::Queue(queue) => write!(f, "queue:{queue}"),
        }
    }
}

/// Room left in the frame for what each queue adds to a message that it hands on.
pub(super) const RESERVE: usize = 4096;

/// The headers by which the broker finds the way.
pub(super) fn labels(delay: Delay, target: &Target) -> impl Iterator<Item = (&'static str, String)> {
    let digits = delay.digits().map(|wait| (HEADERS[wait.level], wait.text().to_owned()));
    digits.chain([(names::TARGET, target.to_string())])
}

/// The exchange in front of the queues of a level.
pub(super) fn exchange(level: usize) -> Result<ShortString> {
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

/// What is behind a level: the next, or the end.
fn behind(level: usize) -> Result<ShortString> {
    level.checked_sub(1).map_or_else(out, exchange)
}

/// What was seen to be there since the channel that publishes was opened. Holds at most 105 waits, and the targets in use.
#[derive(Debug, Default)]
pub(super) struct Seen {
    seen: Mutex<HashSet<String>>,
    /// Held while something is declared, so that it is done once.
    declaring: tokio::sync::Mutex<()>,
}

impl Seen {
    /// Whether a message for this target can wait that long.
    pub(super) fn all(&self, delay: Delay, target: &Target) -> bool {
        let seen = self.seen.lock();
        seen.contains(&target.to_string()) && waits(delay).all(|wait| seen.contains(&key(wait)))
    }

    /// Something is gone.
    pub(super) fn forget(&self) {
        self.seen.lock().clear();
    }

    /// Makes sure that all is there that the message needs on its way, or only checks, by the option. A refusal ends a channel, so this takes
    /// one of its own.
    pub(super) async fn declare(&self, live: &Live, topology: Topology, delay: Delay, target: &Target) -> Result<()> {
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
        if is_new(&target.to_string()) {
            declaring.target(target).await?;
            self.seen.lock().insert(target.to_string());
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
        self.declare_queue(nothing()?, &[("x-max-length", AMQPValue::LongInt(0))]).await?;
        for (level, header) in HEADERS.into_iter().enumerate() {
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
        self.bind_queue(queue(wait)?, exchange(wait.level)?, matching(HEADERS[wait.level], wait.text())).await
    }

    async fn target(&self, target: &Target) -> Result<()> {
        let matching = matching(names::TARGET, &target.to_string());
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

/// A queue that takes every message and keeps none.
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
