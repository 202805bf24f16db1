//! The property of the dialects: a context that one of them reads is valid and can be passed on.

use opentelemetry::trace::TraceContextExt;
use traced_broker::{Dialect, Headers};

use super::w3c::passed_on;

/// The fields that hold a whole envelope on brokers without a binary payload.
const ENVELOPES: [&str; 3] = ["metadata", "data", "__data__"];

/// The input is header lines, `name: value`, an empty line, and a payload.
pub fn dialects(input: &[u8]) {
    let (head, payload) = parts(input);
    let headers: Headers = head
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let colon = line.windows(2).position(|pair| pair == b": ")?;
            Some((str::from_utf8(&line[..colon]).ok()?, &line[colon + 2..]))
        })
        .collect();
    read(&headers, Some(payload));
    read(&headers, None);
    for field in ENVELOPES {
        let mut enveloped = headers.clone();
        enveloped.append(field, payload);
        read(&enveloped, None);
    }
}

fn parts(input: &[u8]) -> (&[u8], &[u8]) {
    if let Some(payload) = input.strip_prefix(b"\n") {
        return (&[], payload);
    }
    match input.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (&input[..at], &input[at + 2..]),
        None => (input, &[]),
    }
}

fn read(headers: &Headers, payload: Option<&[u8]>) {
    for dialect in Dialect::ALL {
        if let Some(context) = dialect.read(headers, payload) {
            assert!(context.has_active_span(), "{dialect}");
            assert!(context.span().span_context().is_remote(), "{dialect}");
            passed_on(&context);
        }
    }
}
