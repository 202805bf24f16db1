//! Why an answer could not be read.

use std::fmt;

use crate::verify::otlp::ReadErrorKind;

/// An answer of a tracing backend that could not be read.
///
/// Texts that the backend sent are given as they came: they may hold anything, control characters included.
#[derive(Debug)]
#[non_exhaustive]
pub enum AnswerError {
    /// It is longer than this many bytes.
    TooLong(usize),
    /// It holds more than this many objects.
    TooMany(usize),
    /// It ends in the middle of a value, or is empty.
    Truncated,
    /// It is not JSON, or a value in it is not of its type.
    Malformed(serde_json::Error),
    /// It is JSON, but nothing that this backend answers: another server, or another path.
    Foreign,
    /// A span, named here, has no trace id or no span id of its own.
    MissingId(String),
    /// A span, named first, is of a process that the answer does not tell of, named second.
    UnknownProcess(String, String),
    /// The backend left spans out, and says why.
    Partial(String),
    /// The backend answers with an error.
    Refused {
        /// What it says.
        message: String,
        /// The HTTP status it means, 404 for a trace it does not have; zero when it says none.
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
            Self::Foreign => f.write_str("the answer is JSON, but not what this backend answers"),
            Self::MissingId(name) => write!(f, "the span `{name}` has no trace id or no span id"),
            Self::UnknownProcess(name, process) => {
                write!(f, "the span `{name}` is of process `{process}`, which the answer does not tell of")
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
