//! How long a message was in the queue.

use std::time::{Duration, SystemTime};

use crate::driver::Timestamp;

/// The time from `timestamp` until `now`; zero where the two clocks disagree so far that it would be negative.
pub(crate) fn time_in_queue(timestamp: Option<Timestamp>, now: SystemTime) -> Option<Duration> {
    timestamp.map(|stored| now.duration_since(stored.time).unwrap_or(Duration::ZERO))
}
