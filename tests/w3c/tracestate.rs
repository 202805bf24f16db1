//! `tracestate`: members, keys, values, white space, repeated keys and limits.

use std::borrow::Cow;

use opentelemetry::trace::TraceState;
use traced_broker::w3c::Malformed;
use traced_broker::w3c::tracestate::{MAX_BYTES, MAX_MEMBERS, encode, normalize};

fn members(count: usize) -> Vec<String> {
    (1..=count).map(|at| format!("bar{at:02}={at:02}")).collect()
}

#[track_caller]
fn assert_normal(text: &str) {
    let normal = normalize(text.as_bytes()).unwrap();
    assert!(matches!(normal.text, Cow::Borrowed(borrowed) if borrowed == text), "{:?}", normal.text);
    assert_eq!(normal.duplicates, 0);
}

#[track_caller]
fn assert_becomes(received: &str, expected: &str, duplicates: usize) {
    let normal = normalize(received.as_bytes()).unwrap();
    assert_eq!((&*normal.text, normal.duplicates), (expected, duplicates), "{received:?}");
}

#[track_caller]
fn assert_refused(received: impl AsRef<[u8]>, reason: Malformed) {
    let received = received.as_ref();
    assert_eq!(normalize(received), Err(reason), "{:?}", received.escape_ascii().to_string());
}

#[test]
fn what_is_normal_stays_and_is_borrowed() {
    for text in ["", "foo=1", "foo=1,bar=2", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "0=0", "foo= leading space"] {
        assert_normal(text);
    }
}

#[test]
fn white_space_around_members_is_removed() {
    assert_becomes("foo=1 \t , \t bar=2, \t baz=3", "foo=1,bar=2,baz=3", 0);
    assert_becomes("foo=1\t \t,\t \tbar=2", "foo=1,bar=2", 0);
    for padded in [" foo=1", "\tfoo=1", "foo=1 ", "foo=1\t", "\t foo=1 \t"] {
        assert_becomes(padded, "foo=1", 0);
    }
    assert_becomes("foo=  spaces inside stay  ,bar=2", "foo=  spaces inside stay,bar=2", 0);
}

#[test]
fn empty_members_are_removed() {
    for empty in ["", " ", "\t", ",", ",,,", " , \t ,"] {
        assert_becomes(empty, "", 0);
    }
    assert_becomes(",foo=1,", "foo=1", 0);
    assert_becomes("foo=1,,bar=2, ,\t,baz=3", "foo=1,bar=2,baz=3", 0);
}

#[test]
fn of_a_repeated_key_the_first_stays() {
    assert_becomes("foo=1,foo=1", "foo=1", 1);
    assert_becomes("foo=1,foo=2", "foo=1", 1);
    assert_becomes("foo=1,bar=2,foo=3,baz=4,bar=5", "foo=1,bar=2,baz=4", 2);
    assert_becomes("foo=1,foo@x=2,fo=3", "foo=1,foo@x=2,fo=3", 0);
}

#[test]
fn every_allowed_character_is_kept() {
    let key = "abcdefghijklmnopqrstuvwxyz0123456789_-*/@";
    let value: String = (0x20..=0x7e_u8).map(char::from).filter(|c| !",=".contains(*c)).collect();
    assert_normal(&format!("{key}={value}"));
}

#[test]
fn keys_that_only_level_2_allows_are_kept() {
    for key in ["0vendor", "1a@b", "foo@", "foo@@bar", "a@b@c", "t@vvvvvvvvvvvvvvv", "0", "9/*-_@"] {
        assert_normal(&format!("{key}=1,bar=2"));
    }
}

#[test]
fn illegal_keys_are_refused() {
    for key in ["", "foo ", "foo\t", "FOO", "fOo", "foo.bar", "@foo", "_foo", "-foo", "*foo", "/foo", "foo;", "f\u{e9}"]
    {
        assert_refused(format!("{key}=1,bar=2"), Malformed::Key);
        assert_refused(format!("bar=2,{key}=1"), Malformed::Key);
    }
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
    for byte in (0..=0x7f).filter(|byte| !legal(*byte) && !b",=".contains(byte)) {
        assert_refused([b'k', byte, b'k', b'=', b'1'], Malformed::Key);
    }
}

#[test]
fn illegal_values_are_refused() {
    for value in ["", " ", "\t ", "bar=baz", "=", "a\tb", "a\rb", "a\nb", "a\0b", "a\u{7f}b", "caf\u{e9}", "\u{1f980}"]
    {
        assert_refused(format!("foo={value}"), Malformed::Value);
        assert_refused(format!("foo={value},bar=3"), Malformed::Value);
    }
    for control in (0..0x20).chain([0x7f]) {
        assert_refused([b'k', b'=', b'1', control, b'1'], Malformed::Value);
    }
}

#[test]
fn a_line_break_at_an_end_is_no_white_space() {
    assert_refused("foo=1\r\n", Malformed::Value);
    assert_refused("\nfoo=1", Malformed::Key);
}

#[test]
fn members_without_a_pair_are_refused() {
    for text in ["foo", "foo,bar=1", "bar=1,foo", "bar=1,;"] {
        assert_refused(text, Malformed::Member);
    }
}

#[test]
fn what_is_not_utf_8_is_refused() {
    assert_refused(b"foo=\xff", Malformed::Character);
    assert_refused(b"foo=\xc0\x8a", Malformed::Character);
}

#[test]
fn there_are_32_members_at_most() {
    assert_eq!(MAX_MEMBERS, 32);
    assert_normal(&members(32).join(","));
    assert_refused(members(33).join(","), Malformed::TooManyMembers);
    assert_refused(vec!["foo=1"; 33].join(","), Malformed::TooManyMembers);
    assert_becomes(&members(32).join(" ,, "), &members(32).join(","), 0);
}

#[test]
fn keys_and_values_have_256_bytes_at_most() {
    let (most, more) = ("z".repeat(256), "z".repeat(257));
    assert_normal(&format!("foo=1,{most}={most}"));
    assert_refused(format!("foo=1,{more}=1"), Malformed::Key);
    assert_refused(format!("foo=1,bar={more}"), Malformed::Value);
    assert_normal(&format!("foo=1,{}@{}=1", "t".repeat(241), "v".repeat(14)));
    assert_normal(&format!("foo=1,{}@v=1", "t".repeat(242)));
    assert_becomes(&format!("foo={most}  "), &format!("foo={most}"), 0);
}

#[test]
fn the_longest_valid_list_is_kept_whole_and_no_longer_one_is_read() {
    let member = |at: usize| format!("{at:0>256}={}", "v".repeat(256));
    let longest = (0..32).map(member).collect::<Vec<_>>().join(",");
    assert_eq!(longest.len(), MAX_BYTES);
    const { assert!(MAX_BYTES >= 512) };
    assert_normal(&longest);
    assert_refused(format!("{longest} "), Malformed::TooLong);
    assert_refused(",".repeat(1 << 20), Malformed::TooLong);
}

#[test]
fn a_list_of_the_application_is_written_without_what_is_illegal() {
    let state = TraceState::from_key_value([
        ("good", "1"),
        ("breaks", "a\r\nevil: 1"),
        ("nul", "a\0b"),
        ("latin", "caf\u{e9}"),
        ("empty", ""),
        ("good", "2"),
        ("padded", "3 "),
    ])
    .unwrap();
    let encoded = encode(&state);
    assert_eq!(encoded.text, "good=1,padded=3");
    assert_eq!(encoded.dropped, 5);
}

#[test]
fn no_list_is_written_as_nothing() {
    let emptied = TraceState::from_key_value([("a", "b")]).unwrap().delete("a").unwrap();
    for state in [TraceState::NONE, emptied] {
        assert_eq!(encode(&state).text, "");
        assert_eq!(encode(&state).dropped, 0);
    }
}
