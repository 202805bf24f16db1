//! Opens a driver: its thread, its publishing connection and the channel on it.

use std::sync::Arc;

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::capabilities::capabilities;
use super::config::Settings;
use super::connection::engine::Engine;
use super::connection::link::Link;
use super::publish::Publisher;
use super::topology::bindings::DeadLetterTopics;
use super::trials::Logs;
use super::{Amqp, SYSTEM};
use crate::driver::Identity;
use crate::error::Result;

impl Amqp {
    pub(super) async fn open(settings: Settings) -> Result<Self> {
        let settings = settings.check()?;
        let engine = Engine::start()?;
        engine.run(Self::open_on(settings, Arc::clone(&engine))).await
    }

    /// Connects. Has to run on the engine, so that all tasks do.
    async fn open_on(settings: Settings, engine: Arc<Engine>) -> Result<Self> {
        let settings = Arc::new(settings);
        let closed = CancellationToken::new();
        let life = Arc::new(closed.clone().drop_guard());
        let (publishing, host) = Link::open(&settings, "publish", &closed, &engine).await?;
        let publishing = Arc::new(publishing);
        let dead_letters = Arc::new(DeadLetterTopics::new(settings.parked));
        let publisher = Publisher::start(&settings, Arc::clone(&publishing), Arc::clone(&dead_letters)).await?;
        let (host, port) = &settings.hosts[host];
        Ok(Self {
            identity: Identity::new(SYSTEM)
                .with_server(host, *port)
                .with_client_id(&settings.name)
                .with_max_in_flight(settings.max_in_flight)
                .with_delivery_timeout(settings.delivery_timeout),
            capabilities: capabilities(settings.max_payload),
            publisher,
            consuming: OnceCell::new(),
            settlers: Arc::default(),
            dead_letters,
            logs: Logs::new(Arc::clone(&publishing), settings.topology, Arc::clone(&engine), Arc::clone(&life)),
            publishing,
            closed,
            life,
            settings,
            engine,
        })
    }
}
