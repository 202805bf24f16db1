//! The identifiers of traces and spans.

use std::fmt;
use std::str::FromStr;

/// Sixteen bytes that name a trace, written as 32 hex digits (W3C Trace Context, section 3.2.2.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(u128);

/// Eight bytes that name a span within its trace, written as 16 hex digits (W3C Trace Context,
/// section 3.2.2.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(u64);

/// A span named from anywhere: what a link points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanRef {
    /// The trace the span belongs to.
    pub trace_id: TraceId,
    /// The span within that trace.
    pub span_id: SpanId,
}

/// A text that is not the hex form of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidId {
    digits: usize,
}

impl TraceId {
    /// The id with this value, most significant byte first.
    #[must_use]
    pub const fn new(value: u128) -> Self {
        Self(value)
    }

    /// Whether every byte is zero, which W3C Trace Context and OTLP both define as "no id".
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl SpanId {
    /// The id with this value, most significant byte first.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// Whether every byte is zero, which W3C Trace Context and OTLP both define as "no id".
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl FromStr for TraceId {
    type Err = InvalidId;

    /// Reads exactly 32 hex digits; either case, as the OTLP specification asks of JSON readers.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let digits = hex_digits(text, 32)?;
        u128::from_str_radix(digits, 16).map(Self).map_err(|_| InvalidId { digits: 32 })
    }
}

impl FromStr for SpanId {
    type Err = InvalidId;

    /// Reads exactly 16 hex digits; either case, as the OTLP specification asks of JSON readers.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let digits = hex_digits(text, 16)?;
        u64::from_str_radix(digits, 16).map(Self).map_err(|_| InvalidId { digits: 16 })
    }
}

/// `text` when it is `digits` hex digits: `from_str_radix` alone would also take a sign and a
/// shorter text.
fn hex_digits(text: &str, digits: usize) -> Result<&str, InvalidId> {
    if text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text)
    } else {
        Err(InvalidId { digits })
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an id must be {} hex digits", self.digits)
    }
}

impl std::error::Error for InvalidId {}
