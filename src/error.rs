//! The error type of the library: a kind to match on, a sentence to read, and the client's error as
//! the source.

use std::error::Error as StdError;
use std::fmt;

/// A `Result` whose error is the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The cause handed to [`Error::with_source`]: any error that can cross threads.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// The category of an [`Error`], for programs to match on.
///
/// [`ErrorKind::as_str`] is the value of the `error.type` attribute on spans and metrics.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use traced_broker::{ErrorKind, Message, TracedBroker, connect};
///
/// let broker = connect("memory://").await?;
/// broker.close().await?;
/// let error = broker.publish("orders", Message::new("shoes")).await.unwrap_err();
/// match error.kind() {
///     ErrorKind::Closed => println!("shutting down"),
///     kind if kind.is_retryable() => println!("later: {error}"),
///     kind => panic!("{kind}: {error}"),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A URL, an option or a name is not valid; no operation was attempted.
    InvalidConfig,
    /// The URL's scheme needs a cargo feature that this build does not have.
    FeatureDisabled,
    /// This broker does not support the operation; see [`Capabilities`](crate::Capabilities).
    Unsupported,
    /// The message cannot be carried by this broker, or its payload cannot be decoded.
    InvalidMessage,
    /// The message is larger than the broker accepts; the error names both sizes.
    TooLarge,
    /// A topic, queue or stream does not exist and may not be created.
    NotFound,
    /// It already exists with different properties.
    Conflict,
    /// The credentials are missing or wrong.
    Unauthenticated,
    /// The credentials are valid but do not permit the operation.
    PermissionDenied,
    /// The broker cannot be reached at the moment.
    Unavailable,
    /// The broker did not answer in time: the operation may or may not have happened.
    Timeout,
    /// A limit was reached, in this process or at the broker; try again later.
    Busy,
    /// The broker refused the operation or could not route the message.
    Rejected,
    /// The delivery can no longer be settled: its connection or assignment is gone. The broker
    /// redelivers it.
    SettlementLost,
    /// The broker or subscription was closed by this program.
    Closed,
    /// Any other error; the source is the error of the client.
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

    /// Returns `true` if the same operation may succeed later without any change.
    ///
    /// ```
    /// use traced_broker::ErrorKind;
    ///
    /// assert!(ErrorKind::Busy.is_retryable());
    /// assert!(!ErrorKind::PermissionDenied.is_retryable());
    /// ```
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Timeout | Self::Busy)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The state of knowledge about a message after its publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PublishOutcome {
    /// The broker confirmed it; [`Capabilities::confirm`](crate::Capabilities) says what that
    /// guarantees.
    Confirmed,
    /// It was not stored: publishing again cannot duplicate it.
    NotSent,
    /// It may have been stored: bytes were sent and no answer came, or the broker never confirms.
    Unknown,
}

/// The error of every fallible operation of this library.
///
/// `Display` is one lower-case line that says what failed and what to do. It contains no secret and
/// does not repeat the [`source`](StdError::source), which is the client's own error.
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
    /// Creates an error of `kind`; `message` is a lower-case sentence without a full stop that says
    /// what to do.
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
    ///
    /// ```
    /// use std::error::Error as _;
    /// use traced_broker::{Error, ErrorKind};
    ///
    /// let cause = std::io::Error::other("connection reset");
    /// let error = Error::new(ErrorKind::Unavailable, "no connection").with_source(cause);
    /// assert_eq!(error.to_string(), "no connection");
    /// assert_eq!(error.source().expect("a source").to_string(), "connection reset");
    /// ```
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Names the operation (`connect`, `publish`, `subscribe`, `settle`, …) unless one is already
    /// named.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Names the messaging system unless one is already named.
    #[must_use]
    pub fn with_system(mut self, system: &'static str) -> Self {
        self.0.system.get_or_insert(system);
        self
    }

    /// Adds a pair such as `topic=orders`, unless it is already present. Must not contain a secret.
    ///
    /// ```
    /// use traced_broker::{Error, ErrorKind};
    ///
    /// let error = Error::new(ErrorKind::NotFound, "the topic does not exist")
    ///     .with_system("kafka")
    ///     .with_operation("publish")
    ///     .with_context("topic", "orders");
    /// assert_eq!(error.to_string(), "kafka publish: the topic does not exist (topic=orders)");
    /// assert_eq!(error.context().next(), Some(("topic", "orders")));
    /// ```
    #[must_use]
    pub fn with_context(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        let pair = (key, value.to_string());
        if !self.0.context.contains(&pair) {
            self.0.context.push(pair);
        }
        self
    }

    /// Marks a failed publish as possibly stored: bytes were sent and no confirmation came back.
    #[must_use]
    pub fn with_unknown_outcome(mut self) -> Self {
        self.0.outcome_unknown = true;
        self
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns `true` if trying again later may succeed without any change.
    ///
    /// After a publish with an unknown [outcome](Self::publish_outcome), trying again may store the
    /// message twice.
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }

    /// Returns the outcome of the publish that failed: not stored, or possibly stored.
    ///
    /// Never [`PublishOutcome::Confirmed`].
    ///
    /// ```
    /// use traced_broker::{Error, ErrorKind, PublishOutcome};
    ///
    /// let lost = Error::new(ErrorKind::Unavailable, "the connection was lost");
    /// assert_eq!(lost.publish_outcome(), PublishOutcome::NotSent); // safe to publish again
    /// assert_eq!(lost.with_unknown_outcome().publish_outcome(), PublishOutcome::Unknown);
    ///
    /// let silent = Error::new(ErrorKind::Timeout, "the broker did not confirm within 5 s");
    /// assert_eq!(silent.publish_outcome(), PublishOutcome::Unknown);
    /// assert!(silent.is_retryable()); // but the message may then be stored twice
    /// ```
    pub fn publish_outcome(&self) -> PublishOutcome {
        if self.0.outcome_unknown { PublishOutcome::Unknown } else { PublishOutcome::NotSent }
    }

    /// Returns the same error for another message of a batch; the first one keeps the source.
    pub(crate) fn without_source(&self) -> Self {
        let Parts { kind, ref message, operation, system, ref context, outcome_unknown, source: _ } = *self.0;
        let (message, context) = (message.clone(), context.clone());
        Self(Box::new(Parts { kind, message, operation, system, context, outcome_unknown, source: None }))
    }

    /// Returns the operation that failed, if known.
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// Returns the messaging system (`kafka`, `rabbitmq`, …), if known.
    pub fn system(&self) -> Option<&'static str> {
        self.0.system
    }

    /// Returns the context pairs in the order in which they were added.
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
            // The source's text, not its `Debug`: some clients print credentials in it.
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
