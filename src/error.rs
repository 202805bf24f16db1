//! The one error of the library: a kind for programs, a sentence for people, the source for the curious.

use std::error::Error as StdError;
use std::fmt;

use crate::message::PublishOutcome;

/// A `Result` whose error is the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The cause handed to [`Error::with_source`]: any error that can cross threads.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// What went wrong, for programs to match on.
///
/// [`ErrorKind::as_str`] is the value of the `error.type` attribute on spans and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A URL, an option or a name is not valid; nothing was attempted.
    InvalidConfig,
    /// The URL's scheme needs a cargo feature that this build does not have.
    FeatureDisabled,
    /// This broker cannot do what was asked; see [`Capabilities`](crate::Capabilities).
    Unsupported,
    /// The message cannot be carried by this broker, or its payload cannot be decoded.
    InvalidMessage,
    /// The message is larger than the broker takes; the error names both sizes.
    TooLarge,
    /// A topic, queue or stream does not exist and may not be created.
    NotFound,
    /// It exists already with other properties.
    Conflict,
    /// The credentials are missing or wrong.
    Unauthenticated,
    /// The credentials are right and not sufficient.
    PermissionDenied,
    /// The broker cannot be reached, now.
    Unavailable,
    /// No answer in time: the operation may or may not have happened.
    Timeout,
    /// A bound was reached, here or at the broker; try again later.
    Busy,
    /// The broker refused the operation or could not route the message.
    Rejected,
    /// The delivery can no longer be settled: its connection or assignment is gone, the broker redelivers it.
    SettlementLost,
    /// The broker or subscription was closed by this program.
    Closed,
    /// Anything else; the source says what the client reported.
    Unexpected,
}

impl ErrorKind {
    /// The stable, low-cardinality name of the kind, used as the `error.type` attribute.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidConfig => "invalid_config",
            Self::FeatureDisabled => "feature_disabled",
            Self::Unsupported => "unsupported",
            Self::InvalidMessage => "invalid_message",
            Self::TooLarge => "too_large",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
            Self::Rejected => "rejected",
            Self::SettlementLost => "settlement_lost",
            Self::Closed => "closed",
            Self::Unexpected => "unexpected",
        }
    }

    /// Whether trying the same operation again later can succeed without changing anything.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Timeout | Self::Busy)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error of every fallible operation of this library.
///
/// `Display` is one lower-case line that says what failed and what to do; it holds no secret and does not
/// repeat the [`source`](StdError::source), which is the client's own error.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use traced_broker::{ErrorKind, connect};
///
/// let error = connect("rabbit://localhost").await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
/// assert!(error.to_string().contains("amqp"), "{error}");
/// # }
/// ```
pub struct Error(Box<Parts>);

struct Parts {
    kind: ErrorKind,
    message: String,
    operation: Option<&'static str>,
    system: Option<&'static str>,
    context: Vec<(&'static str, String)>,
    outcome_unknown: bool,
    source: Option<BoxError>,
}

impl Error {
    /// An error of `kind`; `message` is a lower-case sentence without a full stop that says what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            kind,
            message: message.into(),
            operation: None,
            system: None,
            context: Vec::new(),
            outcome_unknown: kind == ErrorKind::Timeout,
            source: None,
        }))
    }

    /// Adds the client's own error as the [`source`](StdError::source).
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Names the operation (`connect`, `publish`, `subscribe`, `settle`, …) unless one is named already.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Names the messaging system unless one is named already.
    #[must_use]
    pub fn with_system(mut self, system: &'static str) -> Self {
        self.0.system.get_or_insert(system);
        self
    }

    /// Adds a pair such as `topic=orders`, unless it is there already; never a secret.
    #[must_use]
    pub fn with_context(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        let pair = (key, value.to_string());
        if !self.0.context.contains(&pair) {
            self.0.context.push(pair);
        }
        self
    }

    /// Marks a failed publish as possibly stored: bytes had left, no confirm came back.
    #[must_use]
    pub fn with_unknown_outcome(mut self) -> Self {
        self.0.outcome_unknown = true;
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether trying again later can succeed without changing anything.
    ///
    /// After a publish whose [outcome](Self::publish_outcome) is unknown, trying again may store the message twice.
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }

    /// For an error of a publish: whether the message was certainly not stored, or may have been.
    ///
    /// Never [`PublishOutcome::Confirmed`].
    pub fn publish_outcome(&self) -> PublishOutcome {
        if self.0.outcome_unknown { PublishOutcome::Unknown } else { PublishOutcome::NotSent }
    }

    /// The same error for one more message of a batch; the first keeps the source.
    pub(crate) fn without_source(&self) -> Self {
        let Parts { kind, ref message, operation, system, ref context, outcome_unknown, source: _ } = *self.0;
        let (message, context) = (message.clone(), context.clone());
        Self(Box::new(Parts { kind, message, operation, system, context, outcome_unknown, source: None }))
    }

    /// The operation that failed, if known.
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// The messaging system (`kafka`, `rabbitmq`, …), if known.
    pub fn system(&self) -> Option<&'static str> {
        self.0.system
    }

    /// The context pairs, in the order in which they were added.
    pub fn context(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.context.iter().map(|(key, value)| (*key, value.as_str()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = &*self.0;
        match (parts.system, parts.operation) {
            (Some(system), Some(operation)) => write!(f, "{system} {operation}: ")?,
            (Some(name), None) | (None, Some(name)) => write!(f, "{name}: ")?,
            (None, None) => {}
        }
        f.write_str(&parts.message)?;
        for (index, (key, value)) in parts.context.iter().enumerate() {
            let lead = if index == 0 { " (" } else { ", " };
            write!(f, "{lead}{key}={value}")?;
        }
        if parts.context.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind).field("message", &self.to_string());
        if let Some(source) = &self.0.source {
            // The source's text, not its `Debug`: some clients print credentials there.
            out.field("source", &source.to_string());
        }
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_said_once() {
        let error = Error::new(ErrorKind::NotFound, "no such topic").with_context("topic", "orders");
        let error = error.with_context("group", "g").with_context("topic", "orders").with_context("topic", "other");
        assert_eq!(error.to_string(), "no such topic (topic=orders, group=g, topic=other)");
    }
}
