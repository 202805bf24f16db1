//! The handler that runs alone: the last trial of a message that may end its process.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Sleep, sleep};

use super::lanes::Lane;
use crate::broker::Delivery;

/// Maximum time for which other messages wait for such a handler to begin, and for its message to
/// be settled. What has not begun is tried again after the same time, so that a handler that never
/// ends holds up nothing for good.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time after which it is tried again if another consumer of this process has its turn.
pub(super) const AGAIN: Duration = Duration::from_secs(1);

/// The turn to run alone, one for the process: it ends with all that run in it.
static TURN: Semaphore = Semaphore::const_new(1);

thread_local! {
    /// The turn of a thread that stands for processes of its own.
    static OWN: Cell<Option<&'static Semaphore>> = const { Cell::new(None) };
}

/// Gives the calling thread a turn of its own, because what runs in it ends apart from the rest of
/// the process: a simulated world. The thread keeps it.
pub fn isolate_thread() {
    if OWN.get().is_none() {
        OWN.set(Some(Box::leak(Box::new(Semaphore::new(1)))));
    }
}

/// The state of the message whose handler runs alone, if there is one.
#[derive(Default)]
pub(super) enum Solo {
    #[default]
    None,
    /// It waits until the handlers that run have ended.
    Waiting(Box<(Delivery, Lane)>, Pin<Box<Sleep>>),
    Running(SemaphorePermit<'static>),
    /// Its handler has ended and its message is being settled. If another handler ended the process
    /// now, this message would come again as if it had done it.
    Settling(#[expect(dead_code, reason = "held until the turn ends")] SemaphorePermit<'static>, Pin<Box<Sleep>>),
}

impl Solo {
    /// Waits until the handlers that run have ended.
    pub(super) fn wait(delivery: Delivery, lane: Lane) -> Self {
        Self::Waiting(Box::new((delivery, lane)), Box::pin(sleep(PATIENCE)))
    }

    /// Takes the turn; `None` if another consumer has it.
    pub(super) fn begin() -> Option<Self> {
        OWN.get().unwrap_or(&TURN).try_acquire().ok().map(Self::Running)
    }

    /// Notes that the handler has ended. Returns `true` if it ran alone.
    pub(super) fn settle(&mut self) -> bool {
        if !matches!(self, Self::Running(_)) {
            return false;
        }
        if let Self::Running(turn) = std::mem::take(self) {
            *self = Self::Settling(turn, Box::pin(sleep(PATIENCE)));
        }
        true
    }

    /// Returns `true` if no handler may begin while so many run, and so many messages that ran
    /// alone are being settled.
    pub(super) fn holds_up(&self, running: usize, settling: usize) -> bool {
        match self {
            Self::None => false,
            Self::Waiting(..) | Self::Running(_) => running > 0,
            Self::Settling(..) => settling > 0,
        }
    }

    /// Takes the message that has waited for too long, and the time until it is tried again; `None`
    /// if one is being settled for too long.
    pub(super) fn poll_impatient(&mut self, cx: &mut Context<'_>) -> Poll<Option<(Delivery, Lane, Duration)>> {
        match self {
            Self::None | Self::Running(_) => return Poll::Pending,
            Self::Waiting(_, patience) | Self::Settling(_, patience) => ready!(patience.as_mut().poll(cx)),
        }
        Poll::Ready(self.take().map(|(delivery, lane)| (delivery, lane, PATIENCE)))
    }

    /// Takes the message that waits, or ends the turn.
    pub(super) fn take(&mut self) -> Option<(Delivery, Lane)> {
        match std::mem::take(self) {
            Self::Waiting(next, _) => Some(*next),
            Self::None | Self::Running(_) | Self::Settling(..) => None,
        }
    }
}
