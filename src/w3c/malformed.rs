//! What was wrong with a header.

use std::fmt;

/// Why a header, or a part of it, was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Malformed {
    /// The `traceparent` is too short, or it is of version `00` and not exactly 55 bytes long.
    Length,
    /// The `traceparent` is of version `ff`, which is forbidden.
    Version,
    /// A dash of the `traceparent` is missing or not in its place.
    Delimiter,
    /// A byte that the header may not hold: not lower-case hexadecimal in a `traceparent`, not UTF-8 in a
    /// `tracestate`.
    Character,
    /// The trace id of the `traceparent` is all zeroes.
    ZeroTraceId,
    /// The span id of the `traceparent` is all zeroes.
    ZeroSpanId,
    /// There are several `traceparent` headers that differ, so none can be trusted.
    Conflicting,
    /// The `tracestate` came without a valid `traceparent`, so it must not be read.
    Orphaned,
    /// The `tracestate` is longer than [`tracestate::MAX_BYTES`](crate::w3c::tracestate::MAX_BYTES).
    TooLong,
    /// The `tracestate` has more than [`tracestate::MAX_MEMBERS`](crate::w3c::tracestate::MAX_MEMBERS) members.
    TooManyMembers,
    /// A member of the `tracestate` is no `key=value` pair.
    Member,
    /// A key in the `tracestate` is empty, too long or holds a forbidden character.
    Key,
    /// A value in the `tracestate` is empty, too long or holds a forbidden character.
    Value,
}

impl Malformed {
    /// A short, stable name of the reason in `snake_case`, fit for a metric attribute.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Version => "version",
            Self::Delimiter => "delimiter",
            Self::Character => "character",
            Self::ZeroTraceId => "zero_trace_id",
            Self::ZeroSpanId => "zero_span_id",
            Self::Conflicting => "conflicting",
            Self::Orphaned => "orphaned",
            Self::TooLong => "too_long",
            Self::TooManyMembers => "too_many_members",
            Self::Member => "member",
            Self::Key => "key",
            Self::Value => "value",
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Malformed {}

/// What reading or writing the headers had to leave out. Empty when nothing was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Issues {
    /// Why there is no remote parent although a `traceparent` was there.
    pub traceparent: Option<Malformed>,
    /// Why the whole `tracestate` was left out although one was there.
    pub tracestate: Option<Malformed>,
    /// How many members of an otherwise kept `tracestate` were left out: repeated keys when reading; repeated
    /// keys and members that may not be sent when writing.
    pub tracestate_dropped: usize,
    /// How many members of the `baggage` were left out: malformed ones, those over a limit, and earlier
    /// ones whose key comes again.
    pub baggage_dropped: usize,
}

impl Issues {
    /// Whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
