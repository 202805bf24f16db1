//! Publishing: one task that appends queued messages, many to a pipeline, over its own connection.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use ::redis::{Cmd, Pipeline, RedisError, RedisResult, Value};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::yield_now;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::driver::{Confirmation, Confirmer, Identity, Outbound, Topology};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Receipt, Topic};

use super::config::Config;
use super::connection::backoff::Backoff;
use super::connection::commands::wait;
use super::connection::{Connection, answered};
use super::error::{SYSTEM, command_failed, unexpected_reply};
use super::headers::{Append, append, largest_field};

/// The largest field that Redis takes unless it is configured otherwise (`proto-max-bulk-len`), in
/// bytes.
pub const MAX_FIELD: usize = 512 * 1024 * 1024;

/// Maximum number of unanswered pipelines. With two, one is on its way while the server works on
/// the other; more would only make them smaller.
const MAX_FLIGHTS: usize = 2;

/// Maximum number of commands in a pipeline.
const MAX_BATCH: usize = 512;

/// Number of bytes of payload after which a pipeline takes no further message.
const MAX_BATCH_BYTES: usize = 256 * 1024;

/// Maximum number of commands that wait for their answers; further ones wait before the queue.
const MAX_COMMANDS: usize = 64;

/// The queue to the task that writes. It has room for all unconfirmed publishes and all commands,
/// so a publish always finds room.
#[derive(Debug)]
pub(super) struct Publisher {
    queue: mpsc::Sender<Request>,
    commands: Semaphore,
}

/// A request to the task that writes, and the receiver of its answer.
enum Request {
    Publish {
        topic: Topic,
        message: Outbound,
        confirmer: Confirmer<Receipt>,
    },
    Command {
        command: Cmd,
        confirmer: Confirmer<Value>,
    },
    /// Ends the queue: earlier requests are still sent, later ones are not.
    Close,
}

impl Request {
    /// Answers a request that was certainly not sent.
    fn refuse(self, error: Error) {
        match self {
            Self::Publish { confirmer, .. } => confirmer.confirm(Err(error)),
            Self::Command { confirmer, .. } => confirmer.confirm(Err(error)),
            Self::Close => {}
        }
    }
}

impl Publisher {
    /// Creates a queue, and the task that empties it over `connection` and its successors.
    pub(super) fn new(
        config: Arc<Config>,
        connection: Connection,
        closing: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        // One more to end the queue.
        let (queue, requests) = mpsc::channel(Identity::DEFAULT_MAX_IN_FLIGHT + MAX_COMMANDS + 1);
        let writer = Writer { config, requests, closing, flights: VecDeque::new() };
        (Self { queue, commands: Semaphore::new(MAX_COMMANDS) }, writer.run(connection))
    }

    pub(super) fn publish(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        if let Err(error) = check(&message) {
            return confirmer.confirm(Err(error));
        }
        let request = Request::Publish { topic: topic.clone(), message, confirmer };
        let (refused, error) = match self.queue.try_send(request) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Closed(refused)) => (refused, closed()),
            Err(mpsc::error::TrySendError::Full(refused)) => {
                (refused, Error::new(ErrorKind::Busy, "too many publishes are unconfirmed; await some first"))
            }
        };
        refused.refuse(error);
    }

    /// Sends a command behind the queued messages, and waits for its answer.
    pub(super) async fn command(&self, command: Cmd) -> Result<Value> {
        let _place = self.commands.acquire().await.map_err(|_| closed())?;
        let (confirmer, confirmation) = Confirmation::pending();
        self.queue.send(Request::Command { command, confirmer }).await.map_err(|_| closed())?;
        confirmation.await
    }

    /// Ends the queue: earlier requests are still sent, and the task ends when all are answered.
    pub(super) async fn close(&self) {
        // An error means that the task has already ended.
        let _ = self.queue.send(Request::Close).await;
    }
}

fn check(message: &Outbound) -> Result<()> {
    if message.payload.is_none() {
        return Err(Error::new(ErrorKind::Unsupported, "Redis Streams have no messages without a payload"));
    }
    let size = largest_field(message);
    if size > MAX_FIELD {
        return Err(Error::new(ErrorKind::TooLarge, "a field of the message is larger than Redis accepts")
            .with_context("size", size)
            .with_context("limit", MAX_FIELD));
    }
    Ok(())
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the broker is closed").with_system(SYSTEM)
}

struct Writer {
    config: Arc<Config>,
    requests: mpsc::Receiver<Request>,
    /// Ends the attempts to connect again.
    closing: CancellationToken,
    flights: VecDeque<Flight>,
}

/// A pipeline in flight.
struct Flight {
    /// The receivers of the answers.
    waiting: Vec<Waiting>,
    /// `true` if a last answer tells how many replicas have the messages.
    waits: bool,
}

enum Waiting {
    Publish(Confirmer<Receipt>),
    Command(Confirmer<Value>),
}

/// The reason why a connection is no longer written to.
enum End {
    Closed,
    Lost,
}

impl Writer {
    async fn run(mut self, mut connection: Connection) {
        while let End::Lost = self.serve(connection).await {
            tracing::warn!(server = %self.config.address(), "the connection for publishing was lost, restoring it");
            match self.reconnect().await {
                Some(restored) => connection = restored,
                None => return,
            }
        }
    }

    async fn serve(&mut self, mut connection: Connection) -> End {
        let mut open = true;
        while open || !self.flights.is_empty() {
            tokio::select! {
                biased;
                request = self.requests.recv(), if open && self.flights.len() < MAX_FLIGHTS => match request {
                    Some(Request::Close) | None => {
                        self.requests.close();
                        open = !self.requests.is_empty();
                    }
                    Some(request) => self.take_off(&mut connection, request).await,
                },
                answers = connection.landed() => {
                    if !self.land(answers) {
                        return End::Lost;
                    }
                }
            }
        }
        End::Closed
    }

    /// Sends `first` and the other queued requests as one pipeline.
    async fn take_off(&mut self, connection: &mut Connection, first: Request) {
        // No pipeline is in flight. Other tasks may queue their messages first, so that these do
        // not wait for the answer to one message.
        if self.flights.is_empty() {
            yield_now().await;
        }
        let mut pipeline = Pipeline::with_capacity(self.requests.len().min(MAX_BATCH) + 1);
        let mut waiting = Vec::with_capacity(self.requests.len().min(MAX_BATCH) + 1);
        let (mut bytes, mut waits) = (0, false);
        let mut next = Some(first);
        while let Some(request) = next.take() {
            match request {
                Request::Publish { topic, message, confirmer } => {
                    bytes += message.payload.as_ref().map_or(0, bytes::Bytes::len);
                    pipeline.add_command(append(&topic, self.append(), &message));
                    waiting.push(Waiting::Publish(confirmer));
                    waits = self.config.wait_replicas > 0;
                }
                Request::Command { command, confirmer } => {
                    pipeline.add_command(command);
                    waiting.push(Waiting::Command(confirmer));
                }
                Request::Close => self.requests.close(),
            }
            if waiting.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
                next = self.requests.try_recv().ok();
            }
        }
        if waits {
            pipeline.add_command(wait(self.config.wait_replicas, self.config.wait_timeout));
        }
        connection.send(&pipeline);
        self.flights.push_back(Flight { waiting, waits });
    }

    /// Passes on the answers to the oldest pipeline. Returns `false` if the connection can no
    /// longer be written to; then no request in flight is answered any more.
    fn land(&mut self, answers: RedisResult<Vec<Value>>) -> bool {
        let writable = match answers {
            Ok(mut answers) => {
                let Some(Flight { waiting, waits }) = self.flights.pop_front() else { return true };
                let copied = if waits { self.copied(answers.pop()) } else { Ok(()) };
                let heard = waiting.into_iter().zip(answers);
                let told: Vec<_> = heard.map(|(waiting, answer)| waiting.hear(answer, &copied)).collect();
                // Confirmed together: the first one wakes the publisher, which then finds the
                // others too.
                told.into_iter().fold(true, |writable, (told, still)| {
                    told.tell();
                    writable && still
                })
            }
            Err(error) => {
                self.fail_all(&error);
                false
            }
        };
        if !writable {
            // A master that became a replica has answered so far; its further answers are not
            // waited for.
            let lost = RedisError::from(io::Error::from(io::ErrorKind::BrokenPipe));
            self.fail_all(&lost);
        }
        writable
    }

    fn fail_all(&mut self, error: &RedisError) {
        self.flights.drain(..).flat_map(|flight| flight.waiting).for_each(|waiting| waiting.fail(error));
    }

    /// Reads from the answer to `WAIT` if enough replicas have the messages before it.
    fn copied(&self, answer: Option<Value>) -> Result<()> {
        let wanted = self.config.wait_replicas;
        match answered(answer.unwrap_or_default()) {
            Ok(Value::Int(copies)) if usize::try_from(copies).is_ok_and(|copies| copies >= wanted) => Ok(()),
            Ok(Value::Int(copies)) => {
                let message = "the server has the message, but too few replicas have it in time: check that they \
                               run and keep up, or ask for fewer with wait_replicas";
                let error = Error::new(ErrorKind::Timeout, message).with_system(SYSTEM);
                Err(error.with_context("replicas", copies).with_context("wait_replicas", wanted))
            }
            Ok(_) => Err(unexpected_reply("wait for the replicas")),
            Err(error) => Err(command_failed("wait for the replicas", error)),
        }
    }

    fn append(&self) -> Append {
        Append { trim: self.config.trim(), must_exist: self.config.topology == Topology::Check }
    }

    /// Connects again, until it works or the broker is closed. Meanwhile publishes wait, for as
    /// long as connecting may take; after that they fail with each failed attempt.
    async fn reconnect(&mut self) -> Option<Connection> {
        let lost = Instant::now();
        let mut backoff = Backoff::new();
        let closing = self.closing.clone();
        while !self.requests.is_closed() {
            let attempt = tokio::select! {
                () = closing.cancelled() => break,
                attempt = Connection::open(&self.config, self.config.waits()) => attempt,
            };
            match attempt {
                Ok(connection) => return Some(connection),
                Err(error) if lost.elapsed() >= self.config.connect_timeout => self.refuse_queued(&error),
                Err(_) => {}
            }
            tokio::select! {
                () = closing.cancelled() => break,
                () = tokio::time::sleep(backoff.pause()) => {}
            }
        }
        self.requests.close();
        self.refuse_queued(&closed());
        None
    }

    /// Fails the queued requests: they were certainly not sent.
    fn refuse_queued(&mut self, error: &Error) {
        while let Ok(request) = self.requests.try_recv() {
            match request {
                Request::Close => self.requests.close(),
                request => request.refuse(error.without_source()),
            }
        }
    }
}

/// An answer and its receiver.
enum Told {
    Publish(Confirmer<Receipt>, Result<Receipt>),
    Command(Confirmer<Value>, Result<Value>),
}

impl Told {
    fn tell(self) {
        match self {
            Self::Publish(confirmer, result) => confirmer.confirm(result),
            Self::Command(confirmer, result) => confirmer.confirm(result),
        }
    }
}

impl Waiting {
    /// Reads an answer; `copied` tells if the replicas have what was published. The flag is `false`
    /// if the server no longer takes writes, as a master that became a replica.
    fn hear(self, answer: Value, copied: &Result<()>) -> (Told, bool) {
        let answer = answered(answer);
        let writable = !answer.as_ref().is_err_and(|error| error.code() == Some("READONLY"));
        let told = match self {
            Self::Publish(confirmer) => Told::Publish(confirmer, confirmed(receipt(answer), copied)),
            Self::Command(confirmer) => {
                Told::Command(confirmer, answer.map_err(|error| command_failed("ask the server", error)))
            }
        };
        (told, writable)
    }

    /// Reports that no answer came.
    fn fail(self, error: &RedisError) {
        match self {
            Self::Publish(confirmer) => {
                confirmer.confirm(Err(command_failed("publish", error.clone()).with_unknown_outcome()));
            }
            Self::Command(confirmer) => confirmer.confirm(Err(command_failed("ask the server", error.clone()))),
        }
    }
}

/// Returns a receipt if the replicas have the message as well. Without them its outcome is unknown:
/// it is stored, and a failover may lose it.
fn confirmed(receipt: Result<Receipt>, copied: &Result<()>) -> Result<Receipt> {
    match copied {
        Ok(()) => receipt,
        Err(error) => receipt.and_then(|_| Err(error.without_source().with_unknown_outcome())),
    }
}

fn receipt(answer: RedisResult<Value>) -> Result<Receipt> {
    match answer {
        Ok(Value::BulkString(id)) => match String::from_utf8(id) {
            Ok(id) => Ok(Receipt::confirmed().with_id(id)),
            Err(_) => Ok(Receipt::confirmed()),
        },
        Ok(Value::Nil) => {
            Err(Error::new(ErrorKind::NotFound, "the stream does not exist and topology=check forbids creating it"))
        }
        Ok(_) => Ok(Receipt::confirmed()),
        Err(error) => Err(command_failed("publish", error)),
    }
}
