//! `traceparent`: versions, lengths, case, characters, ids and flags.

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use traced_broker::w3c::{Malformed, TraceParent};

use super::{SPAN, TRACE, traceparent};

fn parse(value: &str) -> Result<TraceParent, Malformed> {
    TraceParent::parse(value.as_bytes())
}

#[test]
fn a_valid_header_is_read_and_written_back() {
    for (flags, sampled, random) in [("00", false, false), ("01", true, false), ("02", false, true), ("03", true, true)]
    {
        let text = traceparent(flags);
        let parent = parse(&text).unwrap();
        assert_eq!(parent.trace_id(), TraceId::from_hex(TRACE).unwrap());
        assert_eq!(parent.span_id(), SpanId::from_hex(SPAN).unwrap());
        assert_eq!((parent.is_sampled(), parent.is_random()), (sampled, random), "{flags}");
        assert_eq!(str::from_utf8(&parent.encode()).unwrap(), text);
        assert_eq!(parent.to_string(), text);
    }
}

#[test]
fn unknown_flags_are_cleared() {
    for (received, kept) in [("ff", "03"), ("fe", "02"), ("fd", "01"), ("fc", "00"), ("09", "01"), ("80", "00")] {
        let parent = parse(&traceparent(received)).unwrap();
        assert_eq!(str::from_utf8(&parent.encode()).unwrap(), traceparent(kept));
    }
}

#[test]
fn version_00_has_exactly_55_bytes() {
    let valid = traceparent("01");
    for len in 0..valid.len() {
        assert_eq!(parse(&valid[..len]), Err(Malformed::Length), "{len} bytes");
    }
    for tail in ["-", ".", "0", " ", "\n", "\0", "-what-the-future-brings"] {
        assert_eq!(parse(&format!("{valid}{tail}")), Err(Malformed::Length), "{tail:?}");
    }
    assert_eq!(parse(&format!("{valid}{}", "0".repeat(1 << 20))), Err(Malformed::Length));
}

#[test]
fn white_space_is_no_part_of_the_value() {
    let valid = traceparent("01");
    assert!(parse(&format!(" {valid}")).is_err());
    assert!(parse(&format!("{valid} ")).is_err());
    assert!(parse(&format!("\t{}", &valid[..54])).is_err());
}

#[test]
fn a_higher_version_is_read_as_far_as_it_is_known() {
    for version in ["01", "09", "0a", "cc", "fe"] {
        for tail in ["", "-", "-01", "-what-the-future-brings", "-\u{0}"] {
            let parent = parse(&format!("{version}-{TRACE}-{SPAN}-01{tail}")).unwrap();
            assert_eq!(str::from_utf8(&parent.encode()).unwrap(), traceparent("01"), "written as version 00");
        }
        for tail in [".", "0", " ", ".what-the-future-brings"] {
            let value = format!("{version}-{TRACE}-{SPAN}-01{tail}");
            assert_eq!(parse(&value), Err(Malformed::Delimiter), "{value}");
        }
        let value = format!("{version}-{TRACE}-{SPAN}-0");
        assert_eq!(parse(&value), Err(Malformed::Length));
    }
}

#[test]
fn version_ff_is_forbidden() {
    assert_eq!(parse(&format!("ff-{TRACE}-{SPAN}-01")), Err(Malformed::Version));
    assert_eq!(parse(&format!("ff-{TRACE}-{SPAN}-01-more")), Err(Malformed::Version));
}

#[test]
fn every_digit_must_be_lower_case_hexadecimal() {
    let valid = traceparent("01");
    let digits = (0..55).filter(|at| ![2, 35, 52].contains(at));
    for at in digits {
        for wrong in [b'.', b'g', b'A', b'F', b'-', b' ', b'/', b':', b'`', 0x00, 0x7f, 0x80, 0xff] {
            let mut value = valid.clone().into_bytes();
            value[at] = wrong;
            assert_eq!(TraceParent::parse(&value), Err(Malformed::Character), "{wrong:#x} at {at}");
        }
    }
}

#[test]
fn upper_case_is_refused() {
    assert_eq!(parse(&traceparent("01").to_ascii_uppercase()), Err(Malformed::Character));
}

#[test]
fn every_dash_must_be_in_its_place() {
    for at in [2, 35, 52] {
        for wrong in [b'0', b'_', b' ', 0x00, 0xad] {
            let mut value = traceparent("01").into_bytes();
            value[at] = wrong;
            assert_eq!(TraceParent::parse(&value), Err(Malformed::Delimiter), "{wrong:#x} at {at}");
        }
    }
}

#[test]
fn fields_of_another_length_are_refused() {
    let refused = [
        format!("0-{TRACE}-{SPAN}-01"),
        format!("000-{TRACE}-{SPAN}-01"),
        format!("0000-{TRACE}-{SPAN}-01"),
        format!("00-{}-{SPAN}-01", &TRACE[1..]),
        format!("00-{TRACE}0-{SPAN}-01"),
        format!("00-{TRACE}-{}-01", &SPAN[1..]),
        format!("00-{TRACE}-{SPAN}0-01"),
        format!("00-{TRACE}-{SPAN}-1"),
        format!("00-{TRACE}-{SPAN}-001"),
        "00-1-1-1".to_owned(),
        "".to_owned(),
        "-".repeat(55),
    ];
    for value in refused {
        assert!(parse(&value).is_err(), "{value}");
    }
}

#[test]
fn zero_ids_are_forbidden() {
    let (no_trace, no_span) = ("0".repeat(32), "0".repeat(16));
    assert_eq!(parse(&format!("00-{no_trace}-{SPAN}-01")), Err(Malformed::ZeroTraceId));
    assert_eq!(parse(&format!("00-{TRACE}-{no_span}-01")), Err(Malformed::ZeroSpanId));
    assert_eq!(parse(&format!("cc-{no_trace}-{SPAN}-01-more")), Err(Malformed::ZeroTraceId));
}

#[test]
fn text_in_other_encodings_is_refused() {
    let utf_16: Vec<u8> = traceparent("01").encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(TraceParent::parse(&utf_16).is_err());
    let mut overlong = traceparent("01").into_bytes();
    overlong.splice(2..3, [0xc0, 0xad]); // a dash in two bytes
    assert!(TraceParent::parse(&overlong).is_err());
    let full_width = traceparent("01").replace('4', "\u{ff14}");
    assert!(parse(&full_width).is_err());
}

#[test]
fn a_parent_is_made_from_a_valid_span_context_only() {
    let context = |trace: u128, span: u64| {
        SpanContext::new(trace.into(), span.into(), TraceFlags::new(0xff), false, TraceState::NONE)
    };
    let parent = TraceParent::from_span_context(&context(1, 2)).unwrap();
    assert_eq!(parent.flags(), TraceFlags::new(0x03));
    assert_eq!(TraceParent::from_span_context(&context(0, 2)), Err(Malformed::ZeroTraceId));
    assert_eq!(TraceParent::from_span_context(&context(1, 0)), Err(Malformed::ZeroSpanId));

    let remote = parent.to_span_context(TraceState::NONE);
    assert!(remote.is_remote() && remote.is_valid());
    assert_eq!(TraceParent::from_span_context(&remote), Ok(parent));
}
