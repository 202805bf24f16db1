//! The task that reads and writes the log of one queue, over connections that may be lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation as Confirm, Consumer};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::DropGuard;

use super::super::connection::engine::Engine;
use super::super::connection::link::{Link, Pauses, disconnected};
use super::super::connection::{Live, pending};
use super::super::error::{During, client_error};
use super::super::topology::notes::{declare, from_first, stream_of};
use super::records::{Identity, Note, Notes, Record};
use crate::driver::{Confirmation, Confirmer, Topology};
use crate::error::{Error, ErrorKind, Result};

/// Maximum number of records that the broker sends ahead of their acknowledgement.
const AHEAD: u16 = 512;
/// Time without records after which the channel is closed, until it is needed again.
const IDLE: Duration = Duration::from_secs(60);
/// Maximum time to wait for a connection before the state is looked at again.
const PATIENCE: Duration = Duration::from_secs(3);
/// Maximum time to write the last records, when nothing else uses the log any more.
const FAREWELL: Duration = Duration::from_secs(30);
/// Maximum number of records that are kept while there is no connection, and of commands.
pub(super) const MAX_UNWRITTEN: usize = 16_384;

/// The queue of a log, and the means to reach it.
pub(super) struct Place {
    pub(super) link: Arc<Link>,
    pub(super) topology: Topology,
    pub(super) queue: ShortString,
    pub(super) engine: Arc<Engine>,
    /// Keeps the connection up while there is something to write.
    pub(super) _life: Arc<DropGuard>,
}

/// An order to the task. Dropping it is an answer, too.
pub(super) enum Command {
    LookUp {
        identities: Vec<Identity>,
        answer: oneshot::Sender<Vec<u32>>,
    },
    Begin {
        record: Record,
        confirmer: Confirmer<()>,
    },
    Write(Record),
    /// The driver is being closed: the records so far are the last ones.
    End,
}

/// A look-up that is answered once its mark is read.
struct Looking {
    mark: Note,
    identities: Vec<Identity>,
    answer: oneshot::Sender<Vec<u32>>,
}

pub(super) struct Keeper {
    place: Place,
    commands: mpsc::Receiver<Command>,
    /// The command that opens the log.
    first: Option<Command>,
    looking: Vec<Looking>,
    /// The records that are not confirmed, by their numbers. They are written again over the next
    /// connection.
    unwritten: BTreeMap<u64, Record>,
    next_number: u64,
    /// `true` if no command follows.
    is_last: bool,
    /// The time since which nothing else uses the log.
    left: Option<Instant>,
    has_warned: bool,
}

impl Keeper {
    pub(super) fn new(place: Place, commands: mpsc::Receiver<Command>) -> Self {
        Self {
            place,
            commands,
            first: None,
            looking: Vec::new(),
            unwritten: BTreeMap::new(),
            next_number: 0,
            is_last: false,
            left: None,
            has_warned: false,
        }
    }

    /// Does what is asked for, until the log is out of use or the driver is closed.
    pub(super) async fn keep(mut self) {
        let closed = self.place.link.closed().clone();
        closed.run_until_cancelled(self.work()).await;
    }

    async fn work(&mut self) {
        let mut pauses = Pauses::default();
        while self.has_work().await {
            let done = match Session::open(&self.place).await {
                Ok(mut session) => self.attend(&mut session).await,
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => pauses = Pauses::default(),
                Err(error) => {
                    self.fail(&error);
                    pauses.next().await;
                }
            }
        }
    }

    /// Waits for work. Returns `false` if there will be none.
    async fn has_work(&mut self) -> bool {
        self.looking.retain(|looking| !looking.answer.is_closed());
        if self.commands.is_closed() && self.left.get_or_insert_with(Instant::now).elapsed() > FAREWELL {
            return false;
        }
        if self.first.is_some() || !self.looking.is_empty() || !self.unwritten.is_empty() {
            return true;
        }
        if !self.is_last {
            self.first = self.commands.recv().await.filter(|command| !matches!(command, Command::End));
        }
        self.first.is_some()
    }

    /// Gives up what cannot be done without the right to it, and the rest waits for a connection.
    fn fail(&mut self, error: &Error) {
        let queue = self.place.queue.as_str();
        let is_refused = match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::Conflict | ErrorKind::InvalidConfig => true,
            ErrorKind::NotFound => self.place.topology == Topology::Check,
            _ => false,
        };
        if !is_refused {
            tracing::debug!(queue, %error, "the log of trials is out of reach");
            return;
        }
        if !std::mem::replace(&mut self.has_warned, true) {
            tracing::warn!(queue, %error, "messages that end the process of their handler cannot be found out");
        }
        self.first = None;
        self.looking.clear();
        self.unwritten.clear();
        while let Ok(command) = self.commands.try_recv() {
            self.is_last |= matches!(command, Command::End);
        }
    }

    /// Reads and writes over one channel. Returns when it is idle.
    async fn attend(&mut self, session: &mut Session) -> Result<()> {
        for (number, record) in &self.unwritten {
            session.write_numbered(*number, *record);
        }
        for looking in &mut self.looking {
            looking.mark = session.mark();
        }
        if let Some(first) = self.first.take() {
            self.obey(first, session);
        }
        loop {
            tokio::select! {
                command = self.commands.recv(), if !self.is_last => match command {
                    Some(command) => self.obey(command, session),
                    None => self.is_last = true,
                },
                entry = session.consumer.next() => self.take(entry, session)?,
                Some((number, written)) = session.writing.next() => {
                    written?;
                    self.unwritten.remove(&number);
                }
                () = sleep(IDLE) => return session.close().await,
            }
            if self.is_last && self.unwritten.is_empty() {
                self.looking.clear();
                return session.close().await;
            }
        }
    }

    fn obey(&mut self, command: Command, session: &mut Session) {
        match command {
            Command::LookUp { identities, answer } => {
                let mark = session.mark();
                self.looking.push(Looking { mark, identities, answer });
            }
            Command::Begin { record, confirmer } => session.write(record).pass_to(confirmer),
            Command::Write(record) => {
                if self.unwritten.len() >= MAX_UNWRITTEN {
                    self.unwritten.pop_first();
                }
                self.next_number += 1;
                self.unwritten.insert(self.next_number, record);
                session.write_numbered(self.next_number, record);
            }
            Command::End => self.is_last = true,
        }
    }

    /// Takes the next entry of the log.
    fn take(&mut self, entry: Option<lapin::Result<Delivery>>, session: &mut Session) -> Result<()> {
        let entry = match entry {
            Some(Ok(entry)) => entry,
            Some(Err(error)) => return Err(client_error(error, During::Consume)),
            None => return Err(disconnected(ErrorKind::Unavailable)),
        };
        match Record::read(&entry.data) {
            Some(Record::Mark(mark)) => {
                for looking in self.looking.extract_if(.., |looking| looking.mark == mark) {
                    let lost = looking.identities.iter().map(|identity| session.notes.lost(*identity));
                    let _ = looking.answer.send(lost.collect());
                }
            }
            Some(record) => session.notes.take(record),
            None => {}
        }
        session.ack(entry.delivery_tag);
        Ok(())
    }
}

/// The number of a write, 0 for a mark, and its outcome.
type Written = (u64, Result<()>);

/// One channel that reads the log from its beginning, and writes to it.
struct Session {
    live: Arc<Live>,
    channel: Channel,
    consumer: Consumer,
    stream: ShortString,
    /// The notes that are left, as far as the log was read.
    notes: Notes,
    unacked: u16,
    writing: FuturesUnordered<BoxFuture<'static, Written>>,
}

impl Session {
    async fn open(place: &Place) -> Result<Self> {
        let stream = stream_of(&place.queue)?;
        let live = place.link.within(PATIENCE).await?;
        let channel = live.channel(During::Declare).await?;
        declare(&live, &channel, &stream, place.topology).await?;
        live.request(During::Publish, channel.confirm_select(ConfirmSelectOptions::default())).await?;
        live.request(During::Consume, channel.basic_qos(AHEAD, BasicQosOptions::default())).await?;
        let (tag, options) = (ShortString::default(), BasicConsumeOptions::default());
        let consume = channel.basic_consume(stream.clone(), tag, options, from_first());
        let consumer = live.request(During::Consume, consume).await?;
        let (notes, writing) = (Notes::default(), FuturesUnordered::new());
        Ok(Self { live, channel, consumer, stream, notes, unacked: 0, writing })
    }

    /// Writes a record behind all earlier ones, and returns the confirmation.
    fn write(&self, record: Record) -> Confirmation<()> {
        let (channel, stream) = (self.channel.clone(), self.stream.clone());
        pending::begin(async move {
            let (entry, options) = (record.to_string(), BasicPublishOptions::default());
            let exchange = ShortString::default();
            let sent = channel.basic_publish(exchange, stream, options, entry.as_bytes(), BasicProperties::default());
            let confirm = match sent.await {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            match confirm.map_err(|error| client_error(error, During::Publish))? {
                Confirm::Ack(_) => Ok(()),
                _ => Err(Error::new(ErrorKind::Unavailable, "the broker did not take the note of a trial")),
            }
        })
    }

    fn write_numbered(&self, number: u64, record: Record) {
        let written = self.write(record);
        self.writing.push(async move { (number, written.await) }.boxed());
    }

    /// Writes a mark that comes back when everything before it was read.
    fn mark(&self) -> Note {
        let mark = Note::new();
        self.write_numbered(0, Record::Mark(mark));
        mark
    }

    /// Acknowledges records, half of those that the broker sends ahead at a time.
    fn ack(&mut self, tag: u64) {
        self.unacked += 1;
        if self.unacked >= AHEAD / 2 {
            self.unacked = 0;
            let _ = self.channel.basic_ack(tag, BasicAckOptions { multiple: true }).now_or_never();
        }
    }

    async fn close(&mut self) -> Result<()> {
        self.live.request(During::Consume, self.channel.close(200, "done".into())).await
    }
}
