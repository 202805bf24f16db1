//! The client of the simulated broker: a driver that restores its connection.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::feed::{Feed, Open};
use super::network::Network;
use super::session::{Session, away, closed, unless_lost};
use crate::driver::{Capabilities, Confirmer, Destination, Driver, Identity, Outbound, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Receipt, Start, Subscription, Topic};

/// A client of the simulated broker, with the faults of its network.
pub(super) struct Link {
    identity: Identity,
    line: Arc<Line>,
    keeper: AbortHandle,
}

/// The state of a client, which its feeds share.
struct Line {
    network: Arc<Network>,
    service: String,
    state: watch::Sender<State>,
    cut: Notify,
}

#[derive(Clone)]
enum State {
    Up(Arc<Session>),
    Away,
    Closed,
}

impl Link {
    /// Connects for a service. It needs a tokio runtime.
    pub(super) fn connect(network: Arc<Network>, service: &str, max_in_flight: usize) -> Self {
        let session = Session::open(network.connect(), network.faults.latency);
        let state = watch::Sender::new(State::Up(session));
        let line = Arc::new(Line { network, service: service.to_owned(), state, cut: Notify::new() });
        let keeper = tokio::spawn(Arc::clone(&line).keep()).abort_handle();
        let identity = Identity::new("simulated").with_max_in_flight(max_in_flight);
        Self { identity, line, keeper }
    }

    /// Loses the connection; it comes back after an outage.
    pub(super) fn cut(&self) {
        self.line.cut.notify_one();
    }

    /// Ends the client as the death of its process does: nothing more is sent.
    pub(super) fn kill(&self) {
        self.keeper.abort();
        if let State::Up(session) = self.line.state.send_replace(State::Closed) {
            session.lose(std::time::Duration::ZERO).now_or_never();
        }
    }
}

impl Line {
    /// Breaks and restores the connection until the client is closed.
    async fn keep(self: Arc<Self>) {
        loop {
            tokio::select! {
                biased;
                () = self.cut.notified() => {}
                () = self.network.next_loss() => {}
            }
            let Ok(session) = self.session() else { return };
            let network = &self.network;
            let notice = network.draw(network.faults.notice);
            let outage = network.draw(network.faults.outage);
            network.record(&format!("{} loses its connection, and notices after {notice:?}", self.service));
            session.lose(notice).await;
            if !self.replace(State::Away) {
                return;
            }
            sleep(outage).await;
            network.record(&format!("{} has a connection again", self.service));
            if !self.replace(State::Up(Session::open(network.connect(), network.faults.latency))) {
                return;
            }
        }
    }

    /// Changes the state, unless the client is closed.
    fn replace(&self, state: State) -> bool {
        self.state.send_if_modified(|now| {
            let is_open = !matches!(now, State::Closed);
            if is_open {
                *now = state;
            }
            is_open
        })
    }

    /// Returns the connection.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] while it is away, [`ErrorKind::Closed`] after closing.
    fn session(&self) -> Result<Arc<Session>> {
        match &*self.state.borrow() {
            State::Up(session) => Ok(Arc::clone(session)),
            State::Away => Err(away()),
            State::Closed => Err(closed()),
        }
    }

    /// Waits for a connection that is not known to be lost; `None` after closing.
    async fn restored(&self) -> Option<Arc<Session>> {
        let mut state = self.state.subscribe();
        let restored = state.wait_for(|state| match state {
            State::Up(session) => !session.is_lost(),
            State::Away => false,
            State::Closed => true,
        });
        match &*restored.await.ok()? {
            State::Up(session) => Some(Arc::clone(session)),
            State::Away | State::Closed => None,
        }
    }

    /// Subscribes once there is a connection.
    async fn open(self: Arc<Self>, subscription: Subscription) -> Option<Result<(Arc<Session>, Source)>> {
        let session = self.restored().await?;
        let opened = unless_lost(&session, session.memory().subscribe(&subscription)).await;
        Some(opened.map(|source| (session, source)))
    }
}

#[async_trait]
impl Driver for Link {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn capabilities(&self) -> &Capabilities {
        &self.line.network.capabilities
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        let session = self.line.session()?;
        unless_lost(&session, session.memory().declare(topic)).await
    }

    fn publish(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        let network = &self.line.network;
        match self.line.session() {
            Ok(_) if !network.healed.is_cancelled() && network.faults.refuses() => {
                network.record(&format!("a publish of {} is refused", self.line.service));
                confirmer.confirm(Err(Error::new(ErrorKind::Busy, "the simulated broker is busy")));
            }
            Ok(session) => session.publish(topic, message, confirmer),
            Err(error) => confirmer.confirm(Err(error)),
        }
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        let session = self.line.session()?;
        let source = unless_lost(&session, session.memory().subscribe(subscription)).await?;
        let line = Arc::clone(&self.line);
        let open: Open = Box::new(move |subscription| Arc::clone(&line).open(subscription).boxed());
        let feed = Feed::new(subscription.clone(), session, source, open);
        let stop = feed.stop();
        Ok(Source::new(Destination::new(), feed).on_stop(stop))
    }

    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()> {
        let session = self.line.session()?;
        unless_lost(&session, session.memory().reposition(subscription, start)).await
    }

    async fn ping(&self) -> Result<()> {
        let session = self.line.session()?;
        unless_lost(&session, session.memory().ping()).await
    }

    async fn close(&self) -> Result<()> {
        if let Ok(session) = self.line.session() {
            session.flush().await;
            session.lose(std::time::Duration::ZERO).await;
        }
        self.line.state.send_replace(State::Closed);
        self.keeper.abort();
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("service", &self.line.service).finish_non_exhaustive()
    }
}
