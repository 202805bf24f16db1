//! The `tracestate` header: its grammar, limits and normal form.
//!
//! A list of `key=value` members separated by commas, the most recent first. ([Trace Context Level
//! 2, "Tracestate Header"](https://www.w3.org/TR/trace-context-2/#tracestate-header))
//!
//! # Limits
//! At most [`MAX_MEMBERS`] members with keys and values of 1 to 256 bytes, and therefore at most
//! [`MAX_BYTES`] bytes. The specification requires at least 512 characters to be propagated; this
//! codec never truncates a valid list ("tracestate Limits").

use std::borrow::Cow;

use opentelemetry::trace::TraceState;

use super::malformed::Malformed;
use super::octets::{STATE_KEY, STATE_VALUE, all};

/// Maximum number of members of a list ("list"). Empty members do not count, repeated ones do.
///
/// ```
/// use traced_broker::w3c::Malformed;
/// use traced_broker::w3c::tracestate::{MAX_MEMBERS, normalize};
///
/// let members: Vec<String> = (0..=MAX_MEMBERS).map(|at| format!("k{at}=v")).collect();
/// assert!(normalize(members[1..].join(",").as_bytes()).is_ok());
/// let one_more = members.join(",");
/// assert_eq!(normalize(one_more.as_bytes()), Err(Malformed::TooManyMembers));
/// ```
pub const MAX_MEMBERS: usize = 32;

/// Maximum length of a list in bytes: [`MAX_MEMBERS`] members with the longest key and value, and
/// the commas between them.
pub const MAX_BYTES: usize = MAX_MEMBERS * (2 * MAX_PART + "=,".len()) - ",".len();

/// Maximum number of bytes in a key ("Key"), and in a value ("Value").
const MAX_PART: usize = 256;

/// A list in normal form, and the number of members left out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Normalized<'a> {
    /// The list: no white space around members, no empty members, each key once. Empty if there are
    /// no members; then no header must be sent.
    pub text: Cow<'a, str>,
    /// The number of members left out because their key had occurred before.
    pub duplicates: usize,
}

/// Checks a whole header value and brings it into normal form. Several headers must be joined with
/// commas, in order, first ("tracestate Header Field Values").
///
/// White space around members and empty members are removed ("list"). Of members with the same key
/// the first is kept, which is the most recent ("Combined Header Value", "Mutating the tracestate
/// Field"). The order never changes. A value in normal form is borrowed without allocation.
///
/// # Errors
/// One malformed member invalidates the list, because a vendor must not pass on a part of a list
/// that it cannot read: [`Malformed::TooLong`], [`Malformed::Character`] (not UTF-8),
/// [`Malformed::TooManyMembers`], [`Malformed::Member`] (no `=`), [`Malformed::Key`] or
/// [`Malformed::Value`].
///
/// ```
/// use traced_broker::w3c::{Malformed, tracestate::normalize};
///
/// assert_eq!(normalize(b"rojo=1 ,, congo=2,rojo=3")?.text, "rojo=1,congo=2");
/// assert_eq!(normalize(b"rojo=1,Congo=2"), Err(Malformed::Key));
/// # Ok::<(), Malformed>(())
/// ```
pub fn normalize(value: &[u8]) -> Result<Normalized<'_>, Malformed> {
    if value.len() > MAX_BYTES {
        return Err(Malformed::TooLong);
    }
    let text = str::from_utf8(value).map_err(|_| Malformed::Character)?;
    let (mut keys, mut count, mut bytes) = (Keys::new(), 0, 0);
    for member in members(text) {
        let (key, value) = member.split_once('=').ok_or(Malformed::Member)?;
        check(key, value)?;
        count += 1;
        if count > MAX_MEMBERS {
            return Err(Malformed::TooManyMembers);
        }
        if keys.insert(key) {
            bytes += member.len() + ",".len();
        }
    }
    // Everything that normalizing removes is at least one byte long, so equal lengths mean equal
    // texts.
    let text =
        if bytes.saturating_sub(1) == text.len() { Cow::Borrowed(text) } else { Cow::Owned(joined(text, bytes)) };
    Ok(Normalized { text, duplicates: count - keys.len })
}

/// The result of [`encode`]: the list, and the number of members left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncodedTracestate {
    /// The list in normal form. Empty if there are no members; then no header must be sent.
    pub text: String,
    /// The number of members left out: those that the grammar forbids, and those with a repeated
    /// key.
    pub dropped: usize,
}

/// Writes the list from OpenTelemetry's type.
///
/// Its members may come from the application and are not checked by their type, which accepts even
/// line breaks. Members that the grammar forbids are left out.
///
/// ```
/// use opentelemetry::trace::TraceState;
/// use traced_broker::w3c::tracestate::encode;
///
/// let members = [("rojo", "1"), ("congo", "2\r\nadmin: 1")];
/// let state = TraceState::from_key_value(members).expect("the type takes line breaks");
/// let encoded = encode(&state);
/// assert_eq!((encoded.text.as_str(), encoded.dropped), ("rojo=1", 1));
/// ```
pub fn encode(state: &TraceState) -> EncodedTracestate {
    let bytes = state.into_iter().map(|(key, value)| key.len() + value.len() + "=,".len()).sum();
    let mut encoded = EncodedTracestate { text: String::with_capacity(bytes), dropped: 0 };
    let mut keys = Keys::new();
    for (key, value) in state {
        let value = value.trim_end_matches([' ', '\t']);
        if check(key, value).is_err() || !keys.insert(key) {
            encoded.dropped += 1;
            continue;
        }
        if !encoded.text.is_empty() {
            encoded.text.push(',');
        }
        encoded.text.push_str(key);
        encoded.text.push('=');
        encoded.text.push_str(value);
    }
    encoded
}

/// Converts a normal list into OpenTelemetry's type; the flag is `true` if the type could hold all
/// of it.
///
/// The type rejects some keys that Level 2 allows. The members with other keys are still useful,
/// because samplers look for their own members there.
pub(super) fn to_trace_state(text: &str) -> (TraceState, bool) {
    if text.is_empty() {
        return (TraceState::NONE, true);
    }
    if let Ok(state) = text.parse() {
        return (state, true);
    }
    let held = text
        .split(',')
        .filter_map(|member| member.split_once('='))
        .filter(|member| TraceState::from_key_value([*member]).is_ok());
    (TraceState::from_key_value(held).unwrap_or_default(), false)
}

/// Returns the members that are not empty, without the white space around them.
fn members(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty())
}

/// Joins the members of a checked list in normal form; their total length, with one trailing comma,
/// is known beforehand.
fn joined(text: &str, bytes: usize) -> String {
    let mut joined = String::with_capacity(bytes);
    let mut keys = Keys::new();
    for member in members(text) {
        if member.split_once('=').is_some_and(|(key, _)| keys.insert(key)) {
            joined.push_str(member);
            joined.push(',');
        }
    }
    joined.pop();
    joined
}

/// Checks the grammar of a member ("Key", "Value"). Trailing white space must already be removed:
/// it is not part of a value.
fn check(key: &str, value: &str) -> Result<(), Malformed> {
    let starts_well = key.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
    if !starts_well || key.len() > MAX_PART || !all(key.as_bytes(), STATE_KEY) {
        return Err(Malformed::Key);
    }
    if value.is_empty() || value.len() > MAX_PART || !all(value.as_bytes(), STATE_VALUE) {
        return Err(Malformed::Value);
    }
    Ok(())
}

/// The keys of a list, stored without allocation.
struct Keys<'a> {
    keys: [&'a str; MAX_MEMBERS],
    len: usize,
}

impl<'a> Keys<'a> {
    fn new() -> Self {
        Self { keys: [""; MAX_MEMBERS], len: 0 }
    }

    /// Adds a key. Returns `false` if it is already present or there is no room for it.
    fn insert(&mut self, key: &'a str) -> bool {
        if self.len == MAX_MEMBERS || self.keys[..self.len].contains(&key) {
            return false;
        }
        self.keys[self.len] = key;
        self.len += 1;
        true
    }
}
