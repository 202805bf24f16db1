//! Parent, link or ignore: for each kind of hop, by the consumer and by the sender.

use crate::dead_letter;
use crate::headers::Headers;

/// Header of ours: what kind of hop a message is on, where it is not a direct one; a value of [`Hop::as_str`].
pub const TRACE_HOP: &str = "trace-hop";
/// Header of ours: how the sender wants the process span to relate to the message's context; a value of [`TracePolicy::as_str`].
pub const TRACE_POLICY: &str = "trace-policy";

/// How the process span of a delivery relates to the context that the message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum TracePolicy {
    /// The process span is a child of the creation context and linked to it: one trace from the producer to the last
    /// consumer. The semantic conventions permit this for single messages, and keep the link.
    #[default]
    Parent,
    /// The process span starts a trace of its own, linked to the creation context: for work long after the fact and for producers
    /// that are not trusted. Baggage still reaches the handler. Where no SDK is installed there is no trace to start: the
    /// context is then passed through, as with `Parent`.
    Link,
    /// The carried context is not used, nor its baggage.
    Ignore,
}

impl TracePolicy {
    /// The name used on the wire and as attribute value: `parent`, `link` or `ignore`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Parent => "parent",
            Self::Link => "link",
            Self::Ignore => "ignore",
        }
    }
}

/// On what kind of way a message reached its consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Hop {
    /// Published, and handed out as soon as a consumer was ready.
    #[default]
    Direct,
    /// Published [for later](crate::Message::deliver_at).
    Delayed,
    /// Published by a schedule, on behalf of someone who asked for it earlier; said by the [sender](crate::Message::hop).
    Scheduled,
    /// Given up by another consumer: a [dead letter](crate::dead_letter).
    DeadLetter,
    /// Handed out again from the past: a reader that begins in the past, a group that was
    /// [moved](crate::TracedBroker::reposition), a dead letter that was [sent back](crate::TracedBrokerExt::redrive), or a subscription
    /// that [says so](crate::Subscription::replay).
    Replay,
    /// Copied from another broker.
    Bridge,
}

impl Hop {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Direct, Self::Delayed, Self::Scheduled, Self::DeadLetter, Self::Replay, Self::Bridge];

    /// The name used on the wire and as attribute value: `direct`, `delayed`, `scheduled`, `dead_letter`, `replay` or `bridge`.
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

    /// What holds unless the consumer or the sender says otherwise.
    ///
    /// Work that belongs to the same story at about the same time is in its trace: direct hops, dead letters, bridges. Work that
    /// is done long after is linked: as a child it would stretch the trace by hours, and a sampler that decides on whole
    /// traces would have decided without it.
    pub const fn default_policy(self) -> TracePolicy {
        match self {
            Self::Direct | Self::DeadLetter | Self::Bridge => TracePolicy::Parent,
            Self::Delayed | Self::Scheduled | Self::Replay => TracePolicy::Link,
        }
    }
}

/// What the sender says of the hop: of what kind it is, and what policy is asked for.
pub(super) fn said_in(headers: &Headers) -> (Hop, Option<TracePolicy>) {
    let [dead, hop, policy] = headers.first_of([dead_letter::TOPIC, TRACE_HOP, TRACE_POLICY]);
    let marked = hop.and_then(|hop| Hop::ALL.into_iter().find(|known| known.as_str().as_bytes() == hop.value));
    let hop = if dead.is_some() { Hop::DeadLetter } else { marked.unwrap_or_default() };
    let known = [TracePolicy::Parent, TracePolicy::Link, TracePolicy::Ignore];
    let asked = policy.and_then(|asked| known.into_iter().find(|known| known.as_str().as_bytes() == asked.value));
    (hop, asked)
}
