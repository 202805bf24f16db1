//! References that are tampered with, cut short or not references at all.

use opentelemetry::trace::TraceContextExt;
use proptest::collection::vec;
use proptest::prelude::*;
use traced_broker::TraceReference;
use traced_broker::job::InvalidReference;
use traced_broker::w3c::Malformed;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn refused(text: &str) -> InvalidReference {
    match text.parse::<TraceReference>() {
        Err(error) => error,
        Ok(reference) => panic!("{text:?} was read as {reference}"),
    }
}

#[test]
fn says_what_is_wrong() {
    use InvalidReference::{MadeAt, NotCanonical, Note, TooLong, Traceparent, Tracestate};
    let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
    let upper = PARENT.to_uppercase();
    let member = "k=".to_owned() + &"v".repeat(256);
    for (text, expected) in [
        (String::new(), Traceparent(Malformed::Length)),
        (PARENT.to_owned(), MadeAt),
        (format!("{zero};1"), Traceparent(Malformed::ZeroTraceId)),
        (format!("{upper};1"), Traceparent(Malformed::Character)),
        (format!(" {PARENT};1"), Traceparent(Malformed::Delimiter)),
        (format!("ff{};1", &PARENT[2..]), Traceparent(Malformed::Version)),
        (format!("cc{};1", &PARENT[2..]), NotCanonical),
        (format!("{}09;1", &PARENT[..53]), NotCanonical),
        (format!("{PARENT};"), MadeAt),
        (format!("{PARENT};-1"), MadeAt),
        (format!("{PARENT};1.5"), MadeAt),
        (format!("{PARENT};253402300800000"), MadeAt),
        (format!("{PARENT};99999999999999999999999"), MadeAt),
        (format!("{PARENT};+1"), NotCanonical),
        (format!("{PARENT};01"), NotCanonical),
        (format!("{PARENT};1\n"), MadeAt),
        (format!("{PARENT};1;"), NotCanonical),
        (format!("{PARENT};1;;"), NotCanonical),
        (format!("{PARENT};1;%ff"), Note),
        (format!("{PARENT};1;{}", "x".repeat(129)), Note),
        (format!("{PARENT};1;%2"), NotCanonical),
        (format!("{PARENT};1;a b"), NotCanonical),
        (format!("{PARENT};1;a%3b"), NotCanonical),
        (format!("{PARENT};1;%61"), NotCanonical),
        (format!("{PARENT};1;\u{fc}"), NotCanonical),
        (format!("{PARENT};1;;x"), Tracestate(Malformed::Member)),
        (format!("{PARENT};1;;K=v"), Tracestate(Malformed::Key)),
        (format!("{PARENT};1;;k=a\rb"), Tracestate(Malformed::Value)),
        (format!("{PARENT};1;;{member},l{member}"), Tracestate(Malformed::TooLong)),
        (format!("{PARENT};1;;k=v,,"), NotCanonical),
        (format!("{PARENT};1;;k=v,k=w"), NotCanonical),
        (format!("{PARENT};1;x;{}", "k=v,".repeat(300)), TooLong),
    ] {
        assert_eq!(refused(&text), expected, "{text:?}");
    }
}

#[test]
fn never_repeats_what_it_was_given() {
    for text in ["secret", &*format!("{PARENT};secret"), &*format!("{PARENT};1;;secret"), &*"secret".repeat(400)] {
        let error = refused(text);
        assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        assert!(error.to_string().starts_with("not a trace reference: "), "{error}");
    }
}

#[test]
fn json_is_as_strict() {
    for (json, part) in [
        (r#"{"made_at_ms": 1}"#.to_owned(), "traceparent"),
        (format!(r#"{{"traceparent": "{PARENT}"}}"#), "made_at_ms"),
        (format!(r#"{{"traceparent": "{PARENT}x", "made_at_ms": 1}}"#), "traceparent (length)"),
        (format!(r#"{{"traceparent": "cc{}", "made_at_ms": 1}}"#, &PARENT[2..]), "canonical form"),
        (format!(r#"{{"traceparent": "{PARENT}", "made_at_ms": -1}}"#), "u64"),
        (format!(r#"{{"traceparent": "{PARENT}", "made_at_ms": 253402300800000}}"#), "9999"),
        (format!(r#"{{"traceparent": "{PARENT}", "made_at_ms": 1, "note": "{}"}}"#, "x".repeat(129)), "note"),
        (format!(r#"{{"traceparent": "{PARENT}", "made_at_ms": 1, "note": ""}}"#), "canonical form"),
        (format!(r#"{{"traceparent": "{PARENT}", "made_at_ms": 1, "tracestate": " k=v"}}"#), "canonical form"),
        (format!(r#"{{"traceparent": "{PARENT}", "made_at_ms": 1, "tracestate": "k"}}"#), "tracestate (member)"),
        (format!(r#"{{"traceparent": "{PARENT}", "made_at_ms": 1, "baggage": "a=b"}}"#), "unknown field"),
        (format!(r#""{PARENT};1""#), "struct"),
    ] {
        let error = serde_json::from_str::<TraceReference>(&json).expect_err(&json).to_string();
        assert!(error.contains(part), "{json}: {error}");
    }
}

/// Generates references in which one part is replaced.
fn tampered() -> impl Strategy<Value = String> {
    let whole = format!("{PARENT};1795368288498;asked%20by%20Ada;rojo=1;2,congo=t");
    let piece = prop_oneof![
        "[;%=,\\-0-9a-fA-F ]{0,4}",
        any::<String>(),
        Just("%".to_owned()),
        Just(";".to_owned()),
        Just("\0".to_owned())
    ];
    (0..whole.len(), 0..8_usize, piece).prop_map(move |(from, len, piece)| {
        let mut text = whole.clone();
        text.replace_range(from..(from + len).min(whole.len()), &piece);
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Any text is either refused or read without a change.
    #[test]
    fn anything_is_refused_or_written_the_same_again(
        text in prop_oneof![4 => tampered(), 1 => any::<String>(), 1 => "[ -~]{0,1100}"],
    ) {
        if let Ok(reference) = text.parse::<TraceReference>() {
            prop_assert_eq!(reference.to_string(), text);
            prop_assert!(reference.context().span().span_context().is_valid());
        }
    }

    #[test]
    fn any_bytes_as_json_are_refused_or_whole(bytes in vec(any::<u8>(), 0..200), text in tampered(), note in any::<String>()) {
        prop_assert!(serde_json::from_slice::<TraceReference>(&bytes).is_err());
        let json = serde_json::json!({ "traceparent": text, "made_at_ms": 1, "note": note });
        if let Ok(reference) = serde_json::from_value::<TraceReference>(json) {
            prop_assert_eq!(reference.to_string().parse(), Ok(reference));
        }
    }
}
