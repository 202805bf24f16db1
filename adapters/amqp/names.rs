//! The names that the mapping of messages uses.

use lapin::BasicProperties;
use lapin::types::ShortString;

use super::{delay, returned};

/// The header that holds the message's key.
pub(super) const KEY: &str = "message-key";
/// The header that holds the time of publishing in milliseconds, named as by RabbitMQ's own timestamp plugin.
pub(super) const TIMESTAMP: &str = "timestamp_in_ms";
/// The header in which a quorum queue says how often it has delivered a message before.
pub(super) const DELIVERY_COUNT: &str = "x-delivery-count";

/// The header that says for which topic or queue a message waited.
pub(super) const TARGET: &str = "delayed-for";
/// The header that holds the attempts at a message before it was put back to be retried later.
pub(super) const PRIOR_ATTEMPTS: &str = "prior-attempts";
/// The header in which the broker says which queues handed the message on.
pub(super) const DEATHS: &str = "x-death";
/// The headers in which it says so of the first and the last of them.
pub(super) const FIRST_AND_LAST_DEATH: [&str; 6] = [
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
];

/// Whether the header is written by this adapter or the broker alone. Such a header of a user's is left out.
pub(super) fn is_reserved(name: &str) -> bool {
    [KEY, TIMESTAMP, DELIVERY_COUNT, returned::NUMBER].contains(&name) || is_for_waiting(name)
}

/// Whether the header is one by which a message finds its way through the queues in which it waits.
pub(super) fn is_for_waiting(name: &str) -> bool {
    name == TARGET || name == PRIOR_ATTEMPTS || delay::HEADERS.contains(&name)
}

/// A header that is a property of the message in AMQP.
pub(super) struct Property {
    pub(super) header: &'static str,
    pub(super) get: fn(&BasicProperties) -> &Option<ShortString>,
    pub(super) set: fn(BasicProperties, ShortString) -> BasicProperties,
}

/// The headers that are properties.
pub(super) const PROPERTIES: [Property; 3] = [
    Property {
        header: crate::message::CONTENT_TYPE,
        get: BasicProperties::content_type,
        set: BasicProperties::with_content_type,
    },
    Property {
        header: "content-encoding",
        get: BasicProperties::content_encoding,
        set: BasicProperties::with_content_encoding,
    },
    Property {
        header: "correlation-id",
        get: BasicProperties::correlation_id,
        set: BasicProperties::with_correlation_id,
    },
];
