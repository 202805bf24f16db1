//! The identifiers of traces and spans.

use std::fmt;
use std::str::FromStr;

/// The 16-byte id of a trace, written as 32 hex digits (W3C Trace Context, section 3.2.2.3).
///
/// ```
/// use traced_broker::verify::TraceId;
///
/// let id: TraceId = "4BF92F3577B34DA6A3CE929D0E0E4736".parse()?;
/// assert_eq!(id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
/// assert!(TraceId::new(0).is_zero());
///
/// assert!("4bf92f35".parse::<TraceId>().is_err()); // too short
/// # Ok::<(), traced_broker::verify::InvalidId>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(u128);

/// The 8-byte id of a span within its trace, written as 16 hex digits (W3C Trace Context, section
/// 3.2.2.4).
///
/// ```
/// use traced_broker::verify::SpanId;
///
/// assert_eq!("00f067aa0ba902b7".parse(), Ok(SpanId::new(0x00f0_67aa_0ba9_02b7)));
///
/// let error = "00f067aa0ba902bx".parse::<SpanId>().unwrap_err();
/// assert_eq!(error.to_string(), "an id must be 16 hex digits");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(u64);

/// A reference to a span in any trace, such as the target of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanRef {
    /// The trace the span belongs to.
    pub trace_id: TraceId,
    /// The span within that trace.
    pub span_id: SpanId,
}

/// The error for text that is not the hex form of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidId {
    digits: usize,
}

impl TraceId {
    /// Creates the id with this value, most significant byte first.
    #[must_use]
    pub const fn new(value: u128) -> Self {
        Self(value)
    }

    /// Returns `true` if every byte is zero, which W3C Trace Context and OTLP both define as "no
    /// id".
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl SpanId {
    /// Creates the id with this value, most significant byte first.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// Returns `true` if every byte is zero, which W3C Trace Context and OTLP both define as "no
    /// id".
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl FromStr for TraceId {
    type Err = InvalidId;

    /// Reads exactly 32 hex digits, in either case, as the OTLP specification requires of JSON
    /// readers.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let digits = hex_digits(text, 32)?;
        u128::from_str_radix(digits, 16).map(Self).map_err(|_| InvalidId { digits: 32 })
    }
}

impl FromStr for SpanId {
    type Err = InvalidId;

    /// Reads exactly 16 hex digits, in either case, as the OTLP specification requires of JSON
    /// readers.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let digits = hex_digits(text, 16)?;
        u64::from_str_radix(digits, 16).map(Self).map_err(|_| InvalidId { digits: 16 })
    }
}

/// Returns `text` if it is `digits` hex digits: `from_str_radix` alone would also accept a sign and
/// a shorter text.
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
