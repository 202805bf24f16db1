//! The errors of parsing a stored reference.

use std::fmt;

use super::reference::TraceReference;
use crate::context::w3c::Malformed;

/// The reason why a text or a JSON object is not a [`TraceReference`]. It never repeats the input.
///
/// ```
/// use traced_broker::TraceReference;
/// use traced_broker::job::InvalidReference;
///
/// let column = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let error = column.parse::<TraceReference>().unwrap_err();
/// assert_eq!(error, InvalidReference::MadeAt); // The time is missing.
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InvalidReference {
    /// Longer than [`TraceReference::MAX_LEN`].
    TooLong,
    /// The traceparent is missing or malformed.
    Traceparent(Malformed),
    /// The time is missing, not a number, or beyond the year 9999.
    MadeAt,
    /// The note is not UTF-8 in percent-encoding, or longer than [`TraceReference::MAX_NOTE`].
    Note,
    /// The tracestate is malformed, or longer than [`TraceReference::MAX_TRACESTATE`].
    Tracestate(Malformed),
    /// Readable, but not in the one form in which references are written.
    NotCanonical,
}

impl fmt::Display for InvalidReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a trace reference: ")?;
        match self {
            Self::TooLong => write!(f, "longer than {} bytes", TraceReference::MAX_LEN),
            Self::Traceparent(reason) => write!(f, "traceparent ({reason})"),
            Self::MadeAt => f.write_str("the time is not a number of milliseconds up to the year 9999"),
            Self::Note => write!(f, "the note is not UTF-8 of at most {} bytes", TraceReference::MAX_NOTE),
            Self::Tracestate(reason) => write!(f, "tracestate ({reason})"),
            Self::NotCanonical => f.write_str("not in the canonical form of a reference"),
        }
    }
}

impl std::error::Error for InvalidReference {}
