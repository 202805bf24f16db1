//! From headers to a context and back.

use opentelemetry::Context;
use opentelemetry::baggage::{Baggage, BaggageExt};
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceState};
use traced_broker::w3c::{Extracted, Malformed, decode, decode_all};

use super::{SPAN, TRACE, header, traceparent, written};

fn read(traceparent: &str, tracestate: Option<&str>, baggage: Option<&str>) -> Extracted {
    let base = Context::new();
    decode(Some(traceparent.as_bytes()), tracestate.map(str::as_bytes), baggage.map(str::as_bytes), &base)
}

#[test]
fn all_three_headers_come_through() {
    let Extracted { context, issues, .. } = read(&traceparent("01"), Some("foo=1,bar=2"), Some("user=a;ttl=3"));
    assert!(issues.is_empty());
    assert!(context.span().span_context().is_remote());
    assert_eq!(context.span().span_context().trace_state().get("bar"), Some("2"));
    assert_eq!(context.baggage().get("user").unwrap().as_str(), "a");
    let (headers, issues) = written(&context);
    assert_eq!(
        headers,
        [
            ("traceparent", traceparent("01")),
            ("tracestate", "foo=1,bar=2".to_owned()),
            ("baggage", "user=a;ttl=3".to_owned())
        ]
    );
    assert!(issues.is_empty());
}

#[test]
fn every_combination_of_known_flags_comes_through() {
    for flags in ["00", "01", "02", "03"] {
        let context = read(&traceparent(flags), None, None).context;
        assert_eq!(written(&context).0, [("traceparent", traceparent(flags))], "and no empty header with it");
    }
}

#[test]
fn nothing_is_read_from_nothing() {
    let Extracted { context, issues, .. } = decode(None, None, None, &Context::new());
    assert!(!context.has_active_span());
    assert!(issues.is_empty());
    assert!(written(&context).0.is_empty());
}

#[test]
fn the_base_is_returned_without_a_remote_span_when_the_traceparent_is_bad() {
    let base = Context::new().with_baggage([opentelemetry::KeyValue::new("from", "base")]);
    for (value, reason) in
        [("", Malformed::Length), ("00-x", Malformed::Length), (&traceparent("0G"), Malformed::Character)]
    {
        let Extracted { context, issues, .. } = decode(Some(value.as_bytes()), Some(b"foo=1"), None, &base);
        assert!(!context.has_active_span());
        assert_eq!(context.baggage().get("from").unwrap().as_str(), "base");
        assert_eq!((issues.traceparent, issues.tracestate), (Some(reason), Some(Malformed::Orphaned)));
        assert_eq!(header(&context, "tracestate"), None);
    }
}

#[test]
fn a_tracestate_without_a_traceparent_is_not_read() {
    let Extracted { context, issues, .. } = decode(None, Some(b"foo=1"), None, &Context::new());
    assert!(!context.has_active_span());
    assert_eq!((issues.traceparent, issues.tracestate), (None, Some(Malformed::Orphaned)));
    assert!(decode(None, Some(b" \t"), None, &Context::new()).issues.is_empty());
}

#[test]
fn a_bad_tracestate_is_dropped_and_the_parent_stays() {
    for (bad, reason) in
        [("foo=,bar=3", Malformed::Value), ("foo=1\r\nevil: 1", Malformed::Value), ("Foo=1", Malformed::Key)]
    {
        let Extracted { context, issues, .. } = read(&traceparent("01"), Some(bad), None);
        assert_eq!(issues.tracestate, Some(reason));
        assert_eq!(written(&context).0, [("traceparent", traceparent("01"))]);
    }
}

#[test]
fn what_is_left_out_is_counted() {
    let issues = read(&traceparent("01"), Some("a=1,b=2,a=3"), Some("x=1,y,z=\"2\"")).issues;
    assert_eq!((issues.tracestate_dropped, issues.baggage_dropped), (1, 2));
    assert!(!issues.is_empty());
}

#[test]
fn baggage_stands_without_a_trace() {
    let context = decode(None, None, Some(b"user=a"), &Context::new()).context;
    assert!(!context.has_active_span());
    assert_eq!(written(&context).0, [("baggage", "user=a".to_owned())]);
}

#[test]
fn white_space_around_a_traceparent_is_no_part_of_it() {
    let valid = traceparent("01");
    for padded in [format!(" {valid}"), format!("\t{valid}"), format!("{valid} "), format!("\t {valid} \t")] {
        assert_eq!(header(&read(&padded, None, None).context, "traceparent"), Some(valid.clone()));
        let twice = decode_all([padded.as_bytes(), valid.as_bytes()], [], [], &Context::new());
        assert_eq!(header(&twice.context, "traceparent"), Some(valid.clone()));
    }
    for (value, reason) in
        [(format!("{valid}\r\n"), Malformed::Length), (format!("\u{a0}{valid}"), Malformed::Delimiter)]
    {
        assert_eq!(read(&value, None, None).issues.traceparent, Some(reason));
    }
}

#[test]
fn a_higher_version_is_passed_on_as_version_00() {
    let Extracted { context, .. } = read(&format!("cc-{TRACE}-{SPAN}-ff-more"), Some("foo=1"), None);
    assert_eq!(header(&context, "traceparent"), Some(traceparent("03")));
    assert_eq!(header(&context, "tracestate").as_deref(), Some("foo=1"));
}

#[test]
fn lists_that_opentelemetry_cannot_hold_come_through_in_order() {
    for list in ["foo=1,0vendor=a,1a@b=2,bar=3", "foo@=1,bar=2", "a@b@c=1", "t@vvvvvvvvvvvvvvv=1,ot=th:8"] {
        let context = read(&traceparent("01"), Some(list), None).context;
        assert_eq!(header(&context, "tracestate").as_deref(), Some(list));
    }
    let context = read(&traceparent("01"), Some("foo@@bar=1,ot=th:8"), None).context;
    assert_eq!(context.span().span_context().trace_state().get("ot"), Some("th:8"), "samplers see what they can");
}

#[test]
fn several_headers_are_one_list() {
    let parent = traceparent("01");
    let read = |states: &[&'static str], baggage: &[&'static str]| {
        decode_all(
            [parent.as_bytes()],
            states.iter().map(|value| value.as_bytes()),
            baggage.iter().map(|value| value.as_bytes()),
            &Context::new(),
        )
    };
    let context = read(&["foo=1,bar=2", "rojo=1,congo=2", "baz=3"], &["a=1", " b=2", ""]).context;
    assert_eq!(header(&context, "tracestate").as_deref(), Some("foo=1,bar=2,rojo=1,congo=2,baz=3"));
    assert_eq!(header(&context, "baggage").as_deref(), Some("a=1,b=2"));

    for (states, expected) in [(["foo=1", ""], "foo=1"), (["", "foo=1"], "foo=1"), (["foo=1", "foo=2"], "foo=1")] {
        assert_eq!(header(&read(&states, &[]).context, "tracestate").as_deref(), Some(expected));
    }

    let many: Vec<&str> = vec!["a=1,b=2,c=3,d=4"; 8];
    assert_eq!(read(&many, &[]).issues.tracestate_dropped, 28);
    let too_many: Vec<&str> = vec!["a=1,b=2,c=3"; 11];
    assert_eq!(read(&too_many, &[]).issues.tracestate, Some(Malformed::TooManyMembers), "limits hold for the whole");
}

#[test]
fn different_traceparents_restart_the_trace() {
    let (one, other) = (traceparent("01"), format!("00-{TRACE}-{SPAN}-00"));
    let read = |parents: &[&str]| {
        decode_all(parents.iter().map(|value| value.as_bytes()), [&b"foo=1"[..]], [], &Context::new())
    };
    assert_eq!(header(&read(&[&one, &one, &one]).context, "traceparent"), Some(one.clone()));
    for parents in [[one.as_str(), other.as_str()], [&one, ""], ["", &one], [&one, "garbage"]] {
        let Extracted { context, issues, .. } = read(&parents);
        assert!(!context.has_active_span(), "{parents:?}");
        assert_eq!(issues.traceparent, Some(Malformed::Conflicting));
        assert_eq!(issues.tracestate, Some(Malformed::Orphaned));
    }
}

#[test]
fn a_context_without_a_valid_span_writes_no_trace() {
    let invalid = Context::new().with_remote_span_context(SpanContext::NONE);
    assert!(written(&invalid).0.is_empty());
}

#[test]
fn baggage_that_is_all_over_the_limit_writes_no_header() {
    let mut baggage = Baggage::new();
    baggage.insert("a", "\n".repeat(8000));
    let (headers, issues) = written(&Context::new().with_baggage(baggage));
    assert!(headers.is_empty());
    assert_eq!(issues.baggage_dropped, 1);
}

fn span(trace_id: u128, state: TraceState) -> SpanContext {
    SpanContext::new(trace_id.into(), 7.into(), TraceFlags::NOT_SAMPLED, false, state)
}

#[test]
fn what_is_beside_the_context_is_for_its_own_trace_only() {
    let received = read(&traceparent("03"), Some("0vendor=a,foo@=1"), None).context;
    let own = u128::from_str_radix(TRACE, 16).unwrap();

    let child = received.with_remote_span_context(span(own, received.span().span_context().trace_state().clone()));
    assert!(header(&child, "traceparent").unwrap().ends_with("-0000000000000007-02"));
    assert_eq!(header(&child, "tracestate").as_deref(), Some("0vendor=a,foo@=1"));

    let other = received.with_remote_span_context(span(own + 1, TraceState::NONE));
    assert!(header(&other, "traceparent").unwrap().ends_with("-0000000000000007-00"));
    assert_eq!(header(&other, "tracestate"), None);
}

#[test]
fn a_changed_list_wins_over_the_received_one() {
    let received = read(&traceparent("01"), Some("foo=1,a@b@c=2"), None).context;
    let own = u128::from_str_radix(TRACE, 16).unwrap();
    let changed = received.span().span_context().trace_state().insert("mine", "3").unwrap();
    let child = received.with_remote_span_context(span(own, changed));
    assert_eq!(header(&child, "tracestate").as_deref(), Some("mine=3,foo=1"));

    let emptied = received.with_remote_span_context(span(own, TraceState::NONE));
    assert_eq!(header(&emptied, "tracestate"), None);
}

#[test]
fn reading_again_forgets_what_an_earlier_reading_left() {
    let earlier = read(&traceparent("03"), Some("a@b@c=2"), None).context;
    let later = decode(Some(traceparent("00").as_bytes()), None, None, &earlier).context;
    assert_eq!(written(&later).0, [("traceparent", traceparent("00"))]);
}

#[test]
fn an_illegal_list_of_a_span_is_not_written() {
    let state = TraceState::from_key_value([("ok", "1"), ("evil", "1\r\nx: y")]).unwrap();
    let (headers, issues) = written(&Context::new().with_remote_span_context(span(1, state)));
    assert_eq!(headers[1], ("tracestate", "ok=1".to_owned()));
    assert_eq!(issues.tracestate_dropped, 1);
}
