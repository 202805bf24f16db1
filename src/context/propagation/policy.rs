//! Parent, link or ignore: per kind of hop, set by the consumer and by the sender.

use crate::headers::Headers;
use crate::names::header;

/// The relation of a delivery's process span to the context that the message carries.
///
/// ```
/// use traced_broker::{Hop, Message, Subscription, TracePolicy};
///
/// // For one message, by its sender; for all messages, by their consumer, which takes precedence:
/// let job = Message::new("rebuild the index").trace_policy(TracePolicy::Link);
/// let workers = Subscription::new("jobs").group("workers").trace_policy(TracePolicy::Parent);
/// assert_eq!(workers.trace_policy_for_all(), Some(TracePolicy::Parent));
/// assert_eq!(Hop::Direct.default_policy(), TracePolicy::Parent); // if neither sets one
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum TracePolicy {
    /// The process span is a child of the creation context and linked to it: one trace from the
    /// producer to the last consumer. The semantic conventions permit this for single messages, and
    /// keep the link.
    #[default]
    Parent,
    /// The process span starts a new trace, linked to the creation context: for work long after
    /// publishing, and for untrusted producers. Baggage still reaches the handler. Without an SDK
    /// there is no trace to start; the context is then passed through, as with `Parent`.
    Link,
    /// Neither the carried context nor its baggage is used.
    Ignore,
}

impl TracePolicy {
    /// Returns the name used on the wire and as an attribute value: `parent`, `link` or `ignore`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Parent => "parent",
            Self::Link => "link",
            Self::Ignore => "ignore",
        }
    }
}

/// The kind of hop on which a message reached its consumer.
///
/// ```
/// use traced_broker::{Hop, TracePolicy};
///
/// let linked: Vec<&str> = Hop::ALL
///     .into_iter()
///     .filter(|hop| hop.default_policy() == TracePolicy::Link)
///     .map(Hop::as_str)
///     .collect();
/// assert_eq!(linked, ["delayed", "scheduled", "replay"]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Hop {
    /// Published, and handed out as soon as a consumer was ready.
    #[default]
    Direct,
    /// Published [for later](crate::Message::deliver_at).
    Delayed,
    /// Published by a schedule, on behalf of an earlier requester; set by the
    /// [sender](crate::Message::hop).
    Scheduled,
    /// Rejected by another consumer: a [dead letter](crate::Subscription::dead_letter).
    DeadLetter,
    /// Handed out again from the past: to a reader that begins in the past, to a group that was
    /// [moved](crate::TracedBroker::reposition), as a dead letter that was [sent
    /// back](crate::TracedBrokerExt::redrive), or to a subscription that [declares a
    /// replay](crate::Subscription::replay).
    Replay,
    /// Copied from another broker.
    Bridge,
}

impl Hop {
    /// Every kind of hop.
    pub const ALL: [Self; 6] =
        [Self::Direct, Self::Delayed, Self::Scheduled, Self::DeadLetter, Self::Replay, Self::Bridge];

    /// Returns the name used on the wire and as an attribute value: `direct`, `delayed`,
    /// `scheduled`, `dead_letter`, `replay` or `bridge`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Delayed => "delayed",
            Self::Scheduled => "scheduled",
            Self::DeadLetter => "dead_letter",
            Self::Replay => "replay",
            Self::Bridge => "bridge",
        }
    }

    /// Returns the policy that applies unless the consumer or the sender sets another.
    ///
    /// Work that belongs together and happens at about the same time stays in one trace: direct
    /// hops, dead letters, bridges. Work that is done long afterwards is linked: as a child it
    /// would stretch the trace by hours, and a sampler that decides on whole traces would already
    /// have decided without it.
    pub const fn default_policy(self) -> TracePolicy {
        match self {
            Self::Direct | Self::DeadLetter | Self::Bridge => TracePolicy::Parent,
            Self::Delayed | Self::Scheduled | Self::Replay => TracePolicy::Link,
        }
    }
}

/// Reads the sender's statements about the hop: its kind, and the requested policy.
pub(super) fn said_in(headers: &Headers) -> (Hop, Option<TracePolicy>) {
    let [dead, hop, policy] = headers.first_of([header::DEAD_LETTER_TOPIC, header::TRACE_HOP, header::TRACE_POLICY]);
    let marked = hop.and_then(|hop| Hop::ALL.into_iter().find(|known| known.as_str().as_bytes() == hop.value));
    let hop = if dead.is_some() { Hop::DeadLetter } else { marked.unwrap_or_default() };
    let known = [TracePolicy::Parent, TracePolicy::Link, TracePolicy::Ignore];
    let asked = policy.and_then(|asked| known.into_iter().find(|known| known.as_str().as_bytes() == asked.value));
    (hop, asked)
}
