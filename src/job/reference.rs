//! What to keep with work that is done later, so that its trace is tied to who asked for it.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::invalid::InvalidReference;
use crate::ambient;
use crate::delivery::Delivery;
use crate::received::Received;
use crate::w3c::{self, TraceParent, tracestate};

/// A reference to a span, to store beside a job, a row or a task that is worked on later: which span it was, when the
/// reference was made, and a note.
///
/// It is made where work is *asked for* and read where the work is *done*, which may be another program after a restart. The
/// [`Job`](super::Job) that does the work links to it.
///
/// # As text
/// [`Display`](fmt::Display) and [`FromStr`] write and read one line of printable ASCII, at most [`MAX_LEN`](Self::MAX_LEN)
/// bytes long and 69 where there is neither note nor tracestate, so that it fits a database column or an argument:
///
/// ```text
/// traceparent ; milliseconds since the Unix epoch [ ; note, percent-encoded [ ; tracestate ] ]
/// ```
///
/// There is one way to write a reference, and no other is read: equal references are equal strings. As JSON, by `serde`, it is
/// an object with `traceparent`, `made_at_ms` and, where there are any, `note` and `tracestate`.
///
/// ```
/// use traced_broker::TraceReference;
///
/// let column = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01;1795368288498;asked%20by%20Ada";
/// let reference: TraceReference = column.parse()?;
/// assert_eq!(reference.note(), Some("asked by Ada"));
/// assert_eq!(reference.to_string(), column);
/// # Ok::<(), traced_broker::job::InvalidReference>(())
/// ```
///
/// # What it leaves out
/// Baggage, which is the application's data and may be private. The end of a note or tracestate that is too long.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct TraceReference {
    parent: TraceParent,
    /// Milliseconds since the Unix epoch.
    made_at: u64,
    note: Option<String>,
    /// In normal form; empty when there is none.
    tracestate: String,
}

impl TraceReference {
    /// The most bytes that a note may have, in UTF-8.
    pub const MAX_NOTE: usize = 128;

    /// The most bytes of the tracestate that are kept, as many as have to be by the specification.
    /// ([Trace Context Level 2, "tracestate Limits"](https://www.w3.org/TR/trace-context-2/#tracestate-limits))
    pub const MAX_TRACESTATE: usize = 512;

    /// The most bytes of a reference as text.
    pub const MAX_LEN: usize =
        TraceParent::LEN + MILLISECOND_DIGITS + 3 * Self::MAX_NOTE + Self::MAX_TRACESTATE + ";;;".len();

    /// A reference to the span that is current; `None` where none is.
    ///
    /// Inside a handler that is the process span, inside a job the job's.
    pub fn current() -> Option<Self> {
        Self::of_context(&ambient::current())
    }

    /// A reference to the span of this context; `None` if it has none.
    pub fn of_context(context: &Context) -> Option<Self> {
        let (mut parent, mut state) = (None, String::new());
        w3c::encode_context(context, |name, value| match name {
            w3c::TRACEPARENT => parent = TraceParent::parse(value).ok(),
            w3c::TRACESTATE => state = shortened(str::from_utf8(value).unwrap_or_default()),
            _ => {}
        });
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let made_at = u64::try_from(now).unwrap_or(u64::MAX).min(MAX_MILLISECONDS);
        Some(Self { parent: parent?, made_at, note: None, tracestate: state })
    }

    /// A reference to the span that created this message; `None` if it came without a valid context.
    ///
    /// For who puts a message aside without a process span; within one, [`current`](Self::current) is closer. Of a subscription
    /// with a [trust boundary](crate::Subscription::trust_boundary) it holds what the boundary admits.
    pub fn of_received(message: &Received) -> Option<Self> {
        Self::of_context(&message.origin().context)
    }

    /// A reference to the span that created this delivery's message, as [`of_received`](Self::of_received).
    pub fn of_delivery(delivery: &Delivery) -> Option<Self> {
        Self::of_received(delivery.message())
    }

    /// Adds a note for people, such as who asked and why; one beyond [`MAX_NOTE`](Self::MAX_NOTE) is cut, an empty one is none.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        let mut note = note.into();
        let fitting = |end: &usize| note.is_char_boundary(*end);
        note.truncate((0..=Self::MAX_NOTE.min(note.len())).rev().find(fitting).unwrap_or_default());
        self.note = Some(note).filter(|note| !note.is_empty());
        self
    }

    /// Which span of which trace, with its flags.
    pub fn traceparent(&self) -> TraceParent {
        self.parent
    }

    /// The tracing systems' own data in the form of the header, if there is any.
    pub fn tracestate(&self) -> Option<&str> {
        Some(&*self.tracestate).filter(|state| !state.is_empty())
    }

    /// When the reference was made, by the clock of who made it, to the millisecond.
    pub fn made_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.made_at)
    }

    /// How long ago the reference was made, by two clocks; never negative.
    pub fn age(&self) -> Duration {
        SystemTime::now().duration_since(self.made_at()).unwrap_or_default()
    }

    /// The note, if there is one.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The context of the span, as a remote one on an empty context: to continue its trace.
    pub fn context(&self) -> Context {
        let state = Some(self.tracestate.as_bytes());
        w3c::decode(Some(&self.parent.encode()), state, None, &Context::new()).context
    }

    /// The span, as a remote one: to link to it.
    pub fn span_context(&self) -> SpanContext {
        self.context().span().span_context().clone()
    }
}

/// One line of printable ASCII; see the type.
impl fmt::Display for TraceReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};{}", self.parent, self.made_at)?;
        if self.note.is_some() || !self.tracestate.is_empty() {
            let note = self.note.as_deref().unwrap_or_default();
            write!(f, ";{}", utf8_percent_encode(note, IN_NOTE))?;
        }
        if self.tracestate.is_empty() { Ok(()) } else { write!(f, ";{}", self.tracestate) }
    }
}

/// Reads what [`Display`](fmt::Display) writes, and nothing else.
impl FromStr for TraceReference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if text.len() > Self::MAX_LEN {
            return Err(InvalidReference::TooLong);
        }
        // The tracestate comes last, since it may hold semicolons itself.
        let mut fields = text.splitn(4, ';');
        let traceparent = fields.next().unwrap_or_default().to_owned();
        let made_at_ms = fields.next().and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX);
        let note = fields.next().filter(|note| !note.is_empty()).map(|note| percent_decode_str(note).decode_utf8());
        let note = note.transpose().map_err(|_| InvalidReference::Note)?.map(String::from);
        let tracestate = fields.next().map(str::to_owned);
        let reference = Self::try_from(Parts { traceparent, made_at_ms, note, tracestate })?;
        if reference.to_string() == text { Ok(reference) } else { Err(InvalidReference::NotCanonical) }
    }
}

/// A reference field by field, as JSON has it; unchecked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    traceparent: String,
    made_at_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tracestate: Option<String>,
}

impl TryFrom<Parts> for TraceReference {
    type Error = InvalidReference;

    fn try_from(parts: Parts) -> Result<Self, InvalidReference> {
        let Parts { traceparent, made_at_ms: made_at, note, tracestate: state } = parts;
        let parent = TraceParent::parse(traceparent.as_bytes()).map_err(InvalidReference::Traceparent)?;
        if made_at > MAX_MILLISECONDS {
            return Err(InvalidReference::MadeAt);
        }
        if note.as_ref().is_some_and(|note| note.len() > Self::MAX_NOTE) {
            return Err(InvalidReference::Note);
        }
        let state = state.unwrap_or_default();
        let normal = tracestate::normalize(state.as_bytes()).map_err(InvalidReference::Tracestate)?;
        if normal.text.len() > Self::MAX_TRACESTATE {
            return Err(InvalidReference::Tracestate(w3c::Malformed::TooLong));
        }
        let is_canonical = normal.text == state && parent.to_string() == traceparent;
        if !is_canonical || note.as_deref() == Some("") {
            return Err(InvalidReference::NotCanonical);
        }
        Ok(Self { parent, made_at, note, tracestate: state })
    }
}

impl From<TraceReference> for Parts {
    fn from(reference: TraceReference) -> Self {
        Self {
            traceparent: reference.parent.to_string(),
            made_at_ms: reference.made_at,
            tracestate: reference.tracestate().map(str::to_owned),
            note: reference.note,
        }
    }
}

/// The end of the year 9999.
const MAX_MILLISECONDS: u64 = 253_402_300_799_999;
const MILLISECOND_DIGITS: usize = 15;

/// What is written in percent in a note, besides all that is not ASCII.
const IN_NOTE: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b';');

/// The longest member that stays when a list has to be shortened ("tracestate Limits").
const MAX_MEMBER: usize = 128;

/// A list in normal form without what is beyond the limit: whole members, large ones first and then from the end, as the
/// specification has it ("tracestate Limits").
fn shortened(list: &str) -> String {
    if list.len() <= TraceReference::MAX_TRACESTATE {
        return list.to_owned();
    }
    let mut kept = String::new();
    for member in list.split(',').filter(|member| member.len() <= MAX_MEMBER) {
        if kept.len() + ",".len() + member.len() > TraceReference::MAX_TRACESTATE {
            break;
        }
        if !kept.is_empty() {
            kept.push(',');
        }
        kept.push_str(member);
    }
    kept
}
