//! The log of one queue, as its users see it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::super::connection::engine::Engine;
use super::keeper::{Command, Keeper, MAX_UNWRITTEN, Place};
use super::records::{Identity, Note, Record};
use crate::driver::Confirmation;

/// Maximum time of a look-up. The messages are held meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time without look-ups after one that failed, so that a log out of reach does not hold up
/// messages again and again.
const REST: Duration = Duration::from_secs(30);

/// The number of lost trials of each message, or `None` if the log is out of reach.
pub(crate) type LookUp = BoxFuture<'static, Option<Vec<u32>>>;

/// The log of one queue. A task reads and writes it, for as long as this lives, or its last records
/// are unwritten.
pub(crate) struct Log {
    commands: mpsc::Sender<Command>,
    engine: Arc<Engine>,
    rests_until: Mutex<Option<Instant>>,
}

impl Log {
    pub(super) fn start(place: Place, tasks: &TaskTracker) -> Arc<Self> {
        let (commands, received) = mpsc::channel(MAX_UNWRITTEN);
        let engine = Arc::clone(&place.engine);
        engine.spawn(tasks.track_future(Keeper::new(place, received).keep()));
        Arc::new(Self { commands, engine, rests_until: Mutex::default() })
    }

    /// Returns `true` if the last look-up failed, a short time ago.
    pub(crate) fn rests(&self) -> bool {
        self.rests_until.lock().is_some_and(|until| Instant::now() < until)
    }

    /// Reads the log to its end.
    pub(crate) fn look_up(self: &Arc<Self>, identities: Vec<Identity>) -> LookUp {
        let (answer, answered) = oneshot::channel();
        self.send(Command::LookUp { identities, answer });
        let log = Arc::clone(self);
        let looked_up = async move {
            let in_time = log.engine.run(async move { Ok(timeout(PATIENCE, answered).await) }).await;
            if let Ok(Ok(Ok(lost))) = in_time {
                return Some(lost);
            }
            *log.rests_until.lock() = Some(Instant::now() + REST);
            None
        };
        looked_up.boxed()
    }

    /// Writes a note, once.
    pub(super) fn begin(&self, identity: Identity, note: Note) -> Confirmation<()> {
        let (confirmer, confirmation) = Confirmation::pending();
        self.send(Command::Begin { record: Record::Begun(identity, note), confirmer });
        confirmation
    }

    /// Writes a record, over several connections if it must be.
    pub(super) fn write(&self, record: Record) {
        self.send(Command::Write(record));
    }

    /// Writes what is left, and takes no more.
    pub(super) fn end(&self) {
        self.send(Command::End);
    }

    fn send(&self, command: Command) {
        // Dropping a command is an answer to it. An error means that the driver is closed, or that
        // there was no connection for too many of them.
        if let Err(error) = self.commands.try_send(command) {
            tracing::debug!(%error, "a note of a trial was not written or withdrawn");
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("rests", &self.rests()).finish_non_exhaustive()
    }
}
