//! The faults.

/// The fault of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No fault: the wrapper itself changes no result.
    None,
    /// Confirms every five-thousandth message of a connection without storing it.
    LosesOneInFiveThousand,
    /// Under load, confirms a message before it is stored; a message that still waits when the
    /// connection closes is lost.
    ConfirmsBeforeStoring,
    StoresLargeMessagesTwice,
    CutsLargePayloads,
    MakesTombstonesEmpty,
    /// Under load, stores one message after the next.
    ReordersUnderLoad,
    /// Stores one message of a busy key after the next message of that key.
    ReordersWithinAKey,
    /// Swaps the headers of two messages of a connection.
    SwapsHeaders,
    /// Replaces underscores in header names with dashes.
    RenamesHeaders,
    LowerCasesNames,
    LowerCasesValues,
    DropsEmptyHeaders,
    KeepsAHundredHeaders,
    /// Keeps only the first of several headers with one name.
    KeepsOneHeaderOfAName,
    /// Cuts header values at four kilobytes.
    CutsLongHeaders,
    /// Panics at a header name with a NUL byte.
    PanicsAtANul,
    /// Adds an extra header to each message.
    AddsAHeader,
    /// A message for `t1` also reaches `t10`.
    MixesTopicsThatBeginAlike,
    /// Members of one group on different connections each receive all messages.
    CopiesToOtherConnections,
    BeginsReadersAtTheEarliest,
    /// Refuses the forty-first subscription to a topic.
    ServesNoMoreThanForty,
    /// A new group begins at the earliest message, whatever offset is requested.
    IgnoresTheOffset,
    /// A reader begins at the earliest message, whatever time is requested.
    IgnoresTheTime,
    /// Moving one group moves all groups of the topic.
    MovesEveryGroup,
    /// Delivers half a second early.
    DeliversBeforeTheDelay,
    /// Counts attempts up to three and no further.
    CountsAttemptsWrong,
    /// Allows one more unsettled delivery than the subscription.
    HandsOutOneTooMany,
    /// Redelivers a message after half of the delay.
    RetriesTooEarly,
    BringsBackWhatWasDiscarded,
    /// An acknowledgement settles all earlier deliveries of the subscription.
    CommitsPastTheGap,
    AcknowledgesWhatIsOutWhenClosed,
    /// Acknowledges a message if its subscription is gone when it is settled.
    ForgetsWhatADroppedSubscriptionHad,
    /// An acknowledgement reaches the broker only if its result is awaited.
    SettlesOnlyWhenAwaited,
    /// Reports that settling succeeded when it did not.
    SettlesAfterClose,
    PublishesAfterClose,
    AnswersPingsAfterClose,
    FailsASecondClose,
    /// Misspells an attribute of one topic.
    MisspellsAnAttribute,
    ShowsTheSecretInDebug,
    ShowsTheSecretInErrors,
}

impl Fault {
    /// Number of faults.
    pub(crate) const COUNT: usize = Self::ShowsTheSecretInErrors as usize + 1;
}
