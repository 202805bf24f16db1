//! What a consumer did.

use std::fmt;

/// What became of the messages that a consumer took. Attempts are counted, not messages: one that is retried twice counts three times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Handled and acknowledged.
    pub handled: u64,
    /// Acknowledged without being handled, because a [filter](super::Consume::filter) did not want them.
    pub skipped: u64,
    /// Failed, and to be tried again.
    pub retried: u64,
    /// Given up: copied to the dead-letter topic, or discarded where there is none.
    pub rejected: u64,
    /// Failed on an at-most-once subscription, where nothing can be done about it.
    pub failed: u64,
    /// Handled, but not settled: the connection or assignment was gone, or its dead letter could not be published. They come again.
    pub unsettled: u64,
    /// Taken and not finished when the consumer stopped. They come again, here or elsewhere.
    pub abandoned: u64,
    /// Troubles that the subscription told of, such as a lost connection.
    pub errors: u64,
}

impl Report {
    /// How many attempts at messages came to an end.
    pub fn attempts(&self) -> u64 {
        self.handled + self.retried + self.rejected + self.failed + self.unsettled
    }
}

impl fmt::Display for Report {
    /// One line, the counts that are not 0.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} handled", self.handled)?;
        let others = [
            (self.skipped, "skipped"),
            (self.retried, "retried"),
            (self.rejected, "rejected"),
            (self.failed, "failed"),
            (self.unsettled, "not settled"),
            (self.abandoned, "abandoned"),
            (self.errors, "errors"),
        ];
        others.iter().filter(|(count, _)| *count > 0).try_for_each(|(count, what)| write!(f, ", {count} {what}"))
    }
}
