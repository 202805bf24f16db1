//! Errors of reading an answer.

use std::fmt;

use crate::verify::otlp::ReadErrorKind;

/// The reason why an answer of a tracing backend could not be read.
///
/// Texts from the backend are unchanged: they may contain anything, including control characters.
///
/// ```
/// use traced_broker::verify::answer::{self, AnswerError};
///
/// let cut = br#"{"trace":{},"status":"PARTIAL","message":"the trace is too large"}"#;
/// match answer::tempo(cut) {
///     Err(AnswerError::Partial(reason)) => assert_eq!(reason, "the trace is too large"),
///     other => panic!("{other:?}"),
/// }
/// assert!(matches!(answer::tempo(b"<html>"), Err(AnswerError::Malformed(_))));
/// assert!(matches!(answer::tempo(b"{}"), Err(AnswerError::Foreign)));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum AnswerError {
    /// The answer is longer than this many bytes.
    TooLong(usize),
    /// The answer contains more than this many objects.
    TooMany(usize),
    /// The answer ends in the middle of a value, or is empty.
    Truncated,
    /// The answer is not JSON, or a value in it has the wrong type.
    Malformed(serde_json::Error),
    /// The answer is JSON, but not from this interface: perhaps the server or the path is wrong.
    Foreign,
    /// A span, named here, has no trace id or no span id.
    MissingId(String),
    /// A span, named first, belongs to a process, named second, that is missing from the answer.
    UnknownProcess(String, String),
    /// The backend left out spans; the text is its explanation.
    Partial(String),
    /// The backend answered with an error.
    Refused {
        /// The backend's message.
        message: String,
        /// The HTTP status of the error, 404 for a missing trace; zero if the backend gives none.
        code: u16,
    },
}

impl From<serde_json::Error> for AnswerError {
    fn from(error: serde_json::Error) -> Self {
        if error.is_eof() { Self::Truncated } else { Self::Malformed(error) }
    }
}

impl From<ReadErrorKind> for AnswerError {
    fn from(kind: ReadErrorKind) -> Self {
        match kind {
            ReadErrorKind::MissingId(name) => Self::MissingId(name),
            ReadErrorKind::Malformed(error) => error.into(),
            ReadErrorKind::TooLong(limit) => Self::TooLong(limit),
            ReadErrorKind::Truncated | ReadErrorKind::Io(_) => Self::Truncated,
        }
    }
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(limit) => write!(f, "the answer is longer than {limit} bytes"),
            Self::TooMany(limit) => write!(f, "the answer holds more than {limit} objects"),
            Self::Truncated => f.write_str("the answer ends in the middle of a value"),
            Self::Malformed(error) => {
                write!(f, "the answer is not a trace (line {}, column {})", error.line(), error.column())
            }
            Self::Foreign => f.write_str("the answer is JSON, but not in the format of this backend"),
            Self::MissingId(name) => write!(f, "the span `{name}` has no trace id or no span id"),
            Self::UnknownProcess(name, process) => {
                write!(f, "the span `{name}` belongs to process `{process}`, which is missing from the answer")
            }
            Self::Partial(message) if message.is_empty() => f.write_str("the backend left spans out"),
            Self::Partial(message) => write!(f, "the backend left spans out: {message}"),
            Self::Refused { message, code: 0 } => write!(f, "the backend refuses: {message}"),
            Self::Refused { message, code } => write!(f, "the backend refuses with {code}: {message}"),
        }
    }
}

impl std::error::Error for AnswerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Malformed(error) => Some(error),
            _ => None,
        }
    }
}
