//! Where messages go and come from: [`Topic`] and [`Subscription`].

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use crate::dialect::Dialect;
use crate::error::{Error, ErrorKind, Result};
use crate::propagation::{Hop, Reception, TracePolicy, TrustBoundary};

/// The longest name of a topic or group, in bytes: Kafka's limit, the lowest of the brokers.
pub const MAX_NAME_LENGTH: usize = 249;

/// A name of a topic that every broker can carry: 1 to 249 of the characters `A-Z a-z 0-9 . _ -`, and neither `.` nor `..`.
///
/// Cheap to clone.
///
/// ```
/// use traced_broker::Topic;
///
/// assert_eq!(&*Topic::new("orders.v2").unwrap(), "orders.v2");
/// assert!(Topic::new("orders/v2").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Checks the name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when it is empty, too long or holds a character outside the set.
    pub fn new(name: &str) -> Result<Self> {
        validate_name("topic", name)?;
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as a shared string.
    pub fn to_shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl Deref for Topic {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl TryFrom<&str> for Topic {
    type Error = Error;

    fn try_from(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

fn validate_name(what: &'static str, name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let reason = if name.is_empty() {
        "is empty"
    } else if name.len() > MAX_NAME_LENGTH {
        "is longer than 249 bytes"
    } else if !name.bytes().all(allowed) {
        "has a character other than A-Z a-z 0-9 . _ -"
    } else if name == "." || name == ".." {
        "is reserved"
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(64).flat_map(char::escape_default).collect();
    Err(Error::new(ErrorKind::InvalidConfig, format!("the name of the {what} {reason}")).with_context(what, shown))
}

/// Where a group or reader that has no position yet begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Start {
    /// At the oldest message the broker still has.
    Earliest,
    /// At the first message published after the subscription began.
    Latest,
    /// At the first message stored at this time or later, by the clock that
    /// [`Capabilities::timestamp`](crate::Capabilities) names.
    Time(SystemTime),
    /// At the message with this [offset or sequence number](crate::Received::offset), in each partition where there are several.
    Offset(u64),
}

/// What the consumer is promised about one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Guarantee {
    /// A message comes back until it is acknowledged or rejected; it may come twice.
    #[default]
    AtLeastOnce,
    /// A message counts as handled once it is handed out; retry and reject are unsupported.
    AtMostOnce,
}

/// What to consume, and how. Setters never fail; subscribing checks everything.
///
/// With a [group](Self::group), members of the group share the messages, each goes to one of them, and a new group starts
/// at the earliest message. Without one, the subscription is an ephemeral reader of its own that starts at the latest.
///
/// ```
/// use traced_broker::Subscription;
///
/// let workers = Subscription::new("orders").group("fulfillment-workers").dead_letter("orders.dead");
/// assert_eq!(workers.group_name(), Some("fulfillment-workers"));
/// ```
#[derive(Debug, Clone)]
pub struct Subscription {
    topic: Arc<str>,
    group: Option<Arc<str>>,
    start: Option<Start>,
    guarantee: Guarantee,
    dead_letter: Option<Arc<str>>,
    prefetch: usize,
    pub(crate) reception: Reception,
}

/// How many deliveries of one subscription may be unsettled at a time unless [`Subscription::prefetch`] says otherwise.
pub const DEFAULT_PREFETCH: usize = 256;

/// The highest value of [`Subscription::prefetch`]: what fits AMQP's 16-bit prefetch count.
pub const MAX_PREFETCH: usize = 65_535;

impl Subscription {
    /// A subscription to `topic` without a group.
    pub fn new(topic: impl AsRef<str>) -> Self {
        Self {
            topic: topic.as_ref().into(),
            group: None,
            start: None,
            guarantee: Guarantee::default(),
            dead_letter: None,
            prefetch: DEFAULT_PREFETCH,
            reception: Reception::default(),
        }
    }

    /// Joins the consumer group of that name.
    #[must_use]
    pub fn group(mut self, group: impl AsRef<str>) -> Self {
        self.group = Some(group.as_ref().into());
        self
    }

    /// Where to begin when there is no position yet. Default: earliest with a group, latest without.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = Some(start);
        self
    }

    /// Gives up redelivery: a message counts as handled once handed out. The only mode of core NATS.
    #[must_use]
    pub fn at_most_once(mut self) -> Self {
        self.guarantee = Guarantee::AtMostOnce;
        self
    }

    /// Where rejected messages are copied to, with their headers and trace, before they are settled.
    #[must_use]
    pub fn dead_letter(mut self, topic: impl AsRef<str>) -> Self {
        self.dead_letter = Some(topic.as_ref().into());
        self
    }

    /// How many deliveries may be unsettled at a time, 1 to 65535; the bound of every buffer below. Default 256.
    #[must_use]
    pub fn prefetch(mut self, unsettled: usize) -> Self {
        self.prefetch = unsettled;
        self
    }

    /// How process spans relate to the context that messages carry, on every kind of hop and whatever the sender asks for.
    /// Default: [by the hop](crate::propagation).
    #[must_use]
    pub fn trace_policy(mut self, policy: TracePolicy) -> Self {
        self.reception.policy = Some(policy);
        self
    }

    /// How process spans relate to the context of messages on this kind of hop, unless the sender asks for something else.
    #[must_use]
    pub fn trace_policy_for(mut self, hop: Hop, policy: TracePolicy) -> Self {
        self.reception.by_hop.push((hop, policy));
        self
    }

    /// Treats the senders as strangers: see [`TrustBoundary`].
    #[must_use]
    pub fn trust_boundary(mut self, boundary: TrustBoundary) -> Self {
        self.reception.boundary = Some(Arc::new(boundary));
        self
    }

    /// Understands these [dialects](crate::dialect) of other systems, tried in this order where the usual headers hold no valid context.
    #[must_use]
    pub fn dialects(mut self, dialects: impl IntoIterator<Item = Dialect>) -> Self {
        self.reception.dialects.extend(dialects);
        self
    }

    /// Says that this subscription goes over the past: what was stored before it began is a [replay](Hop::Replay).
    ///
    /// Readers without a group that begin elsewhere than at the latest say so by themselves, and so do the members of a group that was
    /// [moved](crate::TracedBroker::reposition) by the same broker handle.
    #[must_use]
    pub fn replay(mut self) -> Self {
        self.reception.replay = true;
        self
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The group's name, if any.
    pub fn group_name(&self) -> Option<&str> {
        self.group.as_deref()
    }

    /// Where to begin when there is no position yet, defaults applied.
    pub fn start_position(&self) -> Start {
        self.start.unwrap_or(if self.group.is_some() { Start::Earliest } else { Start::Latest })
    }

    /// The delivery guarantee.
    pub fn guarantee(&self) -> Guarantee {
        self.guarantee
    }

    /// The dead-letter topic, if any.
    pub fn dead_letter_topic(&self) -> Option<&str> {
        self.dead_letter.as_deref()
    }

    /// How many deliveries may be unsettled at a time.
    pub fn max_unsettled(&self) -> usize {
        self.prefetch
    }

    /// The trace policy for every hop, if one was set.
    pub fn policy(&self) -> Option<TracePolicy> {
        self.reception.policy
    }

    /// Whether what was stored before the subscription begins is handed out as a [replay](Hop::Replay).
    pub fn is_replay(&self) -> bool {
        self.reception.replay || self.group.is_none() && self.start.is_some_and(|start| start != Start::Latest)
    }

    /// Checks names and bounds, as subscribing does first.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when a name is not valid, the dead-letter topic is the topic itself, or the prefetch
    /// is 0 or above 65535.
    pub fn validate(&self) -> Result<()> {
        validate_name("topic", &self.topic)?;
        self.group.as_deref().map_or(Ok(()), |group| validate_name("group", group))?;
        self.dead_letter.as_deref().map_or(Ok(()), |topic| validate_name("dead-letter topic", topic))?;
        if self.dead_letter.as_deref() == Some(self.topic()) {
            let message = "the dead-letter topic is the topic itself: rejected messages would come back for ever";
            return Err(Error::new(ErrorKind::InvalidConfig, message).with_context("topic", &self.topic));
        }
        if !(1..=MAX_PREFETCH).contains(&self.prefetch) {
            return Err(Error::new(ErrorKind::InvalidConfig, "the prefetch is outside 1 to 65535")
                .with_context("prefetch", self.prefetch));
        }
        Ok(())
    }
}
