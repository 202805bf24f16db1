//! A connection that is restored when it is lost.
//!
//! The client's own recovery is off: it forgets confirms and messages that were fetched ahead, and
//! after a channel error it leaves the consumer of that channel waiting forever. Here each
//! connection is a new [`Live`], and the users of the old one learn that it has ended.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::config::Settings;
use super::Live;
use super::engine::Engine;
use crate::error::{Error, ErrorKind, Result};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// A supervised connection. The supervision ends when `closed` is cancelled.
#[derive(Debug)]
pub(crate) struct Link {
    state: watch::Sender<State>,
    closed: CancellationToken,
}

#[derive(Debug, Clone)]
pub(crate) enum State {
    Up(Arc<Live>),
    /// Not connected, with the kind of the last error.
    Down(ErrorKind),
}

impl Link {
    /// Connects, and keeps the connection up from then on. Returns the index of the host that
    /// answered.
    pub(crate) async fn open(
        settings: &Arc<Settings>,
        purpose: &'static str,
        closed: &CancellationToken,
        engine: &Arc<Engine>,
    ) -> Result<(Self, usize)> {
        let (opened, by) = (Arc::clone(settings), Arc::clone(engine));
        let (live, host) = engine.run(async move { Live::open(&opened, purpose, &by).await }).await?;
        let (state, _) = watch::channel(State::Up(Arc::new(live)));
        let supervision = supervise(Arc::clone(settings), purpose, state.clone(), closed.clone(), Arc::clone(engine));
        engine.spawn(supervision);
        Ok((Self { state, closed: closed.clone() }, host))
    }

    /// Returns the token that is cancelled when the driver is closed or dropped.
    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Returns the current connection.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`], or the kind of the last failed attempt to connect.
    pub(crate) fn current(&self) -> Result<Arc<Live>> {
        if self.closed.is_cancelled() {
            return Err(closed());
        }
        match &*self.state.borrow() {
            State::Up(live) => Ok(Arc::clone(live)),
            State::Down(kind) => Err(disconnected(*kind)),
        }
    }

    /// Waits for a connection and returns it.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`].
    pub(crate) async fn restored(&self) -> Result<Arc<Live>> {
        let mut states = self.state.subscribe();
        let up = states.wait_for(|state| matches!(state, State::Up(live) if live.connection.status().connected()));
        tokio::select! {
            () = self.closed.cancelled() => Err(closed()),
            state = up => match state.as_deref() {
                Ok(State::Up(live)) => Ok(Arc::clone(live)),
                _ => Err(closed()),
            },
        }
    }

    /// Returns the connection if there is one within this time.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`], or the kind of the last failed attempt to connect.
    pub(crate) async fn within(&self, patience: Duration) -> Result<Arc<Live>> {
        match tokio::time::timeout(patience, self.restored()).await {
            Ok(live) => live,
            Err(_) => self.current(),
        }
    }

    /// Closes the connection. The supervision has to be ended first, or it restores the connection.
    pub(crate) async fn close(&self) {
        if let State::Up(live) = self.state.send_replace(State::Down(ErrorKind::Closed)) {
            live.close().await;
        }
    }

    /// Lets the connection go without a farewell, which ends it a moment later.
    pub(crate) fn abandon(&self) {
        self.state.send_replace(State::Down(ErrorKind::Closed));
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the broker was closed by this program")
}

pub(crate) fn disconnected(kind: ErrorKind) -> Error {
    match kind {
        ErrorKind::Closed => closed(),
        ErrorKind::Unavailable => Error::new(kind, "there is no connection to the broker now; it is being restored"),
        kind => Error::new(kind, "there is no connection to the broker now: it refuses attempts to reconnect"),
    }
}

async fn supervise(
    settings: Arc<Settings>,
    purpose: &'static str,
    state: watch::Sender<State>,
    closed: CancellationToken,
    engine: Arc<Engine>,
) {
    let keep = async {
        loop {
            let current = state.borrow().clone();
            if let State::Up(live) = current {
                live.ended().await;
                tracing::warn!(purpose, "the connection to RabbitMQ was lost, restoring it");
            }
            state.send_replace(State::Down(ErrorKind::Unavailable));
            let live = restore(&settings, purpose, &state, &engine).await;
            tracing::info!(purpose, "the connection to RabbitMQ is restored");
            state.send_replace(State::Up(Arc::new(live)));
        }
    };
    closed.run_until_cancelled(keep).await;
}

async fn restore(settings: &Settings, purpose: &str, state: &watch::Sender<State>, engine: &Arc<Engine>) -> Live {
    let mut pauses = Pauses::default();
    loop {
        match Live::open(settings, purpose, engine).await {
            Ok((live, _)) => return live,
            Err(error) => {
                tracing::warn!(purpose, %error, "RabbitMQ cannot be reached");
                state.send_replace(State::Down(error.kind()));
            }
        }
        pauses.next().await;
    }
}

/// Pauses that double up to three seconds. Each is shortened at random by up to half, so that
/// clients do not reconnect at the same time.
#[derive(Debug, Default)]
pub(crate) struct Pauses(u32);

impl Pauses {
    pub(crate) async fn next(&mut self) {
        let full = FIRST_PAUSE.saturating_mul(1 << self.0.min(16)).min(LONGEST_PAUSE);
        self.0 += 1;
        // The standard library's only source of randomness.
        let chance = f64::from(RandomState::new().hash_one(self.0) as u32) / f64::from(u32::MAX);
        tokio::time::sleep(full.mul_f64(1.0 - chance / 2.0)).await;
    }
}

/// Ends the supervision of the connections, and the connections, when it is dropped.
pub(crate) struct Closing<'a> {
    closed: &'a CancellationToken,
    links: Vec<&'a Arc<Link>>,
}

impl<'a> Closing<'a> {
    pub(crate) fn new(closed: &'a CancellationToken, links: impl Iterator<Item = &'a Arc<Link>>) -> Self {
        Self { closed, links: links.collect() }
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.closed.cancel();
        self.links.iter().for_each(|link| link.abandon());
    }
}
