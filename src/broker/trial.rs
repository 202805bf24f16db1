//! Trials of suspects: messages that may end the process of their handler.
//!
//! A process that ends with its handler says nothing, and its messages come again, the innocent
//! with the one that did it. A count of deliveries cannot tell them apart: one lost connection
//! brings back all that was fetched ahead. So a message that was handed out twice without being
//! heard of is a suspect. The driver notes each run of its handler where the note outlives the
//! process, and withdraws the note when the process has lived to tell. A message with notes left
//! from two trials is tried alone: no other handler of its consumer runs until it is settled. One
//! with notes from three is not tried again.

use std::time::Duration;

use tokio::time::timeout;

use super::delivery::Delivery;
use super::verdicts::Remembered;

/// The number of lost trials after which a consumer sends a message to the dead letters. The last
/// of them ran alone.
const TRIALS: u32 = 3;

/// Maximum time for the note of a trial. The handler begins then all the same.
const NOTING: Duration = Duration::from_secs(5);

/// The error type of a message that ended its process.
const PROCESS_LOST: &str = "process_lost";

impl Delivery {
    /// Returns `true` if the message may end the process of its handler.
    pub(crate) fn is_suspect(&self) -> bool {
        self.lost_trials().is_some()
    }

    /// Returns `true` if no other handler of the consumer may run beside the one of this message.
    /// A failure in this process was heard of, so that it needs no such care again.
    pub(crate) fn runs_alone(&self) -> bool {
        self.lost_trials().is_some_and(|lost| lost + 1 >= TRIALS) && !self.is_begun && !self.is_condemned()
    }

    /// Returns the verdict on a message that has ended too many processes. Without a dead-letter
    /// topic it would be lost, so it is tried again.
    pub(crate) fn condemned(&self) -> Option<Remembered> {
        let lost = self.lost_trials().filter(|_| self.is_condemned())?;
        let reason = format!("given up: {lost} processes ended while its handler ran");
        Some(Remembered::Rejected { reason, error_type: Some(PROCESS_LOST) })
    }

    /// Notes that a handler begins, if the message is a suspect.
    pub(crate) async fn begin_trial(&self) {
        let (Some(lost), Some(handle)) = (self.lost_trials(), &self.handle) else { return };
        let message = &self.message;
        if lost > 0 {
            tracing::warn!(
                topic = %message.topic(), id = message.id(), lost,
                "a handler begins on a message whose earlier handlers were not heard of again, with their processes"
            );
        }
        match timeout(NOTING, handle.begin_trial()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(topic = %message.topic(), %error, "a trial could not be noted"),
            Err(_) => tracing::debug!(topic = %message.topic(), "a trial was not noted in time"),
        }
    }

    fn is_condemned(&self) -> bool {
        self.lost_trials().is_some_and(|lost| lost >= TRIALS) && self.consumer.dead_letters.is_some()
    }

    fn lost_trials(&self) -> Option<u32> {
        self.message.parts.lost_trials
    }
}
