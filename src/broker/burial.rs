//! The burial of a rejected message: its dead letter is published, again and again until the broker
//! takes it. Only the burial is repeated, never the handler.

use std::time::Duration;

use opentelemetry::Context;
use tokio::time::sleep;

use super::dead_letter::{DeadLetters, Reason};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Received;

/// Pause before the first repetition; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The reason why a dead letter was not published.
#[derive(Debug)]
pub(crate) enum BurialError {
    /// The message is another consumer's now.
    Lost,
    /// The broker will never take it.
    Refused(Error),
}

/// Publishes the dead letter of a message. Repeats it after errors that may pass.
pub(super) async fn bury(
    dead_letters: &DeadLetters,
    message: &Received,
    reason: Reason<'_>,
    context: &Context,
) -> Result<(), BurialError> {
    let mut pause = FIRST_PAUSE;
    loop {
        if message.is_lost() {
            return Err(BurialError::Lost);
        }
        let error = match dead_letters.publish(message, reason, context).await {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Closed => return Err(BurialError::Lost),
            Err(error) if is_final(error.kind()) => return Err(BurialError::Refused(error)),
            Err(error) => error,
        };
        tracing::warn!(
            topic = %message.topic(), id = message.id(), %error, again_in = ?pause,
            "a dead letter could not be published; it is tried again, and its message is kept"
        );
        tokio::select! {
            biased;
            () = message.lost() => return Err(BurialError::Lost),
            () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
    }
}

/// Returns `true` for errors that stay the same, however often the publish is repeated.
fn is_final(kind: ErrorKind) -> bool {
    use ErrorKind::{Conflict, FeatureDisabled, InvalidConfig, InvalidMessage, NotFound, PermissionDenied};
    use ErrorKind::{TooLarge, Unsupported};
    let configuration = matches!(kind, Conflict | FeatureDisabled | InvalidConfig | NotFound | PermissionDenied);
    configuration || matches!(kind, InvalidMessage | TooLarge | Unsupported)
}
