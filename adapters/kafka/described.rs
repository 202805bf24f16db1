//! The identity and the capabilities of a connection.

use super::DEFAULT_PORT;
use super::config::KafkaBuilder;
use crate::driver::capability::{Attempts, Capabilities, Confirm, HeaderValues, Order, Redelivery, TimestampSource};
use crate::driver::{BrokerUrl, Identity};
use crate::names::attribute;

/// Returns the identity of a connection.
pub(super) fn identity(settings: &KafkaBuilder) -> Identity {
    let identity = Identity::new("kafka")
        .with_max_in_flight(settings.max_in_flight)
        .with_delivery_timeout(settings.delivery_timeout)
        .with_send_attributes(Some(attribute::KAFKA_MESSAGE_KEY), Some(attribute::KAFKA_OFFSET));
    let identity = match settings.shared_client().get("client.id") {
        Some(id) => identity.with_client_id(id),
        None => identity,
    };
    match BrokerUrl::parse(&format!("kafka://{}", settings.servers())) {
        Ok(url) => url.hosts(DEFAULT_PORT).first().map(|(host, port)| identity.clone().with_server(host, *port)),
        Err(_) => None,
    }
    .unwrap_or(identity)
}

/// Returns the capabilities of Kafka with these settings.
pub(super) fn capabilities(settings: &KafkaBuilder) -> Capabilities {
    let mut capabilities = Capabilities::new();
    capabilities.confirm = Confirm::Broker;
    capabilities.retry = Redelivery::Held;
    capabilities.confirms_settlements = false;
    capabilities.sets_aside = true;
    capabilities.notes_trials = true;
    capabilities.attempts = Attempts::Process;
    capabilities.order = Order::Partition;
    capabilities.timestamp = Some(TimestampSource::Producer);
    capabilities.header_values = HeaderValues::Bytes;
    capabilities.tombstones = true;
    capabilities.start_at_time = true;
    capabilities.start_at_offset = true;
    capabilities.reposition = true;
    capabilities.max_payload = Some(settings.max_message());
    capabilities
}
