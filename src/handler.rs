//! What a handler says about a message.

use std::fmt;
use std::time::Duration;

use crate::delivery::{Panicked, TimedOut};
use crate::error::{BoxError, Error, ErrorKind};

/// Why a handler did not succeed, and what is to happen to the message.
///
/// Any error converts into it, so that `?` works in handlers; such a message is retried at once. An
/// [`Error`] of kind [`ErrorKind::InvalidMessage`] rejects the message, since trying again cannot help.
///
/// ```
/// use std::time::Duration;
/// use traced_broker::{HandlerError, Received};
///
/// async fn ship(message: Received) -> Result<(), HandlerError> {
///     let order: serde_json::Value = message.json()?;
///     if order["quantity"] == 0 {
///         return Err(HandlerError::reject("an order of nothing"));
///     }
///     if message.attempt() < 3 {
///         return Err(HandlerError::retry_after("the carrier is busy", Duration::from_millis(200)));
///     }
///     Ok(())
/// }
/// ```
pub struct HandlerError {
    verdict: Verdict,
    source: BoxError,
}

/// What is to happen to a message whose handler failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Hand it out again after this time.
    Retry(Duration),
    /// Copy it to the dead-letter topic if there is one, and be done with it.
    Reject,
}

impl HandlerError {
    /// The message is handed out again at once.
    pub fn retry(error: impl Into<BoxError>) -> Self {
        Self::retry_after(error, Duration::ZERO)
    }

    /// The message is handed out again after `delay`.
    pub fn retry_after(error: impl Into<BoxError>, delay: Duration) -> Self {
        Self { verdict: Verdict::Retry(delay), source: error.into() }
    }

    /// The message is not handed out again; it goes to the dead-letter topic if the subscription names one.
    pub fn reject(error: impl Into<BoxError>) -> Self {
        Self { verdict: Verdict::Reject, source: error.into() }
    }

    /// What is to happen to the message.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The error itself.
    pub fn error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.source
    }

    /// The same error with another word on what is to happen to the message.
    pub(crate) fn with_verdict(self, verdict: Verdict) -> Self {
        Self { verdict, ..self }
    }

    /// The `error.type` of the process span: `panic`, `timeout`, the kind of a library error, else `handler_error`.
    pub(crate) fn error_type(&self) -> &'static str {
        if self.source.is::<Panicked>() {
            return "panic";
        }
        if self.source.is::<TimedOut>() {
            return ErrorKind::Timeout.as_str();
        }
        self.source.downcast_ref::<Error>().map_or("handler_error", |error| error.kind().as_str())
    }
}

impl<E: Into<BoxError>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let source = error.into();
        let invalid = source.downcast_ref::<Error>().is_some_and(|error| error.kind() == ErrorKind::InvalidMessage);
        if invalid { Self::reject(source) } else { Self::retry(source) }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerError").field("verdict", &self.verdict).field("error", &self.source.to_string()).finish()
    }
}
