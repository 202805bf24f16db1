//! The `traceparent` header.

use std::fmt;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use super::malformed::Malformed;

/// A valid `traceparent`: the ids of the trace and of the parent span, and the flags.
///
/// Never contains a zero id, nor a flag other than [`SAMPLED`](Self::SAMPLED) and
/// [`RANDOM`](Self::RANDOM). ([Trace Context Level 2, "Traceparent
/// Header"](https://www.w3.org/TR/trace-context-2/#traceparent-header))
///
/// ```
/// use traced_broker::w3c::{Malformed, TraceParent};
///
/// let text = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let parent = TraceParent::parse(text)?;
/// assert!(parent.is_sampled());
/// assert_eq!(&parent.encode(), text);
///
/// let upper_case = b"00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01";
/// assert_eq!(TraceParent::parse(upper_case), Err(Malformed::Character));
/// # Ok::<(), Malformed>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: TraceId,
    span_id: SpanId,
    flags: TraceFlags,
}

impl TraceParent {
    /// The length in bytes of the output of [`encode`](Self::encode), and of every valid version
    /// `00` header.
    pub const LEN: usize = 55;

    /// The flag of a caller that may have recorded the trace ("Sampled flag").
    pub const SAMPLED: TraceFlags = TraceFlags::SAMPLED;

    /// The flag of a trace id whose last 7 bytes are random ("Random trace-id flag", new in Level
    /// 2).
    pub const RANDOM: TraceFlags = TraceFlags::new(0x02);

    /// Creates a parent from its parts. Flags other than [`SAMPLED`](Self::SAMPLED) and
    /// [`RANDOM`](Self::RANDOM) are cleared, as the section "Other Flags" requires.
    ///
    /// ```
    /// use opentelemetry::trace::{SpanId, TraceFlags, TraceId};
    /// use traced_broker::w3c::{Malformed, TraceParent};
    ///
    /// let trace_id = TraceId::from(0x4bf92f3577b34da6a3ce929d0e0e4736);
    /// let span_id = SpanId::from(0x00f067aa0ba902b7);
    /// let parent = TraceParent::new(trace_id, span_id, TraceFlags::new(0xff))?;
    /// assert_eq!(parent.flags(), TraceParent::SAMPLED | TraceParent::RANDOM);
    ///
    /// let zero = TraceParent::new(trace_id, SpanId::INVALID, TraceFlags::SAMPLED);
    /// assert_eq!(zero, Err(Malformed::ZeroSpanId));
    /// # Ok::<(), Malformed>(())
    /// ```
    ///
    /// # Errors
    /// [`Malformed::ZeroTraceId`] or [`Malformed::ZeroSpanId`] if that id is all zeroes.
    pub fn new(trace_id: TraceId, span_id: SpanId, flags: TraceFlags) -> Result<Self, Malformed> {
        if trace_id == TraceId::INVALID {
            return Err(Malformed::ZeroTraceId);
        }
        if span_id == SpanId::INVALID {
            return Err(Malformed::ZeroSpanId);
        }
        let flags = flags & (Self::SAMPLED | Self::RANDOM);
        Ok(Self { trace_id, span_id, flags })
    }

    /// Reads a header value, without white space around it. Never allocates.
    ///
    /// Version `00` has exactly 55 bytes. For a higher version, the first 55 bytes are read, and
    /// must be followed by the end or a dash ("Versioning of traceparent").
    ///
    /// ```
    /// use traced_broker::w3c::{Malformed, TraceParent};
    ///
    /// let future = b"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
    /// assert!(TraceParent::parse(future)?.is_sampled());
    ///
    /// let parse = |value: &str| TraceParent::parse(value.as_bytes()).unwrap_err();
    /// assert_eq!(parse("00-4bf92f35-00f067aa-01"), Malformed::Length);
    /// let zeroes = format!("00-{:032}-00f067aa0ba902b7-01", 0);
    /// assert_eq!(parse(&zeroes), Malformed::ZeroTraceId);
    /// let forbidden = "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// assert_eq!(parse(forbidden), Malformed::Version);
    /// # Ok::<(), Malformed>(())
    /// ```
    ///
    /// # Errors
    /// [`Malformed::Length`], [`Malformed::Delimiter`], [`Malformed::Character`],
    /// [`Malformed::Version`], [`Malformed::ZeroTraceId`] or [`Malformed::ZeroSpanId`], depending
    /// on the defect. The trace must then be restarted.
    pub fn parse(value: &[u8]) -> Result<Self, Malformed> {
        let (head, rest) = value.split_first_chunk::<{ Self::LEN }>().ok_or(Malformed::Length)?;
        if head[2] != b'-' || head[35] != b'-' || head[52] != b'-' {
            return Err(Malformed::Delimiter);
        }
        match decode_hex::<1>(&head[..2])? {
            [0xff] => return Err(Malformed::Version),
            [0x00] if !rest.is_empty() => return Err(Malformed::Length),
            _ if rest.first().is_some_and(|next| *next != b'-') => {
                return Err(Malformed::Delimiter);
            }
            _ => {}
        }
        let trace_id = TraceId::from_bytes(decode_hex(&head[3..35])?);
        let span_id = SpanId::from_bytes(decode_hex(&head[36..52])?);
        let [flags] = decode_hex(&head[53..])?;
        Self::new(trace_id, span_id, TraceFlags::new(flags))
    }

    /// Writes the header value, in version `00`. Never allocates.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut value = [b'-'; Self::LEN];
        encode_hex(&[0x00], &mut value[..2]);
        encode_hex(&self.trace_id.to_bytes(), &mut value[3..35]);
        encode_hex(&self.span_id.to_bytes(), &mut value[36..52]);
        encode_hex(&[self.flags.to_u8()], &mut value[53..]);
        value
    }

    /// Creates the parent from the context of a span.
    ///
    /// ```
    /// use opentelemetry::trace::{SpanContext, TraceState};
    /// use traced_broker::w3c::{Malformed, TraceParent};
    ///
    /// let text = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// let span = TraceParent::parse(text)?.to_span_context(TraceState::NONE);
    /// assert!(span.is_remote());
    /// assert_eq!(TraceParent::from_span_context(&span)?.to_string().as_bytes(), text);
    /// assert!(TraceParent::from_span_context(&SpanContext::NONE).is_err());
    /// # Ok::<(), Malformed>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`new`](Self::new), if the context is not valid.
    pub fn from_span_context(span: &SpanContext) -> Result<Self, Malformed> {
        Self::new(span.trace_id(), span.span_id(), span.trace_flags())
    }

    /// Returns the OpenTelemetry form of this parent: a remote span context with the given trace
    /// state.
    pub fn to_span_context(self, trace_state: TraceState) -> SpanContext {
        SpanContext::new(self.trace_id, self.span_id, self.flags, true, trace_state)
    }

    /// Returns the trace id.
    pub fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// Returns the id of the parent span ("parent-id").
    pub fn span_id(&self) -> SpanId {
        self.span_id
    }

    /// Returns the flags, which are at most [`SAMPLED`](Self::SAMPLED) and
    /// [`RANDOM`](Self::RANDOM).
    pub fn flags(&self) -> TraceFlags {
        self.flags
    }

    /// Returns `true` if the caller may have recorded the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags.is_sampled()
    }

    /// Returns `true` if the last 7 bytes of the trace id are known to be random.
    pub fn is_random(&self) -> bool {
        self.flags & Self::RANDOM == Self::RANDOM
    }

    /// Returns the same parent with the random flag set.
    pub(super) fn with_random(self) -> Self {
        Self { flags: self.flags | Self::RANDOM, ..self }
    }
}

/// Writes the header value.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The value of each byte as a lower-case hexadecimal digit; `NO_DIGIT` for every other byte.
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        digits[HEX[value] as usize] = value as u8;
        value += 1;
    }
    digits
};

const NO_DIGIT: u8 = 0xff;

/// Reads `2 * N` digits. They are checked together at the end: one branch instead of one per digit.
fn decode_hex<const N: usize>(digits: &[u8]) -> Result<[u8; N], Malformed> {
    let mut bytes = [0; N];
    let mut seen = 0;
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let (high, low) = (DIGITS[usize::from(pair[0])], DIGITS[usize::from(pair[1])]);
        seen |= high | low;
        *byte = high << 4 | low;
    }
    if seen == NO_DIGIT { Err(Malformed::Character) } else { Ok(bytes) }
}

/// The two lower-case digits of every byte.
const PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [HEX[byte >> 4], HEX[byte & 0x0f]];
        byte += 1;
    }
    pairs
};

fn encode_hex(bytes: &[u8], digits: &mut [u8]) {
    for (byte, pair) in bytes.iter().zip(digits.chunks_exact_mut(2)) {
        pair.copy_from_slice(&PAIRS[usize::from(*byte)]);
    }
}
