//! The broker's answer to a publish.

use crate::error::PublishOutcome;

/// The broker's confirmation of a published message.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use traced_broker::{Message, PublishOutcome, Receipt, TracedBroker, connect};
///
/// let broker = connect("memory://").await?;
/// let receipt = broker.publish("orders", Message::new("shoes")).await?;
/// assert_eq!(receipt.outcome(), PublishOutcome::Confirmed);
/// assert_eq!((receipt.offset, receipt.partition), (Some(0), None)); // no partitions here
///
/// // Core NATS never confirms:
/// assert_eq!(Receipt::unconfirmed().outcome(), PublishOutcome::Unknown);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// `true` if the broker confirmed the message; `false` only on brokers that never confirm, such
    /// as core NATS.
    pub confirmed: bool,
    /// The partition of the message, on brokers that have partitions.
    pub partition: Option<i32>,
    /// The offset or sequence number in the partition or stream, on brokers that have one.
    pub offset: Option<i64>,
    /// The id that the broker assigned, if it assigns one.
    pub id: Option<String>,
    /// `true` if the broker confirmed the message and keeps it nowhere, because the topic has no
    /// subscribers: on RabbitMQ, unless the connection says otherwise.
    pub unroutable: bool,
    /// `true` if the broker has stored a message with this id before, and keeps only that one: on
    /// JetStream. The offset is that of the stored message.
    pub duplicate: bool,
}

impl Receipt {
    /// Creates a receipt of a confirmed message.
    pub fn confirmed() -> Self {
        Self { confirmed: true, ..Self::default() }
    }

    /// Creates a receipt of a message that was sent to a broker that never confirms.
    pub fn unconfirmed() -> Self {
        Self::default()
    }

    /// Adds the partition.
    #[must_use]
    pub fn with_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Adds the offset or sequence number.
    #[must_use]
    pub fn with_offset(mut self, offset: i64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// Adds the broker's id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Marks the message as one that the broker has stored before under the same id.
    #[must_use]
    pub fn as_duplicate(mut self) -> Self {
        self.duplicate = true;
        self
    }

    /// Returns [`PublishOutcome::Confirmed`], or `Unknown` on a broker that never confirms.
    pub fn outcome(&self) -> PublishOutcome {
        if self.confirmed { PublishOutcome::Confirmed } else { PublishOutcome::Unknown }
    }
}
