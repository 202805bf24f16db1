//! The part that the author of an adapter writes: access to the broker.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, TracerProviderBuilder};

use super::spans::Spans;
use crate::broker::Broker;
use crate::driver::Driver;
use crate::error::Result;

/// Access to one broker for the kit.
///
/// Only two methods are required. Connections are made on the runtime of a case, and each case has
/// a new runtime. Therefore state that connections of several cases share must not live in tasks
/// spawned during one of them.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// Returns the name of the broker in the names of tests, such as `kafka`.
    fn name(&self) -> &str;

    /// Opens a new connection to the broker, in the way the adapter's users do. Every call reaches
    /// the same broker, which outlives the connections.
    ///
    /// # Errors
    /// The error that the adapter reports; the case fails with it.
    async fn connect(&self) -> Result<Arc<dyn Driver>>;

    /// Connects with credentials; `secret` is the password, token or the like. The credentials may
    /// be wrong. The error must then not contain them in any of its texts.
    ///
    /// The default opens a plain connection, for brokers without credentials.
    ///
    /// # Errors
    /// The error that the adapter reports.
    async fn connect_with_secret(&self, secret: &str) -> Result<Arc<dyn Driver>> {
        let _ = secret;
        self.connect().await
    }

    /// Returns the names of additional span attributes that the adapter sets, such as
    /// `messaging.files.number`.
    ///
    /// Every span is checked against the messaging conventions and this library's registry. An
    /// attribute that is in neither of them, and not in this list, fails the case. The default is
    /// an empty list.
    fn own_attributes(&self) -> &[&str] {
        &[]
    }

    /// Starts a broker for the exclusive use of one case, which kills it.
    ///
    /// Required for adapters whose [`Confirm`](crate::driver::capability::Confirm) is `Broker`,
    /// because the messages they confirm outlive the broker's process. The default returns `None`.
    /// An embedded broker cannot be killed without its clients. Instead, it drops everything it
    /// holds in memory, as it does when its storage fails.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be started; the case fails with it.
    async fn start_mortal(&self) -> Result<Option<Arc<dyn Killable>>> {
        Ok(None)
    }

    /// Opens a new connection to the same broker that creates no topology: with `topology=check` or
    /// the adapter's name for it. The default returns `None`: there is no such option.
    ///
    /// # Errors
    /// The error that the adapter reports; the case fails with it.
    async fn connect_to_check(&self) -> Result<Option<Arc<dyn Driver>>> {
        Ok(None)
    }

    /// Publishes messages to the topic, which exists, as a foreign producer does that knows nothing
    /// of this library: with another client, bytes that are no message of the adapter's form, and
    /// values of every type that the protocol has. Returns their number; the default is 0, which
    /// means that there is no such producer.
    ///
    /// # Errors
    /// Returns an error if they cannot be published; the case fails with it.
    async fn publish_foreign(&self, topic: &str) -> Result<usize> {
        let _ = topic;
        Ok(0)
    }

    /// Deletes the topic at the broker with another client, with all of its messages, as an
    /// operator does by mistake. Returns `false`, as by default, if the harness cannot.
    ///
    /// # Errors
    /// Returns an error if it cannot be deleted; the case fails with it.
    async fn delete_topic(&self, topic: &str) -> Result<bool> {
        let _ = topic;
        Ok(false)
    }

    /// Deletes the group of the topic at the broker with another client, while it has members.
    /// Returns `false`, as by default, if the harness or the broker cannot.
    ///
    /// # Errors
    /// Returns an error if it cannot be deleted; the case fails with it.
    async fn delete_group(&self, topic: &str, group: &str) -> Result<bool> {
        let _ = (topic, group);
        Ok(false)
    }

    /// Builds the tracer provider of one case, which exports every span to `spans` as it ends. The
    /// default adds nothing else.
    ///
    /// Override it to add the span processors, limits and id generators of your own programs, and
    /// see whether traces survive them.
    fn tracer_provider(&self, builder: TracerProviderBuilder, spans: Spans) -> SdkTracerProvider {
        builder.with_simple_exporter(spans).build()
    }

    /// Configures the telemetry over each connection of a case, before the case sets its tracer
    /// provider. The default changes nothing.
    ///
    /// Override it to set the propagator of your own programs, which must read and write the W3C
    /// headers.
    fn set_up(&self, broker: Broker) -> Broker {
        broker
    }

    /// Exports the spans of one case once more, through a pipeline such as OTLP to a collector, and
    /// returns the spans that arrived at its end, as OTLP/JSON lines. The kit then checks that they
    /// are the same spans. The default returns `None`: there is no such pipeline.
    ///
    /// # Errors
    /// Returns an error if the spans cannot be exported or read back; the case fails with it.
    async fn export(&self, spans: Vec<SpanData>) -> Result<Option<String>> {
        let _ = spans;
        Ok(None)
    }

    /// Returns the number of messages that the largest stress case sends. Lower it only if a
    /// hundred thousand would take minutes.
    fn many(&self) -> usize {
        100_000
    }

    /// Returns the maximum time that a case waits for something that must happen. A rebalance on a
    /// busy machine may be slow.
    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }

    /// Returns the time that a case watches for something that must not happen. It must be longer
    /// than a message takes to arrive.
    fn quiet(&self) -> Duration {
        Duration::from_millis(700)
    }
}

/// A broker that can be killed and restarted. Dropping it stops the broker.
#[async_trait]
pub trait Killable: Send + Sync + 'static {
    /// Opens a new connection.
    ///
    /// # Errors
    /// The error that the adapter reports.
    async fn connect(&self) -> Result<Arc<dyn Driver>>;

    /// Kills the broker as `SIGKILL` does, and returns once it is gone: what it had not stored is
    /// lost, wherever it stood.
    ///
    /// An embedded broker must be able to die in the middle of a commit, with messages taken and
    /// not stored, and answers not given. A kill that waits for the commit proves nothing.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be killed.
    async fn kill(&self) -> Result<()>;

    /// Restarts the killed broker at the same address with the data it had stored, and waits until
    /// it answers.
    ///
    /// # Errors
    /// Returns an error if the broker does not come back.
    async fn restart(&self) -> Result<()>;

    /// Kills the broker and restarts it at once.
    ///
    /// # Errors
    /// Same as [`kill`](Self::kill) and [`restart`](Self::restart).
    async fn kill_and_restart(&self) -> Result<()> {
        self.kill().await?;
        self.restart().await
    }

    /// Returns the command that starts another process on this broker: a program that calls
    /// [`main`](super::main) with a harness of the same name, whose
    /// [`connect`](Harness::connect) reaches this broker; as a rule this test program, with the
    /// address in its environment. The kit kills it in the middle of its work.
    ///
    /// The default returns `None`. Return a command if processes share the broker, and if it is
    /// embedded and keeps its data: only the death of a process is a crash without a warning.
    fn other_process(&self) -> Option<Command> {
        None
    }

    /// Returns the time that must pass between the creation of topics and groups and a kill, so
    /// that the broker does not forget them. Zero for most brokers.
    fn settling_time(&self) -> Duration {
        Duration::ZERO
    }
}
