//! The `baggage` header, to and from OpenTelemetry's [`Baggage`].
//!
//! A list of `key=value;property;property=value` members separated by commas.
//! ([Baggage, "Header Content"](https://www.w3.org/TR/baggage/#header-content))
//!
//! # Percent-encoding
//! Values are decoded when read and encoded when written ("value"). Keys are plain tokens and never
//! encoded ("key"). Properties, which OpenTelemetry calls metadata, have no meaning to this codec
//! ("property"). They stay as they were on the wire, escapes included, so their meaning cannot
//! change on the way. A decoded comma, semicolon, line break or other control character is never
//! written to a header.
//!
//! # Limits
//! [`MAX_MEMBERS`] members and [`MAX_BYTES`] bytes, in both directions. Whole members are dropped
//! until the rest fits, never parts of one ("Limits").

use opentelemetry::baggage::Baggage;

use super::octets::{BAGGAGE_OCTET, PLAIN, TOKEN, all, percent_complete, percent_decode, percent_encode, trim};

/// Maximum number of members read or written ("Limits").
///
/// ```
/// use traced_broker::w3c::baggage::{MAX_MEMBERS, parse};
///
/// let members: Vec<String> = (0..=MAX_MEMBERS).map(|at| format!("k{at}=v")).collect();
/// let parsed = parse(members.join(",").as_bytes());
/// assert_eq!((parsed.baggage.len(), parsed.dropped), (MAX_MEMBERS, 1));
/// ```
pub const MAX_MEMBERS: usize = 64;

/// Maximum number of bytes read or written, commas included ("Limits").
pub const MAX_BYTES: usize = 8192;

/// The result of [`parse`]: the baggage, and the number of members left out.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Parsed {
    /// The members that were kept.
    pub baggage: Baggage,
    /// The number of members left out: malformed ones, those over a limit, and earlier ones with a
    /// repeated key (the last one is kept).
    pub dropped: usize,
}

/// Reads a header value. Several headers must be joined with commas first.
///
/// A malformed member is dropped, the others are kept ("Mutating baggage"). White space around
/// keys, values, properties and members is ignored, and so are empty members and properties.
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

/// The result of [`encode`]: the header value, and the number of members left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncodedBaggage {
    /// The header value. Empty if there are no members; then no header must be sent.
    pub text: String,
    /// The number of members left out because a limit was reached or a key is not a token.
    pub dropped: usize,
}

/// Writes a header value. The members are sorted by key, so that equal baggage gives equal bytes.
///
/// ```
/// use opentelemetry::baggage::Baggage;
/// use traced_broker::w3c::baggage::encode;
///
/// let mut baggage = Baggage::new();
/// baggage.insert("user", "Amélie");
/// baggage.insert("cart", "2;socks");
/// assert_eq!(encode(&baggage).text, "cart=2%3Bsocks,user=Am%C3%A9lie");
///
/// baggage.insert("note", "é".repeat(2000)); // 12,000 bytes when it is encoded
/// let encoded = encode(&baggage);
/// assert_eq!((encoded.text.contains("note"), encoded.dropped), (false, 1));
/// ```
pub fn encode(baggage: &Baggage) -> EncodedBaggage {
    let mut members: Vec<_> =
        baggage.iter().map(|(key, (value, properties))| [key.as_str(), value.as_str(), properties.as_str()]).collect();
    members.sort_unstable();
    write_list(&members)
}

/// A member of the list, with its value decoded and its properties as they are to be written again.
struct Member {
    key: String,
    value: String,
    properties: String,
}

impl Member {
    /// Reads one member; `None` if it violates the grammar ("Definition").
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

/// Reads a key and, if there is a `=`, the value after the first one; `None` if either violates the
/// grammar.
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

/// Writes the members, each with a key, a value and properties. OpenTelemetry's type limits their
/// number and permits only tokens as keys; the output must not depend on that.
fn write_list(members: &[[&str; 3]]) -> EncodedBaggage {
    // Sufficient if no byte needs to be encoded.
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
    EncodedBaggage { dropped: members.len() - kept, text }
}

/// Writes metadata that comes from the application or from a member read before; it may be any
/// text.
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

/// Writes one property. Escapes in it stay; other bytes that the grammar forbids become escapes.
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
