//! A connection to a mortal broker, made anew after each of its deaths.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use traced_broker::adapters::memory::Memory;
use traced_broker::capability::Confirm;
use traced_broker::driver::{Confirmation, Confirmer, Destination, Driver, DriverExt, Identity, Outbound, Source};
use traced_broker::{Capabilities, Error, ErrorKind, Receipt, Result, Start, Subscription, Topic};

use super::fetching::{Fetching, Life};
use super::{DriverFault, Mortal};

pub(crate) struct Connection {
    identity: Identity,
    capabilities: Capabilities,
    line: Arc<Line>,
}

/// The part of a connection that its sources share.
pub(super) struct Line {
    pub(super) broker: Arc<Mortal>,
    pub(super) closed: CancellationToken,
    current: Mutex<(u64, Arc<Memory>)>,
}

impl Connection {
    pub(super) fn open(broker: &Arc<Mortal>) -> Result<Self> {
        let current = broker.open()?;
        let identity = current.1.identity().clone();
        let mut capabilities = current.1.capabilities().clone();
        capabilities.confirm = Confirm::Broker;
        let line = Line { broker: Arc::clone(broker), closed: CancellationToken::new(), current: Mutex::new(current) };
        Ok(Self { identity, capabilities, line: Arc::new(line) })
    }
}

impl Line {
    /// Returns the connection of this life.
    pub(super) fn current(&self) -> Result<(u64, Arc<Memory>)> {
        if self.closed.is_cancelled() {
            return Err(Error::new(ErrorKind::Closed, "the connection is closed"));
        }
        let life = *self.broker.life.borrow();
        let mut current = self.current.lock();
        if life != Some(current.0) {
            *current = self.broker.open()?;
        }
        Ok(current.clone())
    }

    fn memory(&self) -> Result<Arc<Memory>> {
        self.current().map(|(_, memory)| memory)
    }

    /// Returns the error of a call that had no effect. A connection that a kill closed between
    /// the look at the broker's life and the call is restored.
    fn explain(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Closed || self.closed.is_cancelled() {
            return error;
        }
        Error::new(ErrorKind::Unavailable, "the broker was killed").with_source(error)
    }

    /// Waits until the broker lives; returns `false` if the connection is closed first.
    pub(super) async fn lives(&self) -> bool {
        let mut life = self.broker.life.subscribe();
        self.closed.run_until_cancelled(life.wait_for(Option::is_some)).await.is_some()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

#[async_trait]
impl Driver for Connection {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        self.line.memory()?.declare(topic).await.map_err(|error| self.line.explain(error))
    }

    fn publish(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        let memory = match self.line.memory() {
            Err(error) if error.is_retryable() && self.line.broker.fault == DriverFault::WaitsForTheBroker => {
                let (line, topic) = (Arc::clone(&self.line), topic.clone());
                let waiting = Confirmation::running(async move {
                    line.lives().await;
                    line.memory()?.enqueue(&topic, message).await
                });
                return waiting.pass_to(confirmer);
            }
            Err(error) => return confirmer.confirm(Err(error)),
            Ok(memory) => memory,
        };
        let (line, stored) = (Arc::clone(&self.line), memory.enqueue(topic, message));
        let stored = Confirmation::running(async move {
            let mut receipt = stored.await.map_err(|error| line.explain(error))?;
            if line.broker.fault == DriverFault::CountsOffsetsFromOne {
                receipt.offset = receipt.offset.map(|offset| offset + 1);
            }
            Ok(receipt)
        });
        stored.pass_to(confirmer);
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        let (life, memory) = self.line.current()?;
        let source = memory.subscribe(subscription).await.map_err(|error| self.line.explain(error))?;
        let destination = source.destination.clone();
        let fetching = Fetching::new(Arc::clone(&self.line), subscription.clone(), Life { number: life, source });
        let fetched = fetching.fetched();
        let keeps = self.line.broker.fault == DriverFault::KeepsWhatItFetchedWhenStopped;
        let source = Source::new(destination, fetching.into_stream());
        Ok(if keeps { source } else { source.on_stop(move || fetched.stop()) })
    }

    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()> {
        self.line.memory()?.reposition(subscription, start).await.map_err(|error| self.line.explain(error))
    }

    async fn ping(&self) -> Result<()> {
        self.line.memory()?.ping().await.map_err(|error| self.line.explain(error))
    }

    async fn close(&self) -> Result<()> {
        let memory = self.line.memory();
        self.line.closed.cancel();
        match memory {
            Ok(memory) => memory.close().await,
            Err(_) => Ok(()),
        }
    }
}
