//! What the two messagings of NATS can do.

use crate::capability::{Attempts, Capabilities, Confirm, HeaderValues, Order, Retry, TimestampSource};

use super::config::Mode;
use super::delay;

/// The capabilities on a server of that level of the JetStream API.
pub(super) fn capabilities(mode: Mode, level: u64, max_payload: usize) -> Capabilities {
    let stored = Capabilities {
        confirm: Confirm::Broker,
        groups: true,
        at_least_once: true,
        backlog: true,
        retry: Retry::NativeDelayed,
        attempts: Attempts::Broker,
        order: Order::Stream,
        native_key: false,
        timestamp: Some(TimestampSource::Broker),
        header_values: HeaderValues::Text,
        tombstones: false,
        delayed_publish: level >= delay::LEVEL,
        start_at_time: true,
        start_at_offset: true,
        reposition: true,
        max_payload: Some(max_payload),
    };
    match mode {
        Mode::JetStream => stored,
        Mode::Core => Capabilities {
            confirm: Confirm::Never,
            at_least_once: false,
            backlog: false,
            retry: Retry::Unsupported,
            attempts: Attempts::Never,
            order: Order::Publisher,
            timestamp: None,
            delayed_publish: false,
            start_at_time: false,
            start_at_offset: false,
            reposition: false,
            ..stored
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_with_schedules_delay() {
        assert!(!capabilities(Mode::JetStream, delay::LEVEL - 1, 1).delayed_publish);
        assert!(capabilities(Mode::JetStream, delay::LEVEL, 1).delayed_publish);
        assert!(!capabilities(Mode::Core, delay::LEVEL, 1).delayed_publish);
    }
}
