//! What was wrong with a stored reference.

use std::fmt;

use super::reference::TraceReference;
use crate::w3c::Malformed;

/// Why a text or a JSON object is no [`TraceReference`]. It never repeats what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InvalidReference {
    /// Longer than [`TraceReference::MAX_LEN`].
    TooLong,
    /// The traceparent is missing or malformed.
    Traceparent(Malformed),
    /// The time is missing, no number, or beyond the year 9999.
    MadeAt,
    /// The note is not UTF-8 in percent-encoding, or longer than [`TraceReference::MAX_NOTE`].
    Note,
    /// The tracestate is malformed, or longer than [`TraceReference::MAX_TRACESTATE`].
    Tracestate(Malformed),
    /// It could be read, but is not written the way references are written.
    NotCanonical,
}

impl fmt::Display for InvalidReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a trace reference: ")?;
        match self {
            Self::TooLong => write!(f, "longer than {} bytes", TraceReference::MAX_LEN),
            Self::Traceparent(reason) => write!(f, "traceparent ({reason})"),
            Self::MadeAt => f.write_str("the time is no number of milliseconds up to the year 9999"),
            Self::Note => write!(f, "the note is not UTF-8 of {} bytes at most", TraceReference::MAX_NOTE),
            Self::Tracestate(reason) => write!(f, "tracestate ({reason})"),
            Self::NotCanonical => f.write_str("written in another way than references are"),
        }
    }
}

impl std::error::Error for InvalidReference {}
