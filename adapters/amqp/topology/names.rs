//! The names that the mapping of messages uses.

use crate::names::header;
use lapin::BasicProperties;
use lapin::types::ShortString;

/// The delivery mode of messages that the broker writes to disk.
pub(crate) const PERSISTENT: u8 = 2;

/// Headers that the broker uses as further routing keys, and whose type it checks.
pub(crate) const ROUTING_HEADERS: [&str; 2] = ["CC", "BCC"];

/// The header in which a quorum queue reports how often it has delivered a message before.
pub(crate) const DELIVERY_COUNT: &str = "x-delivery-count";

/// The header in which the broker lists the queues that handed the message on.
pub(crate) const DEATHS: &str = "x-death";
/// The headers in which the broker describes the first and the last of these queues.
pub(crate) const FIRST_AND_LAST_DEATH: [&str; 6] = [
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
];

/// Returns `true` if only this adapter or the broker writes the header. Such a header of an
/// application is left out.
pub(crate) fn is_reserved(name: &str) -> bool {
    [header::KEY, header::TIMESTAMP_IN_MS, DELIVERY_COUNT, header::PUBLISH_NUMBER].contains(&name)
        || is_for_waiting(name)
}

/// Returns `true` if the header leads a copy back to its queue or a message through the delay
/// queues.
pub(crate) fn is_for_waiting(name: &str) -> bool {
    let of_copies = [header::DELAYED_FOR, header::PRIOR_ATTEMPTS, header::PRIOR_DELIVERIES, header::RETRY_ROUTING_KEY];
    of_copies.contains(&name) || header::DELAY_DIGITS.contains(&name)
}

/// A header that AMQP carries as a message property.
pub(crate) struct Property {
    pub(crate) header: &'static str,
    pub(crate) get: fn(&BasicProperties) -> &Option<ShortString>,
    pub(crate) set: fn(BasicProperties, ShortString) -> BasicProperties,
}

/// The headers that AMQP carries as properties.
pub(crate) const PROPERTIES: [Property; 6] = [
    Property {
        header: header::CONTENT_TYPE,
        get: BasicProperties::content_type,
        set: BasicProperties::with_content_type,
    },
    Property {
        header: header::CONTENT_ENCODING,
        get: BasicProperties::content_encoding,
        set: BasicProperties::with_content_encoding,
    },
    Property {
        header: header::CORRELATION_ID,
        get: BasicProperties::correlation_id,
        set: BasicProperties::with_correlation_id,
    },
    Property { header: header::AMQP_TYPE, get: BasicProperties::kind, set: BasicProperties::with_type },
    Property { header: header::AMQP_APP_ID, get: BasicProperties::app_id, set: BasicProperties::with_app_id },
    Property { header: header::AMQP_REPLY_TO, get: BasicProperties::reply_to, set: BasicProperties::with_reply_to },
];
