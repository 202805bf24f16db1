//! The broker: one thread per directory, the only one that touches its files.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::OwnedSemaphorePermit;
use traced_broker::driver::Confirmer;
use traced_broker::{Error, ErrorKind, Receipt, Result};

use crate::queue::{Command, Queue, Reply};
use crate::topic::Topic;

/// Maximum number of open topics, unless more are in use.
const OPEN_TOPICS: usize = 128;

/// An open directory. It is closed when the last reference is dropped, after all commands.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) queue: Arc<Queue>,
}

impl Store {
    /// Opens the directory for this process alone.
    pub(crate) fn open(directory: &Path, sync: bool) -> Result<(Self, JoinHandle<()>)> {
        let lock = lock(directory)?;
        let queue = Arc::new(Queue::default());
        let worker =
            Worker { directory: directory.to_owned(), sync, topics: HashMap::new(), queue: Arc::clone(&queue) };
        let work = move || {
            worker.run();
            drop(lock);
        };
        let thread = thread::Builder::new().name("files".to_owned()).spawn(work);
        Ok((Self { queue }, thread.map_err(|error| failed("the thread of the directory cannot be started", error))?))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.queue.finish();
    }
}

fn lock(directory: &Path) -> Result<File> {
    let path = directory.join("lock");
    let file = fs::create_dir_all(directory).and_then(|()| File::create(&path));
    let file = file.map_err(|error| failed("the directory cannot be written", error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let message = "another process has the directory open; one at a time can";
            Err(Error::new(ErrorKind::Conflict, message).with_context("directory", directory.display()))
        }
        Err(TryLockError::Error(error)) => Err(failed("the directory cannot be locked", error)),
    }
}

/// Returns the error of a file operation that may succeed later.
pub(crate) fn failed(message: &str, error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, message).with_source(error)
}

/// The answer to a command, given once its effects are in the files.
enum Answer {
    Published(OwnedSemaphorePermit, Confirmer<Receipt>, Result<Receipt>),
    Settled(Confirmer<()>, Result<()>),
    Joined(Reply<u64>, Result<u64>),
    Done(Reply<()>, Result<()>),
}

impl Answer {
    /// Gives the answer; the caller may have gone.
    fn give(self) {
        match self {
            Self::Published(permit, confirmer, receipt) => {
                // In this order: after the confirm, the next message may arrive at once.
                drop(permit);
                confirmer.confirm(receipt);
            }
            Self::Settled(confirmer, settled) => confirmer.confirm(settled),
            Self::Joined(reply, joined) => drop(reply.send(joined)),
            Self::Done(reply, done) => drop(reply.send(done)),
        }
    }
}

fn unreadable(error: io::Error) -> Error {
    failed("the files of the topic cannot be used", error)
}

/// Returns the error of a delivery that has gone, or will go, to another handle.
pub(crate) fn settlement_lost() -> Error {
    let message = "the delivery no longer belongs to this connection: the message is redelivered";
    Error::new(ErrorKind::SettlementLost, message)
}

/// Ends the queue with the thread, so that no caller waits forever.
struct KillOnDrop(Arc<Queue>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill();
    }
}

struct Worker {
    directory: PathBuf,
    sync: bool,
    topics: HashMap<Box<str>, Topic>,
    queue: Arc<Queue>,
}

impl Worker {
    /// Works until the queue ends or a file fails. After a failure, the contents of the files are
    /// not known, so the directory is closed and read again.
    fn run(mut self) {
        let _last = KillOnDrop(Arc::clone(&self.queue));
        loop {
            let due = self.topics.values().filter_map(Topic::next_due).min();
            let Some(commands) = self.queue.take(due) else { return };
            if self.work(commands).is_err() || self.queue.is_killed() {
                return;
            }
        }
    }

    fn work(&mut self, commands: VecDeque<Command>) -> io::Result<()> {
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            answers.extend(self.obey(command)?);
        }
        // First the published messages, then the events of the groups, and then the answers.
        for topic in self.topics.values_mut() {
            topic.flush()?;
            topic.hand_out()?;
        }
        if self.topics.len() > OPEN_TOPICS {
            self.topics.retain(|_, topic| topic.is_in_use());
        }
        if !self.queue.is_killed() {
            answers.into_iter().for_each(Answer::give);
        }
        Ok(())
    }

    /// Executes a command. An error ends the store; any other failure is part of the answer.
    fn obey(&mut self, command: Command) -> io::Result<Option<Answer>> {
        Ok(Some(match command {
            Command::Publish { permit, topic, message, confirmer } => {
                let receipt = self.topic(&topic, false).map(|topic| topic.publish(&message));
                Answer::Published(permit, confirmer, receipt)
            }
            Command::Settle { ticket, disposition, confirmer } => {
                let group = self.topics.get_mut(&*ticket.topic).and_then(|topic| topic.open_group(&ticket.group));
                let settled = group.is_some_and(|group| group.settle(ticket.number, ticket.delivery, disposition));
                Answer::Settled(confirmer, if settled { Ok(()) } else { Err(settlement_lost()) })
            }
            Command::Stop { topic, group, member } => {
                let group = self.topics.get_mut(&*topic).and_then(|topic| topic.open_group(&group));
                group.into_iter().for_each(|group| group.leave(member));
                return Ok(None);
            }
            Command::Leave { topic, group, member } => {
                self.topics.get_mut(&*topic).into_iter().for_each(|topic| topic.leave(&group, member));
                return Ok(None);
            }
            Command::Declare { topic, create, reply } => Answer::Done(reply, self.within(&topic, create, |_| Ok(()))?),
            Command::Join { topic, group, start, member, create, reply } => {
                Answer::Joined(reply, self.within(&topic, create, |topic| topic.join(group, start, member))?)
            }
            Command::Reposition { topic, group, start, reply } => {
                Answer::Done(reply, self.within(&topic, false, |topic| topic.reposition(&group, start))?)
            }
            Command::Close { connection, reply } => {
                self.topics.values_mut().for_each(|topic| topic.release(connection));
                Answer::Done(reply, Ok(()))
            }
            Command::Ping(reply) => Answer::Done(reply, Ok(())),
        }))
    }

    /// Works on the files of a topic after the messages published so far are written.
    fn within<T>(
        &mut self,
        topic: &str,
        create: bool,
        work: impl FnOnce(&mut Topic) -> io::Result<T>,
    ) -> io::Result<Result<T>> {
        match self.topic(topic, create) {
            Err(error) => Ok(Err(error)),
            Ok(topic) => {
                topic.flush()?;
                Ok(work(topic).map_err(unreadable))
            }
        }
    }

    /// Returns the topic with this name, opened if it is not open.
    fn topic(&mut self, name: &str, create: bool) -> Result<&mut Topic> {
        if !self.topics.contains_key(name) {
            let opened = Topic::open(&self.directory.join("topics").join(name), create, self.sync);
            let message = "the topic does not exist: it is created unless topology=check forbids to";
            let topic = opened.map_err(unreadable)?.ok_or_else(|| Error::new(ErrorKind::NotFound, message))?;
            self.topics.insert(name.into(), topic);
        }
        self.topics.get_mut(name).ok_or_else(|| Error::new(ErrorKind::Unexpected, "the topic is gone"))
    }
}
