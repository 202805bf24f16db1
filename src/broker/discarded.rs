//! Messages that are rejected and kept nowhere: each is counted, and told to the log.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::dead_letter::Reason;
use crate::message::Received;
use crate::telemetry::SubscriptionTelemetry;

/// Minimum interval between two log lines of one subscription.
const EVERY: Duration = Duration::from_secs(5);

/// The record of the messages that one subscription discards.
#[derive(Debug, Default)]
pub(crate) struct Discarded(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    /// The number of messages since then that were not logged.
    silent: u64,
}

impl Discarded {
    /// Counts a message that is discarded, and logs it unless another was logged just before.
    pub(crate) fn tell(&self, telemetry: &SubscriptionTelemetry, message: &Received, reason: Reason<'_>) {
        telemetry.discard(message, reason.error_type);
        let Some(silent) = self.turn() else { return };
        tracing::warn!(
            topic = %message.topic(),
            id = message.id(),
            attempts = message.attempt(),
            reason = reason.text,
            not_logged = silent,
            "a rejected message is discarded, because the subscription has no dead-letter topic"
        );
    }

    /// Returns the number of messages that were not logged since the last line; `None` if it is too
    /// early for another.
    fn turn(&self) -> Option<u64> {
        let (mut told, now) = (self.0.lock(), Instant::now());
        if told.last.is_some_and(|last| now.duration_since(last) < EVERY) {
            told.silent += 1;
            return None;
        }
        told.last = Some(now);
        Some(std::mem::take(&mut told.silent))
    }
}
