//! The raw clients, chosen by the URL's scheme as in the library.

#[cfg(feature = "amqp")]
mod amqp;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "redis")]
mod redis;

use std::time::Duration;

/// Publishes, confirmed, with `in_flight` unconfirmed at a time; with `headers`, each message has
/// its own `traceparent`.
#[allow(unused_variables, reason = "a build without brokers has none to publish to")]
pub(crate) async fn publish(
    url: &str,
    topic: &str,
    messages: usize,
    payload: usize,
    in_flight: usize,
    headers: bool,
) -> Duration {
    match url.split(':').next() {
        #[cfg(feature = "amqp")]
        Some("amqp") => amqp::publish(url, topic, messages, payload, in_flight, headers).await,
        #[cfg(feature = "kafka")]
        Some("kafka") => kafka::publish(url, topic, messages, payload, in_flight, headers).await,
        #[cfg(feature = "nats")]
        Some("nats") => nats::publish(url, topic, messages, payload, in_flight, headers).await,
        #[cfg(feature = "redis")]
        Some("redis") => redis::publish(url, topic, messages, payload, in_flight, headers).await,
        scheme => panic!("no raw client for {scheme:?}: add its feature"),
    }
}

/// Consumes as a member of the group and acknowledges all messages; if acknowledgements have
/// answers, with `in_flight` unanswered.
#[allow(unused_variables, reason = "a build without brokers has none to consume from")]
pub(crate) async fn consume(url: &str, topic: &str, group: &str, messages: usize, in_flight: usize) -> Duration {
    match url.split(':').next() {
        #[cfg(feature = "amqp")]
        Some("amqp") => amqp::consume(url, topic, group, messages).await,
        #[cfg(feature = "kafka")]
        Some("kafka") => kafka::consume(url, topic, group, messages).await,
        #[cfg(feature = "nats")]
        Some("nats") => nats::consume(url, topic, group, messages).await,
        #[cfg(feature = "redis")]
        Some("redis") => redis::consume(url, topic, group, messages, in_flight).await,
        scheme => panic!("no raw client for {scheme:?}: add its feature"),
    }
}
