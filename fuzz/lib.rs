//! The properties that the fuzz targets apply to their inputs: those of the tests, from the same
//! files.

#[path = "../tests/fuzz/corpus.rs"]
pub mod corpus;
#[path = "../tests/fuzz/dialect.rs"]
pub mod dialect;
#[path = "../tests/fuzz/headers.rs"]
pub mod headers;
#[path = "../tests/fuzz/traces.rs"]
pub mod traces;
#[path = "../tests/fuzz/url.rs"]
pub mod url;
#[path = "../tests/fuzz/w3c.rs"]
pub mod w3c;

pub use traced_broker::adapters::{amqp, kafka, nats, redis};

/// Declares a fuzz target: a property, and the memory that it may take.
#[macro_export]
macro_rules! target {
    ($property:path, $memory:ident) => {
        libfuzzer_sys::fuzz_target!(|input: &[u8]| $crate::corpus::hold($property, $crate::corpus::$memory, input));
    };
}
