//! The reasons for which a header is rejected.

use std::fmt;

/// The reason for rejecting a header or a part of it.
///
/// ```
/// use traced_broker::w3c::{Malformed, TraceParent, tracestate};
///
/// let refused = TraceParent::parse(b"").unwrap_err();
/// assert_eq!(refused.as_str(), "length");
/// assert_eq!(tracestate::normalize(b"vendor"), Err(Malformed::Member));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Malformed {
    /// The `traceparent` is too short, or it is of version `00` and not exactly 55 bytes long.
    Length,
    /// The `traceparent` is of version `ff`, which is forbidden.
    Version,
    /// A dash of the `traceparent` is missing or misplaced.
    Delimiter,
    /// A byte is not permitted in the header: not lower-case hexadecimal in a `traceparent`, not
    /// UTF-8 in a `tracestate`.
    Character,
    /// The trace id of the `traceparent` is all zeroes.
    ZeroTraceId,
    /// The span id of the `traceparent` is all zeroes.
    ZeroSpanId,
    /// Several `traceparent` headers differ, so none can be trusted.
    Conflicting,
    /// The `tracestate` came without a valid `traceparent`, so it must not be read.
    Orphaned,
    /// The `tracestate` is longer than
    /// [`tracestate::MAX_BYTES`](crate::w3c::tracestate::MAX_BYTES).
    TooLong,
    /// The `tracestate` has more than
    /// [`tracestate::MAX_MEMBERS`](crate::w3c::tracestate::MAX_MEMBERS) members.
    TooManyMembers,
    /// A member of the `tracestate` is not a `key=value` pair.
    Member,
    /// A key in the `tracestate` is empty, too long, or contains a forbidden character.
    Key,
    /// A value in the `tracestate` is empty, too long, or contains a forbidden character.
    Value,
}

impl Malformed {
    /// Returns a short, stable name of the reason in `snake_case`, suitable as a metric attribute.
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

/// The headers and members that were left out when reading or writing. Empty if there were none.
///
/// ```
/// use opentelemetry::Context;
/// use traced_broker::w3c::{self, Malformed};
///
/// let read = w3c::decode(Some(b"00-?"), Some(b"vendor=1"), Some(b"a=1,b"), &Context::new());
/// assert_eq!(read.issues.traceparent, Some(Malformed::Length));
/// assert_eq!(read.issues.tracestate, Some(Malformed::Orphaned)); // without a parent
/// assert_eq!(read.issues.baggage_dropped, 1); // `b` has no value
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Issues {
    /// The reason for the missing remote parent, if a `traceparent` was present.
    pub traceparent: Option<Malformed>,
    /// The reason for leaving out the whole `tracestate`, if one was present.
    pub tracestate: Option<Malformed>,
    /// The number of members left out of a `tracestate` that was otherwise kept: repeated keys when
    /// reading; repeated keys and invalid members when writing.
    pub tracestate_dropped: usize,
    /// The number of members left out of the `baggage`: malformed ones, those over a limit, and
    /// earlier ones with a repeated key.
    pub baggage_dropped: usize,
}

impl Issues {
    /// Returns `true` if no header or member was left out.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
