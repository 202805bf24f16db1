//! A reference to a span, stored with work that is done later, to link its trace to the request.

use crate::names::header;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::invalid::InvalidReference;
use crate::broker::Delivery;
use crate::context::ambient;
use crate::context::w3c::{self, TraceParent, tracestate};
use crate::message::Received;

/// A reference to a span, to store with a job, a row or a task that is processed later: the span,
/// the time when the reference was made, and a note.
///
/// It is made when work is *requested* and read when the work is *done*, perhaps by another program
/// after a restart. The [`Job`](super::Job) that does the work links to it.
///
/// # As text
/// [`Display`](fmt::Display) and [`FromStr`] write and read one line of printable ASCII, at most
/// [`MAX_LEN`](Self::MAX_LEN) bytes long, or 69 bytes without note and tracestate, so that it fits
/// a database column or an argument:
///
/// ```text
/// traceparent ; milliseconds since the Unix epoch [ ; note, percent-encoded [ ; tracestate ] ]
/// ```
///
/// There is only one way to write a reference, and only that is read, so equal references are equal
/// strings. As JSON, with `serde`, it is an object with `traceparent`, `made_at_ms` and, if
/// present, `note` and `tracestate`.
///
/// ```
/// use traced_broker::TraceReference;
/// use traced_broker::job::InvalidReference;
///
/// let column = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01;1795368288498;by%20Ada";
/// let reference: TraceReference = column.parse()?;
/// assert_eq!(reference.note(), Some("by Ada"));
/// assert_eq!(reference.to_string(), column);
///
/// let json = serde_json::to_string(&reference).expect("JSON");
/// assert_eq!(serde_json::from_str::<TraceReference>(&json).expect("a reference"), reference);
///
/// let error = "yesterday".parse::<TraceReference>().unwrap_err();
/// assert!(matches!(error, InvalidReference::Traceparent(_)));
/// # Ok::<(), InvalidReference>(())
/// ```
///
/// # Omissions
/// Baggage is not included, because it is the application's data and may be private. The end of a
/// note or tracestate that is too long is cut.
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
    /// Maximum length of a note, in bytes of UTF-8.
    pub const MAX_NOTE: usize = 128;

    /// Maximum length of the tracestate that is kept, in bytes: the minimum that the specification
    /// requires. ([Trace Context Level 2, "tracestate
    /// Limits"](https://www.w3.org/TR/trace-context-2/#tracestate-limits))
    pub const MAX_TRACESTATE: usize = 512;

    /// Maximum length of a reference as text, in bytes.
    pub const MAX_LEN: usize =
        TraceParent::LEN + MILLISECOND_DIGITS + 3 * Self::MAX_NOTE + Self::MAX_TRACESTATE + ";;;".len();

    /// Creates a reference to the current span; `None` if there is none.
    ///
    /// Inside a handler, this is the process span; inside a job, the job's span.
    ///
    /// ```
    /// use traced_broker::TraceReference;
    ///
    /// assert_eq!(TraceReference::current(), None); // outside of every span
    /// ```
    pub fn current() -> Option<Self> {
        Self::of_context(&ambient::current())
    }

    /// Creates a reference to the span of this context; `None` if it has none.
    pub fn of_context(context: &Context) -> Option<Self> {
        let (mut parent, mut state) = (None, String::new());
        w3c::encode_context(context, |name, value| match name {
            header::TRACEPARENT => parent = TraceParent::parse(value).ok(),
            header::TRACESTATE => state = shortened(str::from_utf8(value).unwrap_or_default()),
            _ => {}
        });
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let made_at = u64::try_from(now).unwrap_or(u64::MAX).min(MAX_MILLISECONDS);
        Some(Self { parent: parent?, made_at, note: None, tracestate: state })
    }

    /// Creates a reference to the span that created this message; `None` if the message has no
    /// valid context.
    ///
    /// For code that stores a message without a process span; inside one,
    /// [`current`](Self::current) is closer. On a subscription with a [trust
    /// boundary](crate::Subscription::trust_boundary), it holds only what the boundary admits.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::StreamExt;
    /// use traced_broker::{Message, Subscription, TraceReference, TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let mut orders = broker.subscribe(Subscription::new("orders").group("intake")).await?;
    /// let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// broker.forward("orders", Message::new("shoes").header("traceparent", traceparent)).await?;
    ///
    /// let delivery = orders.next().await.expect("the broker is open")?;
    /// let column = TraceReference::of_received(delivery.message()).expect("traced").to_string();
    /// assert!(column.starts_with(traceparent));
    /// delivery.ack().await?;
    /// # Ok(()) }
    /// ```
    pub fn of_received(message: &Received) -> Option<Self> {
        Self::of_context(&message.origin().context)
    }

    /// Creates a reference to the span that created this delivery's message, like
    /// [`of_received`](Self::of_received).
    pub fn of_delivery(delivery: &Delivery) -> Option<Self> {
        Self::of_received(delivery.message())
    }

    /// Adds a note for people, such as the requester and the reason. A note longer than
    /// [`MAX_NOTE`](Self::MAX_NOTE) is cut; an empty note is no note.
    ///
    /// ```
    /// use traced_broker::TraceReference;
    ///
    /// # let column = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01;1795368288498";
    /// let reference: TraceReference = column.parse()?;
    /// let reference = reference.with_note("asked by Ada");
    /// assert!(reference.to_string().ends_with(";asked%20by%20Ada"));
    /// # Ok::<(), traced_broker::job::InvalidReference>(())
    /// ```
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        let mut note = note.into();
        let fitting = |end: &usize| note.is_char_boundary(*end);
        note.truncate((0..=Self::MAX_NOTE.min(note.len())).rev().find(fitting).unwrap_or_default());
        self.note = Some(note).filter(|note| !note.is_empty());
        self
    }

    /// Returns the trace id, the span id and the flags.
    pub fn traceparent(&self) -> TraceParent {
        self.parent
    }

    /// Returns the tracestate in the form of the header, if there is any.
    pub fn tracestate(&self) -> Option<&str> {
        Some(&*self.tracestate).filter(|state| !state.is_empty())
    }

    /// Returns the time when the reference was made, by the clock of its maker, to the millisecond.
    pub fn made_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.made_at)
    }

    /// Returns the time since the reference was made, by the two clocks; never negative.
    pub fn age(&self) -> Duration {
        SystemTime::now().duration_since(self.made_at()).unwrap_or_default()
    }

    /// Returns the note, if there is one.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Returns the span as a remote one on an empty context, to continue its trace.
    pub fn context(&self) -> Context {
        let state = Some(self.tracestate.as_bytes());
        w3c::decode(Some(&self.parent.encode()), state, None, &Context::new()).context
    }

    /// Returns the span as a remote one, to link to it.
    pub fn span_context(&self) -> SpanContext {
        self.context().span().span_context().clone()
    }
}

/// Writes one line of printable ASCII; see the type.
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

/// Reads exactly the form that [`Display`](fmt::Display) writes.
impl FromStr for TraceReference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if text.len() > Self::MAX_LEN {
            return Err(InvalidReference::TooLong);
        }
        // The tracestate comes last, because it may contain semicolons.
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

/// The fields of a reference as in JSON, unchecked.
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

/// The ASCII characters that are percent-encoded in a note, as are all others outside ASCII.
const IN_NOTE: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b';');

/// Maximum length of a member that is kept when a list is shortened ("tracestate Limits").
const MAX_MEMBER: usize = 128;

/// Shortens a list in normal form to the limit. Removes whole members, large ones first and then
/// from the end, as the specification says ("tracestate Limits").
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
