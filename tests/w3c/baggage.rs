//! `baggage`: members, properties, percent-encoding, white space, hostile members and limits.

use opentelemetry::baggage::Baggage;
use traced_broker::w3c::baggage::{MAX_BYTES, MAX_MEMBERS, encode, parse};

/// Returns the members as (key, value, properties), in the order of their keys.
fn entries(baggage: &Baggage) -> Vec<(&str, &str, &str)> {
    let mut entries: Vec<_> =
        baggage.iter().map(|(key, (value, properties))| (key.as_str(), value.as_str(), properties.as_str())).collect();
    entries.sort_unstable();
    entries
}

#[track_caller]
fn assert_reads(header: &str, expected: &[(&str, &str, &str)], dropped: usize) {
    let parsed = parse(header.as_bytes());
    assert_eq!(entries(&parsed.baggage), expected, "{header:?}");
    assert_eq!(parsed.dropped, dropped, "{header:?}");
}

#[track_caller]
fn assert_comes_back_as(header: &str, expected: &str) {
    assert_eq!(encode(&parse(header.as_bytes()).baggage).text, expected);
}

#[test]
fn members_are_read() {
    assert_reads("SomeKey=SomeValue", &[("SomeKey", "SomeValue", "")], 0);
    assert_reads("a=1,b=2", &[("a", "1", ""), ("b", "2", "")], 0);
    assert_reads("a=", &[("a", "", "")], 0);
}

#[test]
fn properties_are_read() {
    assert_reads("a=1;p", &[("a", "1", "p")], 0);
    assert_reads("a=1;p;q=2;r=s=t,b=2;u", &[("a", "1", "p;q=2;r=s=t"), ("b", "2", "u")], 0);
    assert_reads("a=1;p=", &[("a", "1", "p=")], 0);
}

#[test]
fn white_space_is_removed() {
    assert_reads(
        "a \t = \t 1 \t ; \t p \t ; \t q \t = \t 2 \t , \t b \t = \t 3 \t ",
        &[("a", "1", "p;q=2"), ("b", "3", "")],
        0,
    );
}

#[test]
fn empty_members_and_properties_are_passed_over() {
    for empty in ["", " ", ",", " , \t ,"] {
        assert_reads(empty, &[], 0);
    }
    assert_reads(",a=1,,b=2;,", &[("a", "1", ""), ("b", "2", "")], 0);
    assert_reads("a=1;;p; ;", &[("a", "1", "p")], 0);
}

#[test]
fn a_value_may_hold_equals_signs() {
    assert_reads("a=b=c", &[("a", "b=c", "")], 0);
    assert_reads("a==", &[("a", "=", "")], 0);
    assert_reads("token=Zm9vYg==", &[("token", "Zm9vYg==", "")], 0);
    assert_comes_back_as("token=Zm9vYg==", "token=Zm9vYg%3D%3D");
}

#[test]
fn values_are_percent_decoded_and_encoded_again() {
    assert_reads("serverNode=DF%2028", &[("serverNode", "DF 28", "")], 0);
    assert_reads("userId=Am%C3%A9lie", &[("userId", "Am\u{e9}lie", "")], 0);
    assert_comes_back_as("userId=Am%C3%A9lie,serverNode=DF%2028", "serverNode=DF%2028,userId=Am%C3%A9lie");

    let value = "\t \"';=asdf!@#$%^&*()";
    assert_reads("a=%09%20%22%27%3B%3Dasdf%21%40%23%24%25%5E%26%2A%28%29", &[("a", value, "")], 0);
    assert_comes_back_as(
        "a=%09%20%22%27%3B%3Dasdf%21%40%23%24%25%5E%26%2A%28%29",
        "a=%09%20%22'%3B%3Dasdf!@#$%25^&*()",
    );
    assert_reads("a=%41%6a%6A", &[("a", "Ajj", "")], 0);
}

#[test]
fn white_space_inside_a_value_survives_when_it_was_encoded() {
    assert_reads("a=%20b%20", &[("a", " b ", "")], 0);
    assert_comes_back_as("a=%20b%20", "a=%20b%20");
}

#[test]
fn what_is_not_utf_8_is_replaced() {
    assert_reads("a=x%FFy", &[("a", "x\u{fffd}y", "")], 0);
    assert_reads("a=%C3%28", &[("a", "\u{fffd}(", "")], 0);
    assert_reads("a=%C0%AF", &[("a", "\u{fffd}\u{fffd}", "")], 0);
}

#[test]
fn a_percent_sign_that_encodes_nothing_stands_for_itself() {
    for (encoded, value, again) in [
        ("100%", "100%", "100%25"),
        ("%", "%", "%25"),
        ("%4", "%4", "%254"),
        ("%zz1", "%zz1", "%25zz1"),
        ("%%41", "%A", "%25A"),
    ] {
        assert_reads(&format!("a={encoded}"), &[("a", value, "")], 0);
        assert_comes_back_as(&format!("a={encoded}"), &format!("a={again}"));
    }
}

#[test]
fn line_breaks_never_get_out_decoded() {
    let header = "a=1%0d%0aevil%3A%201;p=x%0D%0Ay%2Cz%3B;q,%0d%0a=2,b%0D=3";
    let parsed = parse(header.as_bytes());
    assert_eq!(parsed.baggage.get("a").unwrap().as_str(), "1\r\nevil: 1");
    assert_eq!(
        encode(&parsed.baggage).text,
        "%0d%0a=2,a=1%0D%0Aevil:%201;p=x%0D%0Ay%2Cz%3B;q,b%0D=3",
        "a key is not encoded, so what looks like an escape in one is none"
    );
}

#[test]
fn properties_come_back_as_they_were() {
    for header in ["a=1;p=%0d%0a", "a=1;p=%2C;q=%3B;r=%25", "a=1;p=x%20y;q", "a=1;ttl=3=4"] {
        assert_comes_back_as(header, header);
    }
    assert_comes_back_as("a=1;p=100%;%zz", "a=1;p=100%25;%25zz");
}

#[test]
fn metadata_of_the_application_is_made_fit_to_send() {
    let mut baggage = Baggage::new();
    for (key, metadata, _) in METADATA {
        baggage.insert_with_metadata(*key, "v", *metadata);
    }
    let expected: Vec<_> = METADATA.iter().map(|(key, _, written)| format!("{key}=v{written}")).collect();
    assert_eq!(encode(&baggage).text, expected.join(","));
}

const METADATA: &[(&str, &str, &str)] = &[
    ("a", "p;q=1", ";p;q=1"),
    ("b", " ; p = 1 ;; ", ";p=1"),
    ("c", "p\r\nevil: 1", ";p%0D%0Aevil%3A%201"),
    ("d", "p=1,evil=2", ";p=1%2Cevil=2"),
    ("e", "p=caf\u{e9}\0", ";p=caf%C3%A9%00"),
    ("f", "=1", ""),
    ("g", "p=%41%", ";p=%41%25"),
];

#[test]
fn bad_members_are_dropped_and_the_rest_is_kept() {
    let bad: &[&[u8]] = &[
        b"novalue",
        b"=1",
        b" =1",
        b"k ey=1",
        b"k\"=1",
        b"k(=1",
        b"k\xc3\xa9=1",
        b"k\r\n=1",
        b"k\0=1",
        b"k=a b",
        b"k=a\tb",
        b"k=\"a\"",
        b"k=a\\b",
        b"k=a\r\nb",
        b"k=a\0b",
        b"k=caf\xc3\xa9",
        b"k=\xff",
        b"k=1;p q",
        b"k=1;=2",
        b"k=1;p=a b",
        b"k=1;p\r\n=2",
        b"k=1;p=\x7f",
        b";p",
        b";",
    ];
    for bad in bad {
        let header = [b"first=1,", *bad, b",last=2"].concat();
        let parsed = parse(&header);
        assert_eq!(entries(&parsed.baggage), [("first", "1", ""), ("last", "2", "")], "{}", bad.escape_ascii());
        assert_eq!(parsed.dropped, 1, "{}", bad.escape_ascii());
    }
}

#[test]
fn of_a_repeated_key_the_last_stays() {
    assert_reads("a=1;p,b=2,a=3", &[("a", "3", ""), ("b", "2", "")], 1);
}

#[test]
fn every_token_character_is_a_key() {
    let key = "!#$%&'*+-.^_`|~0123456789abcxyzABCXYZ";
    assert_reads(&format!("{key}=1"), &[(key, "1", "")], 0);
    assert_comes_back_as(&format!("{key}=1"), &format!("{key}=1"));
}

#[test]
fn there_are_64_members_at_most() {
    let members = |count: usize| (0..count).map(|at| format!("key{at:02}=value")).collect::<Vec<_>>().join(",");
    let parsed = parse(members(64).as_bytes());
    assert_eq!((parsed.baggage.len(), parsed.dropped, MAX_MEMBERS), (64, 0, 64));
    assert_eq!(encode(&parsed.baggage).text, members(64));

    let parsed = parse(members(70).as_bytes());
    assert_eq!(parsed.dropped, 6);
    assert_eq!(encode(&parsed.baggage).text, members(64), "the first ones stay");

    let parsed = parse(format!("{},key00=again", members(64)).as_bytes());
    assert_eq!(encode(&parsed.baggage).text, members(64), "nothing is read after them");
}

#[test]
fn there_are_8192_bytes_at_most() {
    let longest = format!("a={}", "0123456789".repeat(819));
    assert_eq!((longest.len(), MAX_BYTES), (8192, 8192));
    assert_comes_back_as(&longest, &longest);

    let parsed = parse(format!("{longest}0,b=2").as_bytes());
    assert_eq!(entries(&parsed.baggage), [("b", "2", "")], "the one that does not fit is left out whole");
    assert_eq!(parsed.dropped, 1);
    let parsed = parse(format!("{longest},b=2").as_bytes());
    assert_eq!((parsed.baggage.len(), parsed.dropped), (1, 1));

    let many: Vec<_> = (0..16).map(|at| format!("key{at:02}={}", "v".repeat(505))).collect();
    let exact = many.join(",") + "v";
    assert_eq!(exact.len(), 8192);
    assert_comes_back_as(&exact, &exact);
}

#[test]
fn what_grows_over_the_limit_when_encoded_is_dropped_whole() {
    let mut baggage = Baggage::new();
    baggage.insert("grows", "\u{e9}".repeat(1400));
    baggage.insert("stays", "1");
    let encoded = encode(&baggage);
    assert_eq!((encoded.text.as_str(), encoded.dropped), ("stays=1", 1));
}

#[test]
fn huge_input_is_read_without_harm() {
    assert_eq!(parse(&vec![b','; 1 << 20]).dropped, 0);
    assert_eq!(parse(&vec![b'a'; 1 << 20]).dropped, 1);
    let parsed = parse("a=1,".repeat(1 << 18).as_bytes());
    assert_eq!((parsed.baggage.len(), parsed.dropped), (1, (1 << 18) - 1));
}
