//! The corpora of the fuzz targets, on the same properties. A file that once failed stays in its
//! corpus, so that these tests find the fault again without a fuzzer.
//!
//! Those of the adapters are next to their parsers, which are private: `adapters/*/fuzz.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "fuzz/corpus.rs"]
pub mod corpus;
#[path = "fuzz/dialect.rs"]
pub mod dialect;
#[path = "fuzz/headers.rs"]
pub mod headers;
#[path = "fuzz/traces.rs"]
pub mod traces;
#[path = "fuzz/url.rs"]
pub mod url;
#[path = "fuzz/w3c.rs"]
pub mod w3c;

use corpus::{DRAWN, PARSED, replay};

macro_rules! corpora {
    ($($name:ident: $property:path, $memory:expr;)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name), $property, $memory);
        })*
    };
}

corpora! {
    w3c_traceparent: w3c::traceparent, PARSED;
    w3c_tracestate: w3c::tracestate, PARSED;
    w3c_baggage: w3c::baggage, PARSED;
    w3c_headers: w3c::headers, PARSED;
    dialects: dialect::dialects, PARSED;
    broker_url: url::url, PARSED;
    headers_model: headers::headers, PARSED;
    headers_json: headers::json, PARSED;
    verify_otlp: traces::otlp_file, DRAWN;
    verify_answer: traces::answers, DRAWN;
    verify_drawings: traces::drawings, DRAWN;
}
