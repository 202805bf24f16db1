//! Forms that are never written by mistake: huge values, bytes that are not text, other encodings,
//! and attempts to inject headers.

use super::{TRACE, Vector, filled};

const MEGABYTE: usize = 1 << 20;

/// Returns forms that a broker may refuse to carry, and that must do no harm if it carries them.
pub(in super::super) fn hostile() -> Vec<Vector> {
    [parents(), lists(), masses()].concat()
}

fn parents() -> Vec<Vector> {
    let good = filled("00-{T}-{S}-01");
    let parent = |what: &str, value: Vec<u8>| Vector::new(what).header("traceparent", value);
    let with = |from: &str, to: &str| good.replace(from, to).into_bytes();
    let utf_16 = |endian: fn(u16) -> [u8; 2]| good.encode_utf16().flat_map(endian).collect::<Vec<u8>>();
    let cut = |length: usize| good.as_bytes()[..length].to_vec();
    vec![
        parent("a line break behind", [good.as_bytes(), b"\r\n"].concat()),
        parent("a line break and a header behind", [good.as_bytes(), b"\r\nbaggage: evil=1"].concat()),
        parent("a line feed behind", [good.as_bytes(), b"\n"].concat()),
        parent("a line break within", with(TRACE, &format!("{}\r\n{}", &TRACE[..14], &TRACE[16..]))),
        parent("a NUL behind", [good.as_bytes(), b"\0"].concat()),
        parent("a NUL in front", [b"\0", good.as_bytes()].concat()),
        parent("a NUL for a dash", with("-", "\0")),
        parent("NULs alone", vec![0; good.len()]),
        parent("UTF-16 from the low byte", utf_16(u16::to_le_bytes)),
        parent("UTF-16 from the high byte", utf_16(u16::to_be_bytes)),
        parent("a byte order mark in front", [b"\xef\xbb\xbf", good.as_bytes()].concat()),
        parent("a dash in two bytes", [&good.as_bytes()[..2], b"\xc0\xad", &good.as_bytes()[3..]].concat()),
        parent("digits of full width", with("7", "\u{ff17}")),
        parent("dashes of another kind", with("-", "\u{2010}")),
        parent("a space that does not break in front", format!("\u{a0}{good}").into_bytes()),
        parent("bytes that are no text", (0x80..=0xff).collect()),
        parent("every byte", (0..=0xff).collect()),
        parent("a delete character for the last digit", with("-01", "-0\u{7f}")),
        parent("54 bytes", cut(54)),
        parent("one byte", cut(1)),
        parent("56 bytes", [good.as_bytes(), b"1"].concat()),
        parent("a megabyte of digits behind", [good.as_bytes(), &vec![b'0'; MEGABYTE][..]].concat()),
        parent("a megabyte of blanks", vec![b' '; MEGABYTE]),
        parent("ten megabytes", vec![b'a'; 10 * MEGABYTE]),
        parent(
            "version cc with a megabyte behind a dash",
            [with("00-", "cc-"), b"-".to_vec(), vec![b'0'; MEGABYTE]].concat(),
        )
        .continues("01"),
    ]
}

fn lists() -> Vec<Vector> {
    let state = |what: &str, value: Vec<u8>| Vector::continued(what).header("tracestate", value);
    let baggage = |what: &str, value: &[u8]| Vector::continued(what).header("baggage", value);
    let others: &[[&str; 3]] = &[["a", "1", ""], ["c", "3", ""]];
    vec![
        state("a list with a line break", b"foo=1\r\nevil: 1".to_vec()),
        state("a list with a line break behind", b"foo=1\r\n".to_vec()),
        state("a list with a NUL", b"foo=a\0b,bar=2".to_vec()),
        state("a list that is not UTF-8", b"foo=\xff,bar=2".to_vec()),
        state("a list with an overlong line feed", b"foo=\xc0\x8a,bar=2".to_vec()),
        state("a list with a delete character", b"foo=\x7f".to_vec()),
        state("a megabyte of commas in a list", vec![b','; MEGABYTE]),
        state("ten megabytes in a list", [b"foo=".to_vec(), vec![b'1'; 10 * MEGABYTE]].concat()),
        state("a megabyte of members in a list", b"a=1,".repeat(MEGABYTE / 4)),
        baggage("escaped line breaks in a value", b"a=1%0d%0aevil%3A%201").entries(&[["a", "1\r\nevil: 1", ""]]),
        baggage("escaped line breaks in a property", b"a=1;p=x%0D%0Ay").entries(&[["a", "1", "p=x%0D%0Ay"]]),
        baggage("an escaped NUL", b"a=%00").entries(&[["a", "\0", ""]]),
        baggage("an overlong slash, escaped", b"a=%C0%AF").entries(&[["a", "\u{fffd}\u{fffd}", ""]]),
        baggage("a line break in a value", b"a=1,b=2\r\nevil: 1,c=3").entries(others),
        baggage("a line break in a key", b"a=1,b\r\nb=2,c=3").entries(others),
        baggage("a line break in a property", b"a=1,b=2;p\r\n=1,c=3").entries(others),
        baggage("a NUL in a value", b"a=1,b=2\0,c=3").entries(others),
        baggage("a NUL in a key", b"a=1,\0b=2,c=3").entries(others),
        baggage("bytes that are no text among others", b"a=1,\xc0\xaf=\xff,c=3").entries(others),
        baggage("a megabyte of commas", &vec![b','; MEGABYTE]),
        baggage("ten megabytes in one member", &[b"b=".to_vec(), vec![b'1'; 10 * MEGABYTE]].concat()),
        baggage("a megabyte of the same member", &b"a=1,".repeat(MEGABYTE / 4)).entries(&[["a", "1", ""]]),
    ]
}

fn masses() -> Vec<Vector> {
    let others = (0..10_000).fold(Vector::continued("ten thousand other headers"), |vector, number| {
        vector.header(&format!("x-{number}"), "1")
    });
    let good = filled("00-{T}-{S}-01");
    let same = (0..10_000).fold(Vector::new("ten thousand equal parents").continues("01"), |vector, _| {
        vector.header("traceparent", good.as_str())
    });
    let lists = (0..10_000).fold(Vector::continued("ten thousand lists"), |vector, number| {
        vector.header("tracestate", format!("m{number}=1"))
    });
    vec![others, same, lists]
}
