//! The requirements of cases on a broker and its harness.

/// A requirement of a case: a capability, or a part of the harness that is optional. If the broker
/// lacks a capability, the case requires that the broker says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Need {
    /// [`Capabilities::at_least_once`](crate::Capabilities).
    AtLeastOnce,
    /// [`Capabilities::groups`](crate::Capabilities).
    Groups,
    /// [`Capabilities::backlog`](crate::Capabilities).
    Backlog,
    /// [`Capabilities::tombstones`](crate::Capabilities).
    Tombstones,
    /// [`Capabilities::delayed_publish`](crate::Capabilities).
    DelayedPublish,
    /// [`Capabilities::start_at_time`](crate::Capabilities).
    StartAtTime,
    /// [`Capabilities::start_at_offset`](crate::Capabilities).
    StartAtOffset,
    /// [`Capabilities::reposition`](crate::Capabilities).
    Reposition,
    /// [`Confirm::Broker`](crate::driver::capability::Confirm): confirmed messages outlive the
    /// broker's process.
    Durable,
    /// [`Redelivery::Native`](crate::driver::capability::Redelivery::Native) or better: the driver
    /// gets retries.
    NativeRetry,
    /// [`Redelivery::NativeDelayed`](crate::driver::capability::Redelivery::NativeDelayed): the
    /// driver gets retries with a delay.
    NativeDelay,
    /// [`Capabilities::reader_resumes`](crate::Capabilities).
    ReaderResumes,
    /// Another [`Order`](crate::driver::capability::Order) than that of partitions, each of which
    /// belongs to one member of a group.
    SharedQueue,
    /// [`Capabilities::sets_aside`](crate::Capabilities).
    SetsAside,
    /// [`Capabilities::notes_trials`](crate::Capabilities).
    NotesTrials,
    /// [`Killable::other_process`](super::Killable::other_process).
    OtherProcess,
    /// [`Harness::publish_foreign`](super::Harness::publish_foreign).
    ForeignProducer,
    /// [`Harness::delete_topic`](super::Harness::delete_topic).
    Deletion,
    /// [`Harness::delete_group`](super::Harness::delete_group).
    GroupDeletion,
    /// [`Harness::connect_to_check`](super::Harness::connect_to_check).
    CheckingConnection,
}
