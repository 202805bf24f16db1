//! The capabilities of RabbitMQ.

use crate::driver::capability::{Capabilities, Confirm, Redelivery, TimestampSource};

/// Returns the capabilities of RabbitMQ with this largest payload.
pub(super) fn capabilities(max_payload: usize) -> Capabilities {
    Capabilities {
        confirm: Confirm::Broker,
        backlog: false,
        retry: Redelivery::NativeDelayed,
        native_key: false,
        timestamp: Some(TimestampSource::Producer),
        tombstones: false,
        delayed_publish: true,
        reader_resumes: false,
        confirms_settlements: false,
        sets_aside: true,
        notes_trials: true,
        max_payload: Some(max_payload),
        ..Capabilities::new()
    }
}
