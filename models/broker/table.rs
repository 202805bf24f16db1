//! A flight table over a driver that answers when a model says so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shuttle::future::{JoinHandle, spawn};

use super::flights::{Answer, Flight, Flights};
use crate::driver::capability::Capabilities;
use crate::driver::{Confirmer, Destination, Driver, Identity, Outbound, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Receipt, Start, Subscription, Topic};
use crate::sync::{Mutex, Notify};

/// Time limit of a publish at the driver, and in the queue. The clock stands still unless a model
/// moves it.
pub(super) const LIMIT: Duration = Duration::from_secs(8);

/// The publishes of one model, each with a number.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) flights: Arc<Flights>,
    pub(super) driver: Arc<Manual>,
}

/// A driver with a limited number of places.
#[derive(Debug)]
pub(super) struct Manual {
    identity: Identity,
    capabilities: Capabilities,
    places: usize,
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    given: Vec<u8>,
    unanswered: VecDeque<Confirmer<Receipt>>,
    is_closed: bool,
}

impl Table {
    pub(super) fn new(places: usize) -> Self {
        let driver = Manual {
            identity: Identity::new("model"),
            capabilities: Capabilities::new(),
            places,
            state: Mutex::default(),
            arrived: Notify::new(),
        };
        Self { flights: Flights::new(places, LIMIT), driver: Arc::new(driver) }
    }

    pub(super) fn begin(&self, number: u8, accepted: bool) -> Flight {
        let topic = Topic::new("orders").unwrap();
        self.flights.begin(&self.driver, &topic, Outbound::new(vec![number]), accepted)
    }

    pub(super) async fn land(&self, mut flight: Flight) -> Answer {
        flight.land(&self.flights, &self.driver, LIMIT).await
    }

    /// Publishes a message in a task.
    pub(super) fn publish(&self, number: u8) -> JoinHandle<Answer> {
        let table = self.clone();
        spawn(async move { table.land(table.begin(number, false)).await })
    }

    /// Answers so many publishes, each when it comes, in a task.
    pub(super) fn answer(&self, number: usize) -> JoinHandle<()> {
        let driver = Arc::clone(&self.driver);
        spawn(async move {
            for _ in 0..number {
                driver.take().await.confirm(Ok(Receipt::confirmed()));
            }
        })
    }

    /// Waits until all publishes have ended. The driver is given none after that.
    pub(super) async fn close(&self) {
        self.flights.stop(LIMIT).await;
        self.driver.state.lock().is_closed = true;
    }

    /// Lets go of the memory of this run.
    pub(super) fn forget(self) {
        self.driver.state.lock().unanswered.clear();
        self.flights.forget_spare();
    }
}

impl Manual {
    /// Returns the numbers of the messages that it was given, in order.
    pub(super) fn given(&self) -> Vec<u8> {
        self.state.lock().given.clone()
    }

    /// Waits for a publish, and takes the confirmer of the oldest one.
    pub(super) async fn take(&self) -> Confirmer<Receipt> {
        loop {
            let arrived = self.arrived.notified();
            if let Some(confirmer) = self.state.lock().unanswered.pop_front() {
                return confirmer;
            }
            arrived.await;
        }
    }
}

#[async_trait]
impl Driver for Manual {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn declare(&self, _: &Topic) -> Result<Destination> {
        Ok(Destination::new())
    }

    fn publish(&self, _: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        let mut state = self.state.lock();
        assert!(!state.is_closed, "a publish after the end of closing");
        state.given.extend(message.payload.as_deref().unwrap_or_default());
        state.unanswered.push_back(confirmer);
        assert!(state.unanswered.len() <= self.places, "more publishes in flight than places");
        drop(state);
        self.arrived.notify_waiters();
    }

    async fn subscribe(&self, _: &Subscription) -> Result<Source> {
        Err(Error::new(ErrorKind::Unsupported, "it only publishes"))
    }

    async fn reposition(&self, _: &Subscription, _: Start) -> Result<()> {
        Err(Error::new(ErrorKind::Unsupported, "it only publishes"))
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
