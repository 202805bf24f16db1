//! How long a message was in the queue.

use std::time::{Duration, SystemTime};

use crate::driver::Timestamp;

/// The time from a message's timestamp until it was handed out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queued {
    /// Never negative.
    pub(crate) time: Duration,
    /// The timestamp lies in the future: the two clocks disagree, and the time is zero for want of a better one.
    pub(crate) is_skewed: bool,
}

impl Queued {
    pub(crate) fn until(now: SystemTime, timestamp: Option<Timestamp>) -> Option<Self> {
        let elapsed = now.duration_since(timestamp?.time);
        Some(Self { time: elapsed.as_ref().copied().unwrap_or_default(), is_skewed: elapsed.is_err() })
    }
}
