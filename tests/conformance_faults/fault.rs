//! The faults.

/// What is wrong with a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: the wrapper itself is no fault.
    None,
    /// Confirms each five thousandth message of a connection without storing it.
    LosesOneInFiveThousand,
    /// Once busy, confirms a message before it is stored; one that waits when the connection closes is lost.
    ConfirmsBeforeStoring,
    StoresLargeMessagesTwice,
    CutsLargePayloads,
    MakesTombstonesEmpty,
    /// Once busy, stores one message after the next.
    ReordersUnderLoad,
    /// Stores one message of a busy key after the next of that key.
    ReordersWithinAKey,
    /// Gives two messages of a connection each other's headers.
    SwapsHeaders,
    /// Writes a dash for an underscore in header names.
    RenamesHeaders,
    LowerCasesNames,
    LowerCasesValues,
    DropsEmptyHeaders,
    KeepsAHundredHeaders,
    /// Of several headers of one name keeps the first.
    KeepsOneHeaderOfAName,
    /// Cuts header values at four kilobytes.
    CutsLongHeaders,
    /// Panics at a header name with a NUL byte.
    PanicsAtANul,
    /// Adds a header of its own to each message.
    AddsAHeader,
    /// A message for `t1` reaches `t10`, too.
    MixesTopicsThatBeginAlike,
    /// Members of one group on different connections each get all messages.
    CopiesToOtherConnections,
    BeginsReadersAtTheEarliest,
    /// Refuses the forty-first subscription to a topic.
    ServesNoMoreThanForty,
    /// A new group begins at the earliest message whatever offset is asked for.
    IgnoresTheOffset,
    /// A reader begins at the earliest message whatever time is asked for.
    IgnoresTheTime,
    /// Moving one group moves all groups of the topic.
    MovesEveryGroup,
    /// Delivers half a second early.
    DeliversBeforeTheDelay,
    /// Counts attempts to three and no further.
    CountsAttemptsWrong,
    /// Leaves one delivery more unsettled than the subscription allows.
    HandsOutOneTooMany,
    /// Brings a message back after half of the delay.
    RetriesTooEarly,
    BringsBackWhatWasDiscarded,
    /// An acknowledgement settles all earlier deliveries of the subscription.
    CommitsPastTheGap,
    AcknowledgesWhatIsOutWhenClosed,
    /// Acknowledges what comes back from a subscription that is gone.
    ForgetsWhatADroppedSubscriptionHad,
    /// An acknowledgement reaches the broker only if its answer is awaited.
    SettlesOnlyWhenAwaited,
    /// Says that settling succeeded when nothing was settled.
    SettlesAfterClose,
    PublishesAfterClose,
    AnswersPingsAfterClose,
    FailsASecondClose,
    /// Says of one topic what it has misspelt.
    MisspellsAnAttribute,
    ShowsTheSecretInDebug,
    ShowsTheSecretInErrors,
}

impl Fault {
    /// How many there are.
    pub(crate) const COUNT: usize = Self::ShowsTheSecretInErrors as usize + 1;
}
