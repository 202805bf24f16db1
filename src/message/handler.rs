//! The result of a failed handler, and the fate of its message.

use std::fmt;
use std::time::Duration;

use crate::error::{BoxError, Error, ErrorKind};

/// The error of a handler, with the [`Verdict`] on the message.
///
/// Any error converts into it, so `?` works in handlers; the message is then retried. An [`Error`]
/// of kind [`ErrorKind::InvalidMessage`] rejects the message, because another attempt cannot
/// succeed, also where it is the cause of another error: inside an `anyhow::Error`, or an enum of
/// the application.
///
/// ```
/// use std::time::Duration;
/// use traced_broker::{HandlerError, Received};
///
/// async fn ship(message: Received) -> Result<(), HandlerError> {
///     let order: serde_json::Value = message.json()?;
///     if order["quantity"] == 0 {
///         return Err(HandlerError::reject("no items ordered"));
///     }
///     if message.attempt() < 3 {
///         let delay = Duration::from_millis(200);
///         return Err(HandlerError::retry_after("the carrier is busy", delay));
///     }
///     Ok(())
/// }
/// ```
pub struct HandlerError {
    verdict: Verdict,
    /// `true` if the verdict follows from the kind of the error, and was not chosen.
    by_kind: bool,
    source: BoxError,
}

/// Maximum number of causes that are looked at.
const MAX_CAUSES: usize = 16;

/// Maximum length of a description, in bytes.
pub(crate) const MAX_DESCRIPTION: usize = 1024;

/// The treatment of a message whose handler failed.
///
/// ```
/// use std::time::Duration;
/// use traced_broker::{Error, ErrorKind, HandlerError, Verdict};
///
/// let busy = HandlerError::retry_after("the carrier is busy", Duration::from_secs(1));
/// assert_eq!(busy.verdict(), Verdict::Retry(Duration::from_secs(1)));
///
/// // Conversions, as `?` uses them:
/// let unknown = HandlerError::from("no answer");
/// assert_eq!(unknown.verdict(), Verdict::Retry(Duration::ZERO));
/// let invalid = HandlerError::from(Error::new(ErrorKind::InvalidMessage, "no order"));
/// assert_eq!(invalid.verdict(), Verdict::Reject);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The message is handed out again after this time.
    Retry(Duration),
    /// The message is copied to the dead-letter topic, if there is one, and is not handed out
    /// again.
    Reject,
}

impl HandlerError {
    /// Creates an error that rejects the message if `error` is an [`ErrorKind::InvalidMessage`] of
    /// this library, or has one as its cause, because another attempt cannot help, and retries it
    /// otherwise. This is the conversion that `?` applies.
    ///
    /// ```
    /// use traced_broker::{Error, ErrorKind, HandlerError, Verdict};
    ///
    /// let invalid = Error::new(ErrorKind::InvalidMessage, "the payload is not JSON");
    /// assert_eq!(HandlerError::by_kind(invalid).verdict(), Verdict::Reject);
    ///
    /// let busy = HandlerError::by_kind("the carrier is busy");
    /// assert!(matches!(busy.verdict(), Verdict::Retry(delay) if delay.is_zero()));
    /// ```
    pub fn by_kind(error: impl Into<BoxError>) -> Self {
        let source = error.into();
        let invalid = own(&*source).is_some_and(|error| error.kind() == ErrorKind::InvalidMessage);
        let error = if invalid { Self::reject(source) } else { Self::retry(source) };
        Self { by_kind: true, ..error }
    }

    /// Creates an error after which the message is handed out again at once.
    pub fn retry(error: impl Into<BoxError>) -> Self {
        Self::retry_after(error, Duration::ZERO)
    }

    /// Creates an error after which the message is handed out again after `delay`.
    pub fn retry_after(error: impl Into<BoxError>, delay: Duration) -> Self {
        Self { verdict: Verdict::Retry(delay), by_kind: false, source: error.into() }
    }

    /// Creates an error after which the message is not handed out again; it is copied to the
    /// dead-letter topic if the subscription names one.
    pub fn reject(error: impl Into<BoxError>) -> Self {
        Self { verdict: Verdict::Reject, by_kind: false, source: error.into() }
    }

    /// Returns the verdict on the message.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Returns the error itself.
    pub fn error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.source
    }

    /// Returns the same error with another verdict.
    pub(crate) fn with_verdict(self, verdict: Verdict) -> Self {
        Self { verdict, ..self }
    }

    /// Returns the `error.type` of the process span: `panic`, `timeout`, the kind of a library
    /// error, or else `handler_error`.
    pub(crate) fn error_type(&self) -> &'static str {
        if self.source.is::<Panicked>() {
            return "panic";
        }
        if self.source.is::<TimedOut>() {
            return ErrorKind::Timeout.as_str();
        }
        match own(&*self.source) {
            Some(error) => error.kind().as_str(),
            // An error of ours that is hidden in a box of another library.
            None if self.by_kind && self.verdict == Verdict::Reject => ErrorKind::InvalidMessage.as_str(),
            None => "handler_error",
        }
    }

    /// Rejects the message if the verdict was not chosen and the error, or one of its causes, has
    /// this text: that of an error of ours that cannot be told by its type, because another
    /// library's box hides it.
    pub(crate) fn reject_by_text(&mut self, undecodable: &str) {
        if self.by_kind && causes(&*self.source).any(|cause| cause.to_string() == undecodable) {
            self.verdict = Verdict::Reject;
        }
    }

    /// Returns the error with its causes, as in `a: b: c`, cut to [`MAX_DESCRIPTION`] bytes.
    pub(crate) fn describe(&self) -> String {
        let mut words = String::new();
        for cause in causes(&*self.source) {
            let cause = cause.to_string();
            // Many errors repeat their cause in their own text.
            if words.is_empty() {
                words = cause;
            } else if !words.contains(&cause) {
                words.push_str(": ");
                words.push_str(&cause);
            }
            if words.len() > MAX_DESCRIPTION {
                break;
            }
        }
        let mut end = words.len().min(MAX_DESCRIPTION);
        while !words.is_char_boundary(end) {
            end -= 1;
        }
        words.truncate(end);
        words
    }
}

/// The conversion behind `?` in handlers, [by the kind](HandlerError::by_kind) of the error.
/// Returns the error and its causes, at most [`MAX_CAUSES`].
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source()).take(MAX_CAUSES)
}

/// Returns the error of this library that is the error or one of its causes.
fn own<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    causes(error).find_map(|cause| cause.downcast_ref::<Error>())
}

impl<E: Into<BoxError>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::by_kind(error)
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

/// The panic message of a handler.
#[derive(Debug)]
pub(crate) struct Panicked(String);

impl Panicked {
    pub(crate) fn with(panic: &(dyn std::any::Any + Send)) -> Self {
        Self(describe_panic(panic))
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the handler panicked: {}", self.0)
    }
}

impl std::error::Error for Panicked {}

/// The error of a handler that exceeded its time limit.
#[derive(Debug)]
pub(crate) struct TimedOut(pub(crate) Duration);

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the handler did not finish within {:?} and was cancelled", self.0)
    }
}

impl std::error::Error for TimedOut {}

pub(crate) fn describe_panic(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
