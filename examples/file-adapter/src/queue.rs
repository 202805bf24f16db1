//! The commands of connections to a store, in order.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use traced_broker::driver::{Confirmer, Disposition, Outbound};
use traced_broker::{Error, Receipt, Start, Topic};

use crate::group::Member;
use crate::topic::GroupKey;

/// The answer to a command that is awaited at once.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// The identity of a delivery.
#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    pub(crate) topic: Topic,
    pub(crate) group: GroupKey,
    pub(crate) number: u64,
    pub(crate) delivery: u64,
}

#[derive(Debug)]
pub(crate) enum Command {
    Declare {
        topic: Topic,
        create: bool,
        reply: Reply<()>,
    },
    Publish {
        topic: Topic,
        message: Outbound,
        confirmer: Confirmer<Receipt>,
        permit: OwnedSemaphorePermit,
    },
    Join {
        topic: Topic,
        group: GroupKey,
        start: Start,
        member: Member,
        create: bool,
        /// The number of the first message that the member may get.
        reply: Reply<u64>,
    },
    Reposition {
        topic: Topic,
        group: GroupKey,
        start: Start,
        reply: Reply<()>,
    },
    Settle {
        ticket: Ticket,
        disposition: Disposition,
        confirmer: Confirmer<()>,
    },
    /// Hands no more messages to the member, and takes back those that it has not yielded.
    Stop {
        topic: Topic,
        group: GroupKey,
        member: u64,
    },
    Leave {
        topic: Topic,
        group: GroupKey,
        member: u64,
    },
    Close {
        connection: u64,
        reply: Reply<()>,
    },
    Ping(Reply<()>),
}

/// A queue that its reader may end. It is bounded by the limits of unconfirmed publishes per
/// connection and unsettled messages per subscription.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    commands: Mutex<Commands>,
    changed: Condvar,
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct Commands {
    waiting: VecDeque<Command>,
    /// No more commands are accepted; the waiting ones are still executed.
    finished: bool,
    /// No more commands are executed.
    killed: bool,
}

impl Queue {
    /// Adds a command; returns it if it will not be executed.
    pub(crate) fn push(&self, command: Command) -> Option<Command> {
        let mut commands = self.commands.lock();
        if commands.finished || commands.killed {
            return Some(command);
        }
        commands.waiting.push_back(command);
        self.changed.notify_one();
        None
    }

    /// Takes all commands, waiting for the first until `due`; `None` after the end of the queue.
    pub(crate) fn take(&self, due: Option<Instant>) -> Option<VecDeque<Command>> {
        let mut commands = self.commands.lock();
        while commands.waiting.is_empty() && !commands.finished && !commands.killed {
            let Some(due) = due else {
                self.changed.wait(&mut commands);
                continue;
            };
            if self.changed.wait_until(&mut commands, due).timed_out() {
                break;
            }
        }
        let over = commands.killed || (commands.finished && commands.waiting.is_empty());
        (!over).then(|| std::mem::take(&mut commands.waiting))
    }

    /// Accepts no more commands; the waiting ones are still executed.
    pub(crate) fn finish(&self) {
        self.commands.lock().finished = true;
        self.changed.notify_one();
    }

    /// Stops at once. Waiting commands get no answer, so their outcome is unknown.
    pub(crate) fn kill(&self) {
        let mut commands = self.commands.lock();
        commands.killed = true;
        let waiting = std::mem::take(&mut commands.waiting);
        self.changed.notify_one();
        drop(commands);
        drop(waiting);
        self.ended.cancel();
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.commands.lock().killed
    }

    /// Completes when no more commands are executed.
    pub(crate) fn ended(&self) -> WaitForCancellationFutureOwned {
        self.ended.clone().cancelled_owned()
    }
}
