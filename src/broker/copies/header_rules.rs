//! The rules for the headers of copies: those that stay behind, and names and values at the target.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::driver::capability::HeaderValues;
use crate::headers::Headers;
use crate::names::header;

/// The header names that have a meaning to a broker or to this library's mapping onto it. A target
/// may refuse or drop them.
pub const RESERVED: [&str; 17] = [
    "bcc",
    "cc",
    "delay-0",
    "delay-1",
    "delay-2",
    "delay-3",
    "delay-4",
    "delay-5",
    "delay-6",
    "delayed-for",
    "delayed-message-id",
    "message-key",
    "message-key-base64",
    "prior-attempts",
    "prior-deliveries",
    "publish-number",
    "retry-routing-key",
];

/// The headers about a single hop, and the commands to a server, which a source must not give to
/// the target's server. A name that ends in `-` is a prefix.
const OF_ONE_HOP: [&str; 6] =
    ["nats-", "timestamp_in_ms", "x-death", "x-delivery-count", "x-first-death-", "x-last-death-"];

/// The trace headers, which are read and written anew when the message is forwarded. A malformed
/// one must be seen there, not be missing.
const TRACE: [&str; 3] = [header::TRACEPARENT, header::TRACESTATE, header::BAGGAGE];

/// Maximum length of a name: AMQP's limit, the lowest of the brokers.
const MAX_NAME: usize = 255;

/// The numbers of headers that did not cross unchanged; encoded ones count as renamed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct HeaderCounts {
    pub(crate) dropped: u64,
    pub(crate) renamed: u64,
}

/// Returns the headers for a target of another system with such header values, or beyond a bridge,
/// and the numbers of changes.
pub(crate) fn cross(headers: &Headers, target: HeaderValues) -> (Headers, HeaderCounts) {
    let mut crossed = Headers::with_capacity(headers.len(), headers.byte_len());
    let mut counts = HeaderCounts::default();
    for (name, value) in headers.iter() {
        if is_trace(name) {
            crossed.append(name, value);
            continue;
        }
        if is_of_one_hop(name) {
            continue;
        }
        let Some(as_named) = portable_name(name, target) else {
            counts.dropped += 1;
            continue;
        };
        let is_bad = |character: char| character.is_control() && character != '\t';
        let plain = if target == HeaderValues::Bytes { Some(value) } else { plain_value(value, is_bad) };
        match plain {
            Some(value) => {
                counts.renamed += u64::from(as_named != name);
                crossed.append(&as_named, value);
            }
            None => {
                counts.renamed += 1;
                append_encoded(&mut crossed, &as_named, value);
            }
        }
    }
    (crossed, counts)
}

fn is_of_one_hop(name: &str) -> bool {
    OF_ONE_HOP.iter().any(|of_one_hop| {
        let lead = name.get(..of_one_hop.len()).is_some_and(|lead| lead.eq_ignore_ascii_case(of_one_hop));
        lead && (of_one_hop.ends_with('-') || name.len() == of_one_hop.len())
    })
}

fn portable_name(name: &str, target: HeaderValues) -> Option<Cow<'_, str>> {
    if name.is_empty() {
        return None;
    }
    let name = if RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
        Cow::Owned([header::BRIDGE_RENAMED, name].concat())
    } else {
        carried_name(name, target)
    };
    (name.len() <= MAX_NAME).then_some(name)
}

/// Returns the name with `-` in place of characters that the target does not carry.
fn carried_name(name: &str, target: HeaderValues) -> Cow<'_, str> {
    let fits = |character: char| match target {
        HeaderValues::Text => character.is_ascii_graphic() && character != ':',
        HeaderValues::Bytes => character != '\0',
    };
    if name.is_empty() {
        Cow::Borrowed("-")
    } else if name.chars().all(fits) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(name.chars().map(|character| if fits(character) { character } else { '-' }).collect())
    }
}

/// Returns the value without surrounding white space if it is text without these characters.
fn plain_value(value: &[u8], is_bad: impl Fn(char) -> bool) -> Option<&[u8]> {
    let text = std::str::from_utf8(value).ok()?.trim();
    (!text.contains(is_bad)).then_some(text.as_bytes())
}

/// Adds a header whose value cannot be carried as it is: percent-encoded, under a name that says
/// so.
fn append_encoded(headers: &mut Headers, name: &str, value: &[u8]) {
    let mut encoded = String::with_capacity(value.len() * 3);
    for byte in value {
        if byte.is_ascii_graphic() && *byte != b'%' {
            encoded.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    headers.append(&[header::ENCODED, name].concat(), encoded);
}

/// Changes the headers of a copy so that a broker of the same system takes them back. The names are
/// kept, except characters that the system does not carry in names.
pub(super) fn clean(headers: &mut Headers, target: HeaderValues) {
    let is_bad = |character: char| matches!(character, '\r' | '\n');
    let is_fit =
        |(name, value): (&str, &[u8])| carried_name(name, target) == name && plain_value(value, is_bad) == Some(value);
    if target == HeaderValues::Bytes || headers.iter().all(is_fit) {
        return;
    }
    let mut cleaned = Headers::with_capacity(headers.len(), headers.byte_len());
    for (name, value) in headers.iter() {
        if is_trace(name) {
            cleaned.append(name, value);
            continue;
        }
        let name = carried_name(name, target);
        match plain_value(value, is_bad) {
            Some(value) => cleaned.append(&name, value),
            None => append_encoded(&mut cleaned, &name, value),
        }
    }
    *headers = cleaned;
}

fn is_trace(name: &str) -> bool {
    TRACE.iter().any(|trace| trace.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crossed(target: HeaderValues, headers: &[(&str, &[u8])]) -> (Vec<(String, Vec<u8>)>, HeaderCounts) {
        let (headers, counts) = cross(&headers.iter().copied().collect(), target);
        (headers.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(), counts)
    }

    fn pairs(pairs: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect()
    }

    #[test]
    fn what_everyone_can_carry_crosses_untouched() {
        let headers: [(&str, &[u8]); 5] = [
            ("tenant", b"acme"),
            ("Tenant", b"umbrella"),
            ("content-type", b"text/plain"),
            ("empty", b""),
            ("x", b"\t"),
        ];
        let (bytes, counts) = crossed(HeaderValues::Bytes, &headers);
        assert_eq!((bytes, counts), (pairs(&headers), HeaderCounts::default()));
    }

    #[test]
    fn headers_of_one_hop_stay_behind_uncounted() {
        let headers: [(&str, &[u8]); 8] = [
            ("Nats-Rollup", b"all"),
            ("nats-", b""),
            ("x-death", b"1"),
            ("X-First-Death-Queue", b"q"),
            ("x-last-death-reason", b"r"),
            ("x-delivery-count", b"1"),
            ("timestamp_in_ms", b"1"),
            ("x-death-counts", b"an application's"),
        ];
        for target in [HeaderValues::Bytes, HeaderValues::Text] {
            let expected = pairs(&headers[7..]);
            assert_eq!(crossed(target, &headers), (expected, HeaderCounts::default()));
        }
    }

    #[test]
    fn names_that_mean_something_elsewhere_are_renamed() {
        for target in [HeaderValues::Bytes, HeaderValues::Text] {
            let (headers, counts) = crossed(target, &[("CC", b"a"), ("message-key", b"k"), ("cc2", b"b")]);
            assert_eq!(headers, pairs(&[("bridged-CC", b"a"), ("bridged-message-key", b"k"), ("cc2", b"b")]));
            assert_eq!(counts, HeaderCounts { dropped: 0, renamed: 2 });
        }
    }

    #[test]
    fn a_target_with_text_headers_gets_text() {
        let long = "n".repeat(256);
        let headers: [(&str, &[u8]); 9] = [
            ("a b:c", b"1"),
            ("caf\u{e9}", b"2"),
            ("", b"3"),
            (&long, b"4"),
            ("raw", b"\xff"),
            ("split", b"a\r\nb: c"),
            ("nul", b"a\0"),
            ("padded", b" \t x y \n"),
            ("umlaut", "\u{fc}".as_bytes()),
        ];
        let (crossed_headers, counts) = crossed(HeaderValues::Text, &headers);
        let expected: [(&str, &[u8]); 7] = [
            ("a-b-c", b"1"),
            ("caf-", b"2"),
            ("encoded-raw", b"%FF"),
            ("encoded-split", b"a%0D%0Ab:%20c"),
            ("encoded-nul", b"a%00"),
            ("padded", b"x y"),
            ("umlaut", "\u{fc}".as_bytes()),
        ];
        assert_eq!(crossed_headers, pairs(&expected));
        assert_eq!(counts, HeaderCounts { dropped: 2, renamed: 5 });
        let (crossed_headers, counts) = crossed(HeaderValues::Bytes, &[("a\0b", b"\xff\0"), (&long, b"4"), ("", b"")]);
        assert_eq!((crossed_headers, counts), (pairs(&[("a-b", b"\xff\0")]), HeaderCounts { dropped: 2, renamed: 1 }));
    }

    #[test]
    fn a_copy_on_the_same_system_changes_only_what_would_be_refused() {
        let headers = [("", &b"0"[..]), ("message-key", b"k"), ("a b", b"1"), ("bell", b"\x07"), ("latin", b"caf\xe9")];
        let cleaned = |target| {
            let mut cleaned: Headers = headers.into_iter().collect();
            clean(&mut cleaned, target);
            cleaned.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect::<Vec<_>>()
        };
        assert_eq!(cleaned(HeaderValues::Bytes), pairs(&headers));
        let expected =
            [("-", &b"0"[..]), ("message-key", b"k"), ("a-b", b"1"), ("bell", b"\x07"), ("encoded-latin", b"caf%E9")];
        assert_eq!(cleaned(HeaderValues::Text), pairs(&expected));
    }

    #[test]
    fn trace_headers_are_left_to_forwarding() {
        let headers: [(&str, &[u8]); 3] = [("Traceparent", b"\xff"), ("tracestate", b"a=\r\n"), ("baggage", b" a=1")];
        assert_eq!(crossed(HeaderValues::Text, &headers), (pairs(&headers), HeaderCounts::default()));
    }
}
