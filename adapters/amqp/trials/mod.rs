//! Notes of trials: of handlers that begin on a [suspect](crate::driver::Inbound::lost_trials).
//!
//! Nothing can be written beside a message in its queue, so the notes are kept in a log of their
//! own, a stream for each queue: a record for each note, and another one that withdraws it. A note
//! has an identity of its own, so that a record may be written twice, and the notes of this
//! process, which lives, are known among the others. The stream is declared, written and read only
//! when there is a suspect.

mod keeper;
mod log;
pub(crate) mod records;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use lapin::types::ShortString;
use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_util::sync::DropGuard;
use tokio_util::task::TaskTracker;

use self::keeper::Place;
pub(super) use self::log::{Log, LookUp};
use self::records::{Identity, Note, Record};
use super::connection::engine::Engine;
use super::connection::link::Link;
use super::headers::copy::Original;
use crate::driver::{Confirmation, Topology};

/// Maximum time to withdraw notes when the driver is closed.
const FAREWELL: Duration = Duration::from_secs(5);

/// The logs of a driver's queues.
pub(super) struct Logs {
    /// The connection that publishes: during an alarm, the broker would block the other one.
    link: Arc<Link>,
    topology: Topology,
    engine: Arc<Engine>,
    life: Arc<DropGuard>,
    logs: Mutex<HashMap<ShortString, Weak<Log>>>,
    /// The tasks of the logs. They go on for a while after their logs.
    tasks: TaskTracker,
}

impl Logs {
    pub(super) fn new(link: Arc<Link>, topology: Topology, engine: Arc<Engine>, life: Arc<DropGuard>) -> Arc<Self> {
        Arc::new(Self { link, topology, engine, life, logs: Mutex::default(), tasks: TaskTracker::new() })
    }

    /// Returns the log of a queue. It is opened at its first use.
    pub(super) fn of(&self, queue: &ShortString) -> Arc<Log> {
        let mut logs = self.logs.lock();
        if let Some(log) = logs.get(queue).and_then(Weak::upgrade) {
            return log;
        }
        logs.retain(|_, log| log.strong_count() > 0);
        let log = Log::start(
            Place {
                link: Arc::clone(&self.link),
                topology: self.topology,
                queue: queue.clone(),
                engine: Arc::clone(&self.engine),
                _life: Arc::clone(&self.life),
            },
            &self.tasks,
        );
        logs.insert(queue.clone(), Arc::downgrade(&log));
        log
    }

    /// Returns when the broker knows of all notes that were withdrawn.
    pub(super) async fn finish(&self) {
        self.logs.lock().values().filter_map(Weak::upgrade).for_each(|log| log.end());
        self.tasks.close();
        if timeout(FAREWELL, self.tasks.wait()).await.is_err() {
            tracing::debug!("notes of trials were not withdrawn in time");
        }
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Logs")
    }
}

/// One delivery of a message that may end the process of its handler.
#[derive(Debug)]
pub(super) struct Suspect {
    log: Arc<Log>,
    identity: Identity,
    /// The number of lost trials, once it is known.
    lost: OnceLock<u32>,
    /// The note of the trial that runs.
    note: Mutex<Option<Note>>,
}

impl Suspect {
    pub(super) fn new(log: Arc<Log>, original: &Original) -> Arc<Self> {
        let identity = Identity::of(original);
        Arc::new(Self { log, identity, lost: OnceLock::new(), note: Mutex::default() })
    }

    pub(super) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Notes the number of lost trials with which the message is handed out.
    pub(super) fn has_lost(&self, trials: u32) {
        let _ = self.lost.set(trials);
    }

    /// Notes that a handler begins, unless the message was handed out like any other.
    pub(super) fn begin(&self) -> Confirmation<()> {
        let mut note = self.note.lock();
        if note.is_some() || self.lost.get().is_none() {
            return Confirmation::ready(Ok(()));
        }
        self.log.begin(self.identity, *note.insert(Note::new()))
    }

    /// Withdraws the note, because the process lives to tell.
    pub(super) fn withdraw(&self) {
        if let Some(note) = self.note.lock().take() {
            self.log.write(Record::Heard(self.identity, note));
        }
    }

    /// Withdraws all notes of the message, because it is settled.
    pub(super) fn settled(&self) {
        let noted = self.note.lock().take().is_some();
        if noted || self.lost.get().is_some_and(|lost| *lost > 0) {
            self.log.write(Record::Settled(self.identity));
        }
    }
}

impl Drop for Suspect {
    fn drop(&mut self) {
        self.withdraw();
    }
}
