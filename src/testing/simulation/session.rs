//! One connection over the simulated network, from the moment it is made until it is lost.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::faults::up_to;
use crate::adapters::memory::Memory;
use crate::driver::{Confirmation, Confirmer, DeliveryHandle, Disposition, Driver as _, Outbound};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Receipt, Topic};

/// Maximum number of requests on their way. Their senders have lower bounds.
const MOST_STEPS: usize = 65_536;

/// A connection. What is sent over it arrives in the order in which it was sent, and is answered in
/// any order.
pub(super) struct Session {
    wire: Arc<Wire>,
    steps: mpsc::Sender<(Instant, Step)>,
}

/// The parts that requests on their way keep alive.
struct Wire {
    memory: Memory,
    latency: Duration,
    /// Set when the broker has let go of the connection: nothing arrives any more, in either
    /// direction.
    is_broken: AtomicBool,
    /// Cancelled when the client knows.
    noticed: CancellationToken,
}

/// A request on its way to the broker.
enum Step {
    Publish(Topic, Outbound, Confirmer<Receipt>),
    Settle(Box<dyn DeliveryHandle>, Disposition, Confirmer<()>),
    Flush(oneshot::Sender<()>),
}

impl Session {
    /// Makes a connection to the broker. It needs a tokio runtime.
    pub(super) fn open(memory: Memory, latency: Duration) -> Arc<Self> {
        let wire = Wire { memory, latency, is_broken: AtomicBool::new(false), noticed: CancellationToken::new() };
        let (steps, on_their_way) = mpsc::channel(MOST_STEPS);
        let wire = Arc::new(wire);
        tokio::spawn(carry(Arc::clone(&wire), on_their_way));
        Arc::new(Self { wire, steps })
    }

    /// The broker's side of the connection.
    pub(super) fn memory(&self) -> &Memory {
        &self.wire.memory
    }

    pub(super) fn publish(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        self.send(Step::Publish(topic.clone(), message, confirmer));
    }

    pub(super) fn settle(&self, handle: Box<dyn DeliveryHandle>, disposition: Disposition) -> Confirmation<()> {
        let (confirmer, confirmation) = Confirmation::pending();
        self.send(Step::Settle(handle, disposition, confirmer));
        confirmation
    }

    /// Waits until everything sent before has arrived, or the connection is lost.
    pub(super) async fn flush(&self) {
        let (arrived, all) = oneshot::channel();
        self.send(Step::Flush(arrived));
        // A dropped sender means that the connection is lost.
        let _ = all.await;
    }

    fn send(&self, step: Step) {
        let arrival = Instant::now() + up_to(self.wire.latency);
        if let Err(TrySendError::Full((_, step)) | TrySendError::Closed((_, step))) =
            self.steps.try_send((arrival, step))
        {
            step.lose();
        }
    }

    /// Breaks the connection; the client notices after the time.
    pub(super) async fn lose(&self, notice: Duration) {
        self.wire.is_broken.store(true, Ordering::Relaxed);
        // The broker's side of it ends at once and cannot fail.
        let _ = self.wire.memory.close().await;
        if !notice.is_zero() {
            sleep(notice).await;
        }
        self.wire.noticed.cancel();
    }

    /// Completes when the client has noticed that the connection is lost.
    pub(super) fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        self.wire.noticed.clone().cancelled_owned()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.wire.noticed.is_cancelled()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("is_lost", &self.is_lost()).finish_non_exhaustive()
    }
}

impl Wire {
    fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }

    /// Brings the broker's answer to the client, or the loss of the connection.
    async fn answer<T: Unpin>(self: Arc<Self>, answer: Confirmation<T>, confirmer: Confirmer<T>, lost: fn() -> Error) {
        let answered = async {
            let answer = answer.await;
            sleep(up_to(self.latency)).await;
            if self.is_broken() {
                self.noticed.cancelled().await;
            }
            answer
        };
        let answer = tokio::select! {
            biased;
            () = self.noticed.cancelled() => Err(lost()),
            answer = answered => answer,
        };
        confirmer.confirm(answer);
    }
}

impl Step {
    /// Carries the request out at the broker.
    fn arrive(self, wire: &Arc<Wire>) {
        let wire = Arc::clone(wire);
        match self {
            Self::Publish(topic, message, confirmer) => {
                let (stored, confirmation) = Confirmation::pending();
                wire.memory.publish(&topic, message, stored);
                tokio::spawn(wire.answer(confirmation, confirmer, unknown));
            }
            Self::Settle(handle, disposition, confirmer) => {
                let settled = handle.settle(disposition);
                tokio::spawn(wire.answer(settled, confirmer, settlement_lost));
            }
            Self::Flush(arrived) => drop(arrived.send(())),
        }
    }

    fn lose(self) {
        match self {
            Self::Publish(_, _, confirmer) => confirmer.confirm(Err(unknown())),
            Self::Settle(_, _, confirmer) => confirmer.confirm(Err(settlement_lost())),
            Self::Flush(_) => {}
        }
    }
}

/// Brings requests to the broker, one after the other, as long as the connection is used.
async fn carry(wire: Arc<Wire>, mut steps: mpsc::Receiver<(Instant, Step)>) {
    while let Some((arrival, step)) = steps.recv().await {
        sleep_until(arrival).await;
        if wire.is_broken() {
            wire.noticed.cancelled().await;
            step.lose();
        } else {
            step.arrive(&wire);
        }
    }
}

fn unknown() -> Error {
    away().with_unknown_outcome()
}

/// The error of a call while the connection is away.
pub(super) fn away() -> Error {
    Error::new(ErrorKind::Unavailable, "the connection to the simulated broker is lost")
}

/// The error of a settlement over a connection that is gone.
pub(super) fn settlement_lost() -> Error {
    Error::new(ErrorKind::SettlementLost, "the connection of the delivery is lost")
}

/// The error of a call after closing.
pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the connection to the simulated broker is closed")
}

/// A future that fails when the connection is lost meanwhile.
pub(super) async fn unless_lost<T>(session: &Session, call: impl Future<Output = Result<T>>) -> Result<T> {
    let latency = session.wire.latency;
    let called = async {
        sleep(up_to(latency)).await;
        if session.wire.is_broken() {
            session.wire.noticed.cancelled().await;
        }
        call.await
    };
    tokio::select! {
        biased;
        () = session.wire.noticed.cancelled() => Err(away()),
        result = called => result,
    }
}
