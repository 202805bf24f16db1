//! Creates a broker from a URL. Only this file and the list of adapter modules know which adapters
//! are compiled in.

use std::sync::Arc;

use crate::adapters;
use crate::broker::{Broker, Traced};
use crate::driver::{BrokerUrl, Driver};
use crate::error::{Error, ErrorKind, Result};

/// Every scheme. Each except `memory` needs the cargo feature of the same name.
pub const SCHEMES: [&str; 5] = ["memory", "kafka", "amqp", "nats", "redis"];

/// Connects to the broker that the URL names.
///
/// | URL, and that with TLS | broker | cargo feature |
/// |---|---|---|
/// | `memory://name` | embedded, one per name and process | none |
/// | `kafka://host:9092`, `kafkas://host:9092` | Apache Kafka | `kafka`, and `kafka-tls` |
/// | `amqp://user:password@host:5672/vhost`, `amqps://host:5671` | RabbitMQ | `amqp`, and `tls` |
/// | `nats://host:4222`, `nats://host:4222?mode=core`, `tls://host:4222` | NATS JetStream, core NATS | `nats` |
/// | `redis://host:6379/0`, `rediss://host:6379/0` | Redis Streams | `redis`, and `tls` |
///
/// Each adapter's [module](crate::adapters) lists its options.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use traced_broker::{Message, TracedBroker, connect};
///
/// let broker = connect("memory://shop").await?;
/// broker.publish("orders", Message::new("one pair of shoes")).await?;
/// # Ok(()) }
/// ```
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use traced_broker::{ErrorKind, connect};
///
/// for url in ["localhost:9092", "rabbit://localhost", "memory://shop?capcity=5"] {
///     let error = connect(url).await.unwrap_err();
///     assert_eq!(error.kind(), ErrorKind::InvalidConfig);
///     println!("{error}"); // with the known schemes or options
/// }
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] for an unknown scheme or option, with the known ones;
/// [`ErrorKind::FeatureDisabled`] if the scheme's feature is off; [`ErrorKind::Unavailable`],
/// [`ErrorKind::Unauthenticated`] and similar kinds if the broker cannot be reached or refuses the
/// connection.
pub async fn connect(url: impl AsRef<str>) -> Result<Broker> {
    let connected = match BrokerUrl::parse(url.as_ref()) {
        Ok(url) => connect_driver(&url).await,
        Err(error) => Err(error),
    };
    connected.map(Traced::new).map_err(|error| error.with_operation("connect"))
}

async fn connect_driver(url: &BrokerUrl) -> Result<Arc<dyn Driver>> {
    match url.scheme() {
        "memory" => Ok(Arc::new(adapters::memory::Memory::connect(url)?)),
        #[cfg(feature = "kafka")]
        "kafka" | "kafkas" => Ok(Arc::new(adapters::kafka::Kafka::connect(url).await?)),
        #[cfg(feature = "amqp")]
        "amqp" | "amqps" => Ok(Arc::new(adapters::amqp::Amqp::connect(url).await?)),
        #[cfg(feature = "nats")]
        "nats" | "tls" => Ok(Arc::new(adapters::nats::Nats::connect(url).await?)),
        #[cfg(feature = "redis")]
        "redis" | "rediss" => Ok(Arc::new(adapters::redis::Redis::connect(url).await?)),
        other => Err(match SCHEMES.into_iter().find(|known| *known == without_tls(other)) {
            Some(known) => {
                let feature = if other == "kafkas" { "kafka-tls" } else { known };
                let message = format!(
                    "this build has no {known}: add `features = [\"{feature}\"]` to traced-broker in Cargo.toml"
                );
                Error::new(ErrorKind::FeatureDisabled, message)
            }
            None => Error::new(ErrorKind::InvalidConfig, "the broker URL has an unknown scheme")
                .with_context("scheme", other)
                .with_context("known", SCHEMES.join(" ")),
        }),
    }
}

/// Returns the scheme of the same broker without TLS.
fn without_tls(scheme: &str) -> &str {
    match scheme {
        "kafkas" => "kafka",
        "amqps" => "amqp",
        "tls" => "nats",
        "rediss" => "redis",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_scheme_that_only_looks_like_one_with_tls_is_unknown() {
        for url in ["memorys://shop", "natss://localhost", "redisss://localhost"] {
            assert_eq!(connect(url).await.unwrap_err().kind(), ErrorKind::InvalidConfig, "{url}");
        }
    }
}
