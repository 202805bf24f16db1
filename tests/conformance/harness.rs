//! The kit's connection to the brokers of this crate.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_sdk::trace::SpanData;
use traced_broker::conformance::{Harness, Killable};
use traced_broker::driver::Driver;
use traced_broker::{Broker, Result, connect};

use crate::collector;
use crate::foreign;
use crate::support::{Kind, Server, shared};

/// The embedded broker; the open connection keeps it alive.
pub(crate) struct Embedded {
    _anchor: Broker,
}

const EMBEDDED: &str = "memory://conformance";

impl Embedded {
    pub(crate) fn new() -> Self {
        let anchor = futures_util::future::FutureExt::now_or_never(connect(EMBEDDED));
        Self { _anchor: anchor.expect("waits for nothing").expect("connects") }
    }
}

#[async_trait]
impl Harness for Embedded {
    fn name(&self) -> &str {
        "memory"
    }

    async fn connect(&self) -> Result<Arc<dyn Driver>> {
        driver(EMBEDDED).await
    }

    async fn export(&self, spans: Vec<SpanData>) -> Result<Option<String>> {
        Ok(Some(collector::export(spans).await))
    }
}

/// A broker on the server that the tests of this process share.
pub(crate) struct OnServer {
    name: &'static str,
    kind: Kind,
    options: &'static str,
}

impl OnServer {
    pub(crate) fn new(name: &'static str, kind: Kind, options: &'static str) -> Self {
        Self { name, kind, options }
    }

    async fn url(&self) -> String {
        let kind = self.kind;
        let server = blocking(move || shared(kind)).await;
        format!("{server}{}", self.options)
    }
}

#[async_trait]
impl Harness for OnServer {
    fn name(&self) -> &str {
        self.name
    }

    async fn connect(&self) -> Result<Arc<dyn Driver>> {
        driver(&self.url().await).await
    }

    async fn connect_with_secret(&self, secret: &str) -> Result<Arc<dyn Driver>> {
        driver(&self.url().await.replacen("://", &format!("://default:{secret}@"), 1)).await
    }

    async fn connect_to_check(&self) -> Result<Option<Arc<dyn Driver>>> {
        if !self.options.is_empty() {
            // Core NATS has no topology.
            return Ok(None);
        }
        Ok(Some(driver(&format!("{}?topology=check", self.url().await)).await?))
    }

    async fn publish_foreign(&self, topic: &str) -> Result<usize> {
        Ok(foreign::publish(self.kind, &self.url().await, topic).await)
    }

    async fn delete_group(&self, topic: &str, group: &str) -> Result<bool> {
        Ok(foreign::delete_group(self.kind, &self.url().await, topic, group).await)
    }

    async fn delete_topic(&self, topic: &str) -> Result<bool> {
        foreign::delete(self.kind, &self.url().await, topic).await;
        Ok(true)
    }

    async fn export(&self, spans: Vec<SpanData>) -> Result<Option<String>> {
        Ok(Some(collector::export(spans).await))
    }

    fn patience(&self) -> Duration {
        // A member of a Kafka group that is closed while it joins is missed only when its session
        // ends, after 20 seconds; until then the others get nothing.
        Duration::from_secs(if self.kind == Kind::Kafka { 45 } else { 20 })
    }

    async fn start_mortal(&self) -> Result<Option<Arc<dyn Killable>>> {
        if !self.options.is_empty() {
            // Core NATS stores no messages that a kill could lose.
            return Ok(None);
        }
        let kind = self.kind;
        let server = blocking(move || Arc::new(Server::start(kind))).await;
        Ok(Some(Arc::new(OwnServer { kind, server })))
    }
}

/// A server that one case may kill.
struct OwnServer {
    kind: Kind,
    server: Arc<Server>,
}

#[async_trait]
impl Killable for OwnServer {
    async fn connect(&self) -> Result<Arc<dyn Driver>> {
        driver(&self.server.url()).await
    }

    async fn kill(&self) -> Result<()> {
        let server = Arc::clone(&self.server);
        blocking(move || server.kill()).await;
        Ok(())
    }

    async fn restart(&self) -> Result<()> {
        let server = Arc::clone(&self.server);
        blocking(move || server.restart()).await;
        Ok(())
    }

    /// This program again, with the server in the place of the one that its cases share.
    fn other_process(&self) -> Option<Command> {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.env(self.kind.variable(), self.server.url());
        Some(command)
    }

    fn settling_time(&self) -> Duration {
        // RabbitMQ enters a new quorum queue in a register that it writes to disk every five
        // seconds. If the server is killed before that, the queue finds no leader after the
        // restart. No client can change that.
        let is_rabbitmq = matches!(self.kind, Kind::RabbitMq | Kind::RabbitMq4);
        if is_rabbitmq { Duration::from_secs(6) } else { Duration::ZERO }
    }
}

/// Returns the driver for the URL, connected as applications do it.
async fn driver(url: &str) -> Result<Arc<dyn Driver>> {
    Ok(Arc::clone(connect(url).await?.get_ref()))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("the testbed works")
}
