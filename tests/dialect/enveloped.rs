//! Dialects that wrap the payload, or write headers into one field.

use traced_broker::Dialect;
use traced_broker::dialect::MAX_ENVELOPE;

use crate::sample::{PARENT, Said, UNSAMPLED, members, of_entry, read, unsampled, usual, with_state};

/// Returns an event in structured mode, in the JSON format of CloudEvents.
fn event(more: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"A234","source":"/orders","type":"com.example.order.placed",
            "datacontenttype":"application/json","data":{{"sku":"A-1","traceparent":"not this one","tags":[[1,{{}}],null]}}{more}}}"#
    )
}

fn of_body(dialect: Dialect, content_type: Option<&str>, body: &str) -> Option<Said> {
    let headers = content_type.map(|content_type| ("content-type", content_type)).into_iter().collect();
    read(dialect, &headers, Some(body.as_bytes()))
}

#[test]
fn cloud_events_in_structured_mode() {
    let body = event(&format!(r#","traceparent":"{PARENT}","tracestate":"rojo=1""#));
    for content_type in
        [Some("application/cloudevents+json; charset=utf-8"), Some("Application/JSON"), Some("text/json"), None]
    {
        assert_eq!(of_body(Dialect::CloudEvents, content_type, &body), Some(with_state("rojo=1")), "{content_type:?}");
    }
    assert_eq!(of_body(Dialect::CloudEvents, None, &format!("\n  {body}\n")), Some(with_state("rojo=1")));
    for content_type in ["application/cloudevents+avro", "application/octet-stream", "text/plain", "json"] {
        assert_eq!(of_body(Dialect::CloudEvents, Some(content_type), &body), None, "{content_type}");
    }
}

#[test]
fn what_is_no_event_is_not_read_as_one() {
    let bodies = [
        event(""),
        format!(r#"{{"traceparent":"{PARENT}"}}"#),
        format!("[{}]", event(&format!(r#","traceparent":"{PARENT}""#))),
        format!(r#"["1.0","{PARENT}",null,null,null]"#),
        event(r#","traceparent":5"#),
        event(&format!(r#","traceparent":"{PARENT}","traceparent":"{PARENT}""#)),
        event(&format!(r#","traceparent":"{PARENT}""#)).replace("\"1.0\"", "1.0"),
        format!("{} and more", event(&format!(r#","traceparent":"{PARENT}""#))),
    ];
    for body in bodies {
        assert_eq!(of_body(Dialect::CloudEvents, None, &body), None, "{body}");
    }
}

#[test]
fn the_headers_of_an_event_count_before_its_body() {
    let body = event(&format!(r#","traceparent":"{UNSAMPLED}""#));
    let headers = [("ce-traceparent", PARENT)].into_iter().collect();
    assert_eq!(read(Dialect::CloudEvents, &headers, Some(body.as_bytes())), Some(usual()));
}

#[test]
fn mass_transits_envelope() {
    let body = format!(
        r#"{{"messageId":"b64a0000-0481-dca9-a948-08d7650c25d3","conversationId":"b64a0000-0481-dca9-aac4-08d7650c25d3",
            "sourceAddress":"rabbitmq://localhost/api","destinationAddress":"rabbitmq://localhost/Orders:OrderPlaced",
            "messageType":["urn:message:Orders:OrderPlaced"],"message":{{"sku":"A-1"}},"sentTime":"2026-08-01T12:00:00Z",
            "headers":{{"MT-Activity-Id":"{PARENT}","tenant":7}},"host":{{"machineName":"shop"}}}}"#
    );
    let content_type = "application/vnd.masstransit+json";
    assert_eq!(of_body(Dialect::MassTransit, Some(content_type), &body), Some(usual()));
    assert_eq!(of_body(Dialect::MassTransit, Some(&format!("{content_type}; charset=utf-8")), &body), Some(usual()));
    assert_eq!(of_body(Dialect::MassTransit, Some("application/json"), &body), None);
    assert_eq!(of_body(Dialect::MassTransit, None, &body), None);
}

/// Encodes a string as `vmihailenco/msgpack` does: in the shortest form.
fn packed(text: &str) -> Vec<u8> {
    let length = text.len();
    let head = match length {
        0..=31 => vec![0xa0 | length as u8],
        32..=255 => vec![0xd9, length as u8],
        _ => [&[0xda], &(length as u16).to_be_bytes()[..]].concat(),
    };
    [&head[..], text.as_bytes()].concat()
}

fn packed_map(pairs: &[(&str, &str)]) -> Vec<u8> {
    let head = match pairs.len() {
        few @ 0..=15 => vec![0x80 | few as u8],
        many => [&[0xde], &(many as u16).to_be_bytes()[..]].concat(),
    };
    pairs.iter().fold(head, |map, (key, value)| [map, packed(key), packed(value)].concat())
}

fn watermill(metadata: &[u8]) -> Option<Said> {
    let uuid = b"6f1bb1a6-0b0b-4f47-8b3e-1d6f6b1a3c5d";
    let entry: [(&str, &[u8]); 3] =
        [("_watermill_message_uuid", uuid), ("metadata", metadata), ("payload", b"{\"sku\":\"A-1\"}")];
    of_entry(Dialect::Watermill, &entry)
}

#[test]
fn watermills_metadata() {
    let metadata = packed_map(&[("correlation_id", "7"), ("traceparent", PARENT), ("tracestate", "rojo=1")]);
    // The exact bytes of that library for the first pair: a map of three, strings of 14 and of 1.
    assert!(metadata.starts_with(b"\x83\xaecorrelation_id\xa17\xabtraceparent\xd9\x37"));
    assert_eq!(watermill(&metadata), Some(with_state("rojo=1")));
    assert_eq!(watermill(&packed_map(&[("Traceparent", UNSAMPLED)])), Some(unsampled()));
    let long = "x".repeat(70_000 - 1000 * 69);
    let names: Vec<String> = (0..20).map(|number| format!("key-{number}")).collect();
    let mut many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), long.as_str())).collect();
    many.push(("traceparent", PARENT));
    assert_eq!(watermill(&packed_map(&many)), Some(usual()), "a larger map with longer strings");
}

#[test]
fn every_form_of_a_map_of_strings_is_read() {
    let key = |head: &[u8]| [head, b"traceparent"].concat();
    let value = |head: &[u8]| [head, PARENT.as_bytes()].concat();
    for map in [&b"\x81"[..], b"\xde\0\x01", b"\xdf\0\0\0\x01"] {
        for (short, long) in [
            (&b"\xab"[..], &b"\xd9\x37"[..]),
            (b"\xd9\x0b", b"\xda\0\x37"),
            (b"\xda\0\x0b", b"\xdb\0\0\0\x37"),
            (b"\xdb\0\0\0\x0b", b"\xc4\x37"),
            (b"\xc4\x0b", b"\xc5\0\x37"),
            (b"\xc5\0\x0b", b"\xc6\0\0\0\x37"),
            (b"\xc6\0\0\0\x0b", b"\xd9\x37"),
        ] {
            let metadata = [map, &key(short), &value(long)].concat();
            assert_eq!(watermill(&metadata), Some(usual()), "{map:x?} {short:x?} {long:x?}");
        }
    }
}

#[test]
fn what_is_no_map_of_strings_is_not_read() {
    let good = packed_map(&[("traceparent", PARENT)]);
    assert_eq!(watermill(b""), None, "a message without metadata");
    assert_eq!(watermill(&packed_map(&[])), None);
    for cut in 0..good.len() {
        assert_eq!(watermill(&good[..cut]), None, "cut at {cut}");
    }
    assert_eq!(watermill(&[&good[..], b"\xc0"].concat()), None, "more behind it");
    let number = [&b"\x82\xa1n\x07\xabtraceparent\xd9\x37"[..], PARENT.as_bytes()].concat();
    assert_eq!(watermill(&number), None, "a number among the values");
    assert_eq!(watermill(b"\xdf\xff\xff\xff\xff"), None, "as many pairs as can be said");
    assert_eq!(watermill(b"\x81\xdb\xff\xff\xff\xff"), None, "a string as long as can be said");
    assert_eq!(watermill(&[b"\x91".repeat(100_000), good].concat()), None, "deep");
    assert_eq!(watermill(b"{\"traceparent\":\"x\"}"), None, "Dapr's");
}

/// Returns an event as Dapr's runtime writes it.
fn dapr_event(trace: &str) -> String {
    format!(
        r#"{{"data":{{"orderId":1}},"datacontenttype":"application/json","id":"5929aaac-a5e2-4ca1-859c-edfe73f11565",
            "pubsubname":"orders","source":"checkout","specversion":"1.0","time":"2026-08-01T12:00:00Z","topic":"orders",
            "type":"com.dapr.event.sent",{trace}}}"#
    )
}

#[test]
fn daprs_entries() {
    let new = dapr_event(&format!(r#""traceid":"{PARENT}","traceparent":"{PARENT}","tracestate":"""#));
    let old = dapr_event(&format!(r#""traceid":"{PARENT}""#));
    for event in [&new, &old] {
        assert_eq!(of_entry(Dialect::Dapr, &[("data", event.as_bytes())]), Some(usual()), "{event}");
        let entry: [(&str, &[u8]); 2] = [("data", event.as_bytes()), ("metadata", br#"{"ttlInSeconds":"60"}"#)];
        assert_eq!(of_entry(Dialect::Dapr, &entry), Some(usual()), "{event}");
        assert_eq!(of_body(Dialect::Dapr, None, event), Some(usual()), "on another broker: {event}");
    }
}

#[test]
fn daprs_raw_payloads_have_metadata_only() {
    let metadata = format!(r#"{{"rawPayload":"true","traceparent":"{UNSAMPLED}","baggage":"tenant=acme"}}"#);
    let entry: [(&str, &[u8]); 2] = [("data", b"\x01\x02"), ("metadata", metadata.as_bytes())];
    let expected = Said { baggage: members(&[("tenant", "acme")]), ..unsampled() };
    assert_eq!(of_entry(Dialect::Dapr, &entry), Some(expected));
    assert_eq!(of_entry(Dialect::Dapr, &[("data", b"{}"), ("metadata", b"null")]), None);
}

/// Returns a frame as FastStream writes it.
fn frame(headers: &[(&str, &str)], data: &[u8]) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    let pairs: Vec<u8> = headers.iter().flat_map(|(key, value)| [text(key), text(value)].concat()).collect();
    let start: u32 = 8 + 2 + 4 + 4;
    let end = start + 2 + pairs.len() as u32;
    let count = headers.len() as u16;
    [
        b"\x89BIN\r\n\x1a\n",
        &1_u16.to_be_bytes()[..],
        &start.to_be_bytes(),
        &end.to_be_bytes(),
        &count.to_be_bytes(),
        &pairs,
        data,
    ]
    .concat()
}

fn fast_stream(frame: &[u8]) -> Option<Said> {
    of_entry(Dialect::FastStream, &[("__data__", frame)])
}

#[test]
fn fast_streams_frames() {
    let headers =
        [("correlation_id", "c1"), ("content-type", "application/json"), ("traceparent", PARENT), ("baggage", "a=b")];
    let good = frame(&headers, b"{\"sku\":\"A-1\"}");
    let expected = Said { baggage: members(&[("a", "b")]), ..usual() };
    assert_eq!(fast_stream(&good), Some(expected));
    assert_eq!(fast_stream(&frame(&[("traceparent", UNSAMPLED)], &vec![0; 2 * MAX_ENVELOPE])), Some(unsampled()));
    assert_eq!(fast_stream(&frame(&[("correlation_id", "c1")], b"x")), None, "without a trace");
    let headers_end = good.len() - b"{\"sku\":\"A-1\"}".len();
    for cut in 0..headers_end {
        assert_eq!(fast_stream(&good[..cut]), None, "cut at {cut}");
    }
}

#[test]
fn fast_streams_frames_that_lie() {
    let good = frame(&[("traceparent", PARENT)], b"x");
    let with = |at: usize, bytes: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        fast_stream(&frame)
    };
    assert_eq!(with(8, &[0, 2]), None, "another version");
    assert_eq!(with(10, &[0xff; 4]), None, "headers that begin behind the end");
    assert_eq!(with(14, &[0xff; 4]), None, "data that begins behind the end");
    assert_eq!(with(14, &[0; 4]), None, "data that begins before the headers");
    assert_eq!(with(18, &[0xff; 2]), None, "more headers than there are");
    assert_eq!(with(20, &[0xff; 2]), None, "a longer name than there is");
}

#[test]
fn fast_streams_older_envelope() {
    let json = format!(
        r#"{{"data":"{{\"sku\":\"A-1\"}}","headers":{{"correlation_id":"c1","content-type":"application/json","traceparent":"{PARENT}"}}}}"#
    );
    assert_eq!(fast_stream(json.as_bytes()), Some(usual()));
    assert_eq!(fast_stream(br#"{"data":"x","headers":null}"#), None);
    assert_eq!(fast_stream(b"just data"), None);
}

#[test]
fn an_envelope_that_is_too_large_is_not_searched() {
    let filled = |fill: usize| event(&format!(r#","traceparent":"{PARENT}","filling":"{}""#, "x".repeat(fill)));
    let room = MAX_ENVELOPE - filled(0).len();
    assert_eq!(of_body(Dialect::CloudEvents, None, &filled(room)), Some(usual()));
    assert_eq!(of_body(Dialect::CloudEvents, None, &filled(room + 1)), None);
}
