//! Choices of how groups work.

use std::str::FromStr;

/// The protocol that assigns partitions to the members of a group. All members of a group must use
/// the same.
///
/// ```rust
/// use traced_broker::adapters::kafka::GroupProtocol;
///
/// assert_eq!("consumer".parse::<GroupProtocol>(), Ok(GroupProtocol::Consumer));
/// assert!("eager".parse::<GroupProtocol>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum GroupProtocol {
    /// A member assigns them, cooperatively: members that stay keep their partitions. Every broker
    /// supports this.
    #[default]
    Classic,
    /// The broker assigns them (KIP-848): partitions move one by one, without halting the group.
    /// Needs Kafka 4.0 or later. The time that a member may be silent and the interval of its
    /// heartbeats are then configured at the broker.
    Consumer,
}

impl GroupProtocol {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
        }
    }
}

impl FromStr for GroupProtocol {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        match text {
            "classic" => Ok(Self::Classic),
            "consumer" => Ok(Self::Consumer),
            _ => Err("it is `classic` or `consumer`"),
        }
    }
}

/// The place at which a group goes on whose position in a partition is gone: deleted by retention,
/// or lost with the last replica that had it.
///
/// ```rust
/// use traced_broker::adapters::kafka::OffsetReset;
///
/// assert_eq!("latest".parse::<OffsetReset>(), Ok(OffsetReset::Latest));
/// assert!("none".parse::<OffsetReset>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OffsetReset {
    /// At the first message that there is: nothing is left out, and all that is kept may come
    /// again.
    #[default]
    Earliest,
    /// At the end: nothing comes again, and all that is there is left out.
    Latest,
    /// Nowhere: the partition stops, and the subscription reports an error.
    Error,
}

impl OffsetReset {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Earliest => "earliest",
            Self::Latest => "latest",
            Self::Error => "error",
        }
    }
}

impl FromStr for OffsetReset {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            "error" => Ok(Self::Error),
            _ => Err("it is `earliest`, `latest` or `error`"),
        }
    }
}
