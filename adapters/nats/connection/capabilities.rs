//! Capabilities of JetStream and core NATS.

use crate::driver::capability::{Attempts, Capabilities, Confirm, HeaderValues, Order, Redelivery, TimestampSource};

use super::super::config::{Acknowledge, Mode};
use super::api;

/// Returns the capabilities in this mode, with acknowledgements of this kind, on a server with this
/// level of the JetStream API.
pub(crate) fn capabilities(mode: Mode, acknowledge: Acknowledge, level: u64, max_payload: usize) -> Capabilities {
    let stored = Capabilities {
        confirm: Confirm::Broker,
        groups: true,
        at_least_once: true,
        backlog: true,
        retry: Redelivery::NativeDelayed,
        attempts: Attempts::Broker,
        order: Order::Stream,
        native_key: false,
        timestamp: Some(TimestampSource::Broker),
        header_values: HeaderValues::Text,
        tombstones: false,
        delayed_publish: level >= api::DELAY_LEVEL,
        start_at_time: true,
        start_at_offset: true,
        reposition: true,
        reader_resumes: true,
        // Otherwise they are on their way when they are answered.
        confirms_settlements: acknowledge == Acknowledge::Confirm,
        // A server that starts again hands out at once what waited for a retry.
        keeps_delays: false,
        // A server works on requests for messages beside what it gets back.
        keeps_places: false,
        sets_aside: true,
        notes_trials: true,
        max_payload: Some(max_payload),
    };
    match mode {
        Mode::JetStream => stored,
        Mode::Core => Capabilities {
            confirm: Confirm::Never,
            at_least_once: false,
            sets_aside: false,
            notes_trials: false,
            backlog: false,
            retry: Redelivery::Unsupported,
            attempts: Attempts::Never,
            order: Order::Publisher,
            timestamp: None,
            delayed_publish: false,
            start_at_time: false,
            start_at_offset: false,
            reposition: false,
            reader_resumes: false,
            confirms_settlements: false,
            ..stored
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_with_schedules_delay() {
        assert!(!capabilities(Mode::JetStream, Acknowledge::Send, api::DELAY_LEVEL - 1, 1).delayed_publish);
        assert!(capabilities(Mode::JetStream, Acknowledge::Send, api::DELAY_LEVEL, 1).delayed_publish);
        assert!(!capabilities(Mode::Core, Acknowledge::Send, api::DELAY_LEVEL, 1).delayed_publish);
    }
}
