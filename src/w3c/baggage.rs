//! The `baggage` header, to and from OpenTelemetry's [`Baggage`].
//!
//! A list of `key=value;property;property=value` members separated by commas.
//! ([Baggage, "Header Content"](https://www.w3.org/TR/baggage/#header-content))
//!
//! # Percent-encoding
//! Values are decoded when read and encoded when written ("value"). Keys are plain tokens and never encoded
//! ("key"). Properties, which OpenTelemetry calls metadata, have no meaning to this codec ("property"): they stay
//! as they were on the wire, escapes included, so that what they stand for cannot change on the way. No decoded
//! comma, semicolon, line break or other control character ever gets into a header.
//!
//! # Limits
//! [`MAX_MEMBERS`] members and [`MAX_BYTES`] bytes, in both directions. Whole members are dropped until the rest
//! fits, never parts of one ("Limits").

use opentelemetry::baggage::Baggage;

use super::octets::{BAGGAGE_OCTET, PLAIN, TOKEN, all, percent_complete, percent_decode, percent_encode, trim};

/// The most members read or written ("Limits").
pub const MAX_MEMBERS: usize = 64;

/// The most bytes read or written, commas included ("Limits").
pub const MAX_BYTES: usize = 8192;

/// What [`parse`] read, and what it left out.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Parsed {
    /// The members that were kept.
    pub baggage: Baggage,
    /// How many members were left out: malformed ones, those over a limit, and earlier ones whose key comes
    /// again (the last one stays).
    pub dropped: usize,
}

/// Reads a header value. Several headers are to be joined with commas beforehand.
///
/// A bad member is dropped, the others are kept ("Mutating baggage"). White space around keys, values,
/// properties and members, and empty members and properties, are passed over.
///
/// ```
/// use traced_broker::w3c::baggage::parse;
///
/// let parsed = parse(b"user=Am%C3%A9lie;ttl=3, sum=1=1, no good");
/// let (user, properties) = parsed.baggage.get_with_metadata("user").unwrap();
/// assert_eq!((user.as_str(), properties.as_str()), ("Amélie", "ttl=3"));
/// assert_eq!(parsed.baggage.get("sum").unwrap().as_str(), "1=1");
/// assert_eq!(parsed.dropped, 1);
/// ```
pub fn parse(value: &[u8]) -> Parsed {
    let mut baggage = Baggage::new();
    let (mut seen, mut kept, mut bytes) = (0, 0, 0);
    for member in value.split(|byte| *byte == b',').map(trim).filter(|member| !member.is_empty()) {
        seen += 1;
        let with_comma = bytes + member.len() + usize::from(kept > 0);
        if kept == MAX_MEMBERS || with_comma > MAX_BYTES {
            continue;
        }
        if let Some(Member { key, value, properties }) = Member::parse(member) {
            baggage.insert_with_metadata(key, value, properties);
            kept += 1;
            bytes = with_comma;
        }
    }
    Parsed { dropped: seen - baggage.len(), baggage }
}

/// What [`encode`] wrote, and what it left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Encoded {
    /// The header value. Empty when there are no members, and then no header is to be sent.
    pub text: String,
    /// How many members were left out because a limit was reached.
    pub dropped: usize,
}

/// Writes a header value. The members are in the order of their keys, so that equal baggage gives equal bytes.
pub fn encode(baggage: &Baggage) -> Encoded {
    let mut members: Vec<_> =
        baggage.iter().map(|(key, (value, properties))| [key.as_str(), value.as_str(), properties.as_str()]).collect();
    members.sort_unstable();
    write_list(&members)
}

/// A member of the list, its value decoded, its properties as they are to be written again.
struct Member {
    key: String,
    value: String,
    properties: String,
}

impl Member {
    /// Reads one member; nothing when it breaks the grammar ("Definition").
    fn parse(member: &[u8]) -> Option<Self> {
        let mut parts = member.split(|byte| *byte == b';').map(trim);
        let (key, value) = pair(parts.next()?)?;
        let value = percent_decode(value?.as_bytes());
        let mut properties = String::new();
        for property in parts.filter(|property| !property.is_empty()) {
            let (key, value) = pair(property)?;
            if !properties.is_empty() {
                properties.push(';');
            }
            write_property(key, value, &mut properties);
        }
        Some(Self { key: key.to_owned(), value, properties })
    }
}

/// A key and, when there is a `=`, the value after the first one; nothing when either breaks the grammar.
fn pair(text: &[u8]) -> Option<(&str, Option<&str>)> {
    let text = str::from_utf8(text).ok()?;
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key.trim_end_matches(WHITE_SPACE), Some(value.trim_start_matches(WHITE_SPACE))),
        None => (text, None),
    };
    let is_legal = is_key(key) && value.is_none_or(|value| all(value.as_bytes(), BAGGAGE_OCTET));
    is_legal.then_some((key, value))
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && all(key.as_bytes(), TOKEN)
}

/// Writes the members, each a key, a value and properties. OpenTelemetry's type has a limit on their number, and
/// has only tokens as keys; what is sent must not depend on that.
fn write_list(members: &[[&str; 3]]) -> Encoded {
    // Enough when nothing needs to be encoded.
    let bytes = members.iter().flatten().map(|part| part.len() + 1).sum();
    let (mut text, mut kept) = (String::with_capacity(bytes), 0);
    for [key, value, properties] in members {
        let end = text.len();
        if end > 0 {
            text.push(',');
        }
        text.push_str(key);
        text.push('=');
        percent_encode(value, PLAIN, &mut text);
        write_properties(properties, &mut text);
        if is_key(key) && kept < MAX_MEMBERS && text.len() <= MAX_BYTES {
            kept += 1;
        } else {
            text.truncate(end);
        }
    }
    Encoded { dropped: members.len() - kept, text }
}

/// Writes what the application, or a member read before, has as metadata: any text at all.
fn write_properties(properties: &str, out: &mut String) {
    for property in properties.split(';').map(str::trim) {
        let (key, value) = match property.split_once('=') {
            Some((key, value)) => (key.trim_end(), Some(value.trim_start())),
            None => (property, None),
        };
        if !key.is_empty() {
            out.push(';');
            write_property(key, value, out);
        }
    }
}

/// Writes one property. Escapes in it stay, other bytes that the grammar forbids become escapes.
fn write_property(key: &str, value: Option<&str>, out: &mut String) {
    percent_complete(key, TOKEN, out);
    if let Some(value) = value {
        out.push('=');
        percent_complete(value, BAGGAGE_OCTET, out);
    }
}

const WHITE_SPACE: [char; 2] = [' ', '\t'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_members_than_allowed_are_written() {
        let keys: Vec<_> = (0..MAX_MEMBERS + 3).map(|at| format!("k{at:02}")).collect();
        let members: Vec<_> = keys.iter().map(|key| [key, "v", ""]).collect();
        let written = write_list(&members);
        assert_eq!((written.text.split(',').count(), written.dropped), (MAX_MEMBERS, 3));
        assert!(written.text.ends_with(",k63=v"));
    }

    #[test]
    fn a_key_that_is_no_token_is_not_written() {
        for key in ["", "a b", "a\r\nb", "a,b", "a=b", "a;b", "caf\u{e9}"] {
            let written = write_list(&[["a", "1", ""], [key, "2", ""], ["b", "3", ""]]);
            assert_eq!((written.text.as_str(), written.dropped), ("a=1,b=3", 1), "{key:?}");
        }
    }
}
