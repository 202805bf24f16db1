//! What the author of an adapter writes: how the kit reaches the broker.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, TracerProviderBuilder};

use super::spans::Spans;
use crate::broker::Broker;
use crate::driver::Driver;
use crate::error::Result;

/// How the kit reaches one broker.
///
/// Only two methods have to be written. Connections are made within the runtime of a case, a fresh one for each case: what the
/// connections of several cases share must not live in tasks of one of them.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// What the broker is called in the names of tests, such as `kafka`.
    fn name(&self) -> &str;

    /// A new connection to the broker, made as the adapter's users make it. Every call reaches the same broker, which
    /// outlives the connections.
    ///
    /// # Errors
    /// What the adapter reports; the case fails with it.
    async fn connect(&self) -> Result<Arc<dyn Driver>>;

    /// Connects with credentials, `secret` being the password, token or the like. They may be wrong: then what matters is
    /// that no text of the error holds them.
    ///
    /// By default a plain connection, for brokers without credentials.
    ///
    /// # Errors
    /// What the adapter reports.
    async fn connect_with_secret(&self, secret: &str) -> Result<Arc<dyn Driver>> {
        let _ = secret;
        self.connect().await
    }

    /// The names of the span attributes that the adapter adds of its own, such as `messaging.files.number`.
    ///
    /// Every span is held to the messaging conventions and to this library's registry; an attribute that is in neither, and not
    /// among these, fails. By default there are none.
    fn own_attributes(&self) -> &[&str] {
        &[]
    }

    /// Starts a broker that one case has for itself, to kill it.
    ///
    /// Needed by adapters whose [`Confirm`](crate::capability::Confirm) is `Broker`: what they confirm outlives the broker's
    /// process. By default there is none. A broker that is embedded cannot be killed without its clients: it drops all that it has
    /// in memory, as it does when its storage fails.
    ///
    /// # Errors
    /// When it cannot be started; the case fails with it.
    async fn start_mortal(&self) -> Result<Option<Arc<dyn Mortal>>> {
        Ok(None)
    }

    /// The tracer provider of one case, which exports every span to `spans` as it ends. By default nothing is added.
    ///
    /// Add the span processors, limits and id generators of your own programs to see whether traces survive them.
    fn tracer_provider(&self, builder: TracerProviderBuilder, spans: Spans) -> SdkTracerProvider {
        builder.with_simple_exporter(spans).build()
    }

    /// The telemetry over each connection that a case makes, before the case gives it its tracer provider. By default left as it is.
    ///
    /// Give it the propagator of your own programs, which has to read and write the headers of the W3C.
    fn set_up(&self, broker: Broker) -> Broker {
        broker
    }

    /// Exports the spans of one case once more, by a pipeline such as OTLP to a collector, and gives back what arrived at its end, as
    /// OTLP/JSON lines: the kit then holds that to be the same spans. By default there is no such pipeline.
    ///
    /// # Errors
    /// When it cannot be exported or read back; the case fails with it.
    async fn export(&self, spans: Vec<SpanData>) -> Result<Option<String>> {
        let _ = spans;
        Ok(None)
    }

    /// How many messages the largest stress case sends. Meant to be lowered only where a hundred thousand would take minutes.
    fn many(&self) -> usize {
        100_000
    }

    /// How long a case waits for something that must happen; a rebalance on a busy machine may take its time.
    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }

    /// How long a case watches for something that must not happen: longer than a message takes to arrive.
    fn quiet(&self) -> Duration {
        Duration::from_millis(700)
    }
}

/// A broker that may be killed and started again. Dropping it ends it.
#[async_trait]
pub trait Mortal: Send + Sync + 'static {
    /// A new connection.
    ///
    /// # Errors
    /// What the adapter reports.
    async fn connect(&self) -> Result<Arc<dyn Driver>>;

    /// Kills it as `SIGKILL` does, starts it again at the same address with what it had stored, and waits until it answers.
    ///
    /// # Errors
    /// When it does not come back.
    async fn kill_and_restart(&self) -> Result<()>;

    /// How long after topics and groups were made a kill may come without the broker forgetting them; zero for most.
    fn settling_time(&self) -> Duration {
        Duration::ZERO
    }
}
