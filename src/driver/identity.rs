//! The identity of a driver and the native names of its destinations, for spans, metrics and
//! errors.

use std::sync::Arc;
use std::time::Duration;

/// The identity of a driver, for spans, metrics and errors.
///
/// ```
/// use traced_broker::driver::Identity;
///
/// let identity = Identity::new("pulsar")
///     .with_server("broker.example", 6650)
///     .with_client_id("shop")
///     .with_max_in_flight(0);
/// assert_eq!(identity.server_address.as_deref(), Some("broker.example"));
/// assert_eq!(identity.max_in_flight, 1); // at least one
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Identity {
    /// The `messaging.system` of the semantic conventions: `kafka`, `rabbitmq`, `nats`, `redis` or
    /// `memory`. Other brokers use another lower-case word.
    pub system: &'static str,
    /// `server.address`: the host of the broker, without credentials.
    pub server_address: Option<Arc<str>>,
    /// `server.port`.
    pub server_port: Option<u16>,
    /// `messaging.client.id`: the name by which the client identifies itself to the broker, if it
    /// does.
    pub client_id: Option<Arc<str>>,
    /// Maximum number of publishes that the layer above leaves unanswered at a time. A publish
    /// counts until its confirmer is answered or dropped, even if its sender gave it up. So a
    /// driver with its own limit must free the slot before it answers.
    pub max_in_flight: usize,
    /// Maximum time that a publish may take. The layer above ends the wait for a place in flight by
    /// it, the driver the wait for the broker's answer.
    pub delivery_timeout: Duration,
    /// The attribute of send spans that holds the message's key, if the conventions name one.
    pub key_attribute: Option<&'static str>,
    /// The attribute of send spans that holds the [receipt's offset](crate::Receipt::offset), if
    /// there is one.
    pub offset_attribute: Option<&'static str>,
}

impl Identity {
    /// The default of [`max_in_flight`](Self::max_in_flight).
    pub const DEFAULT_MAX_IN_FLIGHT: usize = 1024;

    /// The time limit of a publish unless a driver sets another: 30 seconds.
    pub const DEFAULT_DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

    /// Creates an identity without an address and with the default bound.
    pub fn new(system: &'static str) -> Self {
        Self {
            system,
            server_address: None,
            server_port: None,
            client_id: None,
            max_in_flight: Self::DEFAULT_MAX_IN_FLIGHT,
            delivery_timeout: Self::DEFAULT_DELIVERY_TIMEOUT,
            key_attribute: None,
            offset_attribute: None,
        }
    }

    /// Sets the attributes that hold key and offset on send spans.
    #[must_use]
    pub fn with_send_attributes(mut self, key: Option<&'static str>, offset: Option<&'static str>) -> Self {
        self.key_attribute = key;
        self.offset_attribute = offset;
        self
    }

    /// Sets the address.
    #[must_use]
    pub fn with_server(mut self, address: impl AsRef<str>, port: u16) -> Self {
        self.server_address = Some(address.as_ref().into());
        self.server_port = Some(port);
        self
    }

    /// Sets the name by which the client identifies itself to the broker.
    #[must_use]
    pub fn with_client_id(mut self, id: impl AsRef<str>) -> Self {
        self.client_id = Some(id.as_ref().into());
        self
    }

    /// Sets the maximum number of unconfirmed publishes, at least 1.
    #[must_use]
    pub fn with_max_in_flight(mut self, publishes: usize) -> Self {
        self.max_in_flight = publishes.max(1);
        self
    }

    /// Sets the time limit of a publish.
    #[must_use]
    pub fn with_delivery_timeout(mut self, limit: Duration) -> Self {
        self.delivery_timeout = limit;
        self
    }
}

/// The native name of a topic or subscription, for spans.
///
/// ```
/// use traced_broker::driver::{AttributeValue, Destination};
/// use traced_broker::names::attribute;
///
/// let queue = Destination::new()
///     .named("amq.topic:orders")
///     .with_attribute(attribute::RABBITMQ_ROUTING_KEY, "orders")
///     .with_attribute(attribute::DESTINATION_TEMPORARY, true);
/// assert_eq!(queue.name.as_deref(), Some("amq.topic:orders"));
/// assert_eq!(queue.attributes[1].1, AttributeValue::Flag(true));
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Destination {
    /// `messaging.destination.name` if it differs from the topic, as RabbitMQ's conventions
    /// require.
    pub name: Option<Arc<str>>,
    /// The attributes of every span of this destination.
    pub attributes: Vec<(&'static str, AttributeValue)>,
}

impl Destination {
    /// Creates a destination whose native name is the topic.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the native name.
    #[must_use]
    pub fn named(mut self, name: impl AsRef<str>) -> Self {
        self.name = Some(name.as_ref().into());
        self
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with_attribute(mut self, key: &'static str, value: impl Into<AttributeValue>) -> Self {
        self.attributes.push((key, value.into()));
        self
    }
}

/// The value of a span attribute that an adapter sets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttributeValue {
    /// A text.
    Text(Arc<str>),
    /// A whole number.
    Integer(i64),
    /// A truth value.
    Flag(bool),
}

impl From<&str> for AttributeValue {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<Arc<str>> for AttributeValue {
    fn from(text: Arc<str>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for AttributeValue {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<bool> for AttributeValue {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}
