//! A connection to the server: commands that are sent one after the other, and their answers in the
//! same order.

pub(crate) mod answer;
pub(crate) mod backoff;
pub(crate) mod commands;
pub(crate) mod dial;
pub(crate) mod entry;
pub(crate) mod fields;
mod scripts;
pub(crate) mod wire;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{fmt, io};

use ::redis::{Cmd, ErrorKind as ClientErrorKind, Pipeline, RedisError, RedisResult, Value, cmd};
use tokio::time::Instant;

use crate::driver::explain_tls;
use crate::error::{Error, ErrorKind, Result};

use self::dial::dial;
use self::entry::Entries;
use self::wire::Wire;
use super::config::Config;
use super::error::{SYSTEM, command_failed, kind_of};
use super::transport::Transport;

/// A connection with one user.
///
/// The task that waits for an answer moves the bytes, not a task of the client's. This saves two
/// thread hops for each batch, and the end of the connection is noticed at once even while no
/// request is in flight. An answer has the same bound on every transport.
///
/// A connection on which nothing is in flight is kept alive by a `PING` once in a while, so that
/// neither a server nor a proxy takes it for forgotten, and a server that is gone is found out.
/// This happens while [`landed`](Self::landed) is awaited.
pub(super) struct Connection {
    wire: Wire,
    /// The unanswered requests, in order.
    flights: VecDeque<Flight>,
    answer_within: Duration,
    /// Duration of silence after which the connection is kept alive.
    keep_alive: Duration,
    /// The time of the latest request.
    used: Instant,
    /// `true` while the oldest request in flight is one to keep the connection alive.
    is_pinging: bool,
}

/// Commands in flight.
struct Flight {
    expected: usize,
    answers: Vec<Value>,
    deadline: Instant,
}

impl Connection {
    /// Connects, authenticates, selects the database and waits for the answer to a `PING`, all
    /// within the connect time-out.
    ///
    /// A command may take the response time-out, and `waiting` in addition if it waits at the
    /// server.
    pub(super) async fn open(config: &Config, waiting: Duration) -> Result<Self> {
        let opening = dial(config, config.response_timeout + waiting);
        match tokio::time::timeout(config.connect_timeout, opening).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(refused(config, error)),
            Err(_) => Err(unreachable(config).with_context("waited_ms", config.connect_timeout.as_millis())),
        }
    }

    fn over(transport: Box<dyn Transport>, answer_within: Duration, keep_alive: Duration) -> Self {
        let (wire, flights, used) = (Wire::new(transport), VecDeque::new(), Instant::now());
        Self { wire, flights, answer_within, keep_alive, used, is_pinging: false }
    }

    /// Sends a command and waits for its answer. No other request may be in flight. A caller that
    /// drops the future must drop the connection as well.
    pub(super) async fn call(&mut self, command: &Cmd) -> RedisResult<Value> {
        self.push(&command.get_packed_command(), 1);
        answered(self.landed().await?.pop().unwrap_or_default())
    }

    /// Sends packed commands, with so many answers to come.
    fn push(&mut self, packed: &[u8], expected: usize) {
        let deadline = self.use_until();
        self.wire.send(packed);
        self.flights.push_back(Flight { expected, answers: Vec::with_capacity(expected), deadline });
    }

    /// Records that a request begins, and returns the time until which it may take.
    fn use_until(&mut self) -> Instant {
        self.used = Instant::now();
        self.used + self.answer_within
    }

    /// Works like [`call`](Self::call), for a command that reads entries.
    pub(super) async fn read(&mut self, command: &Cmd) -> RedisResult<Entries> {
        if self.is_pinging {
            self.landed_flight().await?;
            self.is_pinging = false;
        }
        let deadline = self.use_until();
        self.wire.send(&command.get_packed_command());
        let answer = tokio::time::timeout_at(deadline, poll_fn(|cx| self.wire.poll_raw(cx))).await;
        let answer = answer.map_err(|_| timed_out())??;
        if answer.first() == Some(&b'-') {
            return answered(answer::read(&answer)?).map(|_| Entries::default());
        }
        entry::entries(&answer)
    }

    /// Works like [`call`](Self::call), for commands that are sent together; the server's refusals
    /// are among the answers.
    pub(super) async fn call_all(&mut self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        self.send(pipeline);
        self.landed().await
    }

    /// Sends commands together, behind those in flight, without waiting for an answer.
    pub(super) fn send(&mut self, pipeline: &Pipeline) {
        self.push(&pipeline.get_packed_pipeline(), pipeline.len());
    }

    /// Returns the answers to the oldest request in flight, or the reason why the connection is
    /// lost. While no request is in flight, it only waits for the loss. It may be dropped and
    /// called again.
    pub(super) async fn landed(&mut self) -> RedisResult<Vec<Value>> {
        loop {
            if self.flights.is_empty() {
                let due = self.used + self.keep_alive;
                match tokio::time::timeout_at(due, self.landed_flight()).await {
                    Ok(lost) => return lost,
                    Err(_) => {
                        self.is_pinging = true;
                        self.push(&cmd("PING").get_packed_command(), 1);
                    }
                }
            }
            let answers = self.landed_flight().await?;
            // A refusal is a sign of life, too.
            if !std::mem::take(&mut self.is_pinging) {
                return Ok(answers);
            }
        }
    }

    async fn landed_flight(&mut self) -> RedisResult<Vec<Value>> {
        let deadline = self.flights.front().map(|flight| flight.deadline);
        let landed = poll_fn(|cx| self.poll_landed(cx));
        match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, landed).await.unwrap_or_else(|_| Err(timed_out())),
            None => landed.await,
        }
    }

    fn poll_landed(&mut self, cx: &mut Context<'_>) -> Poll<RedisResult<Vec<Value>>> {
        loop {
            match self.flights.front_mut() {
                Some(flight) if flight.answers.len() == flight.expected => break,
                Some(flight) => flight.answers.push(ready!(self.wire.poll_answer(cx))?),
                None => return Poll::Ready(ready!(self.wire.poll_answer(cx)).and_then(|_| Err(unasked()))),
            }
        }
        Poll::Ready(Ok(self.flights.pop_front().map(|flight| flight.answers).unwrap_or_default()))
    }
}

/// Returns an answer that is not a refusal. Unlike the client's own function, it does not search
/// the contents of the answer.
pub(super) fn answered(answer: Value) -> RedisResult<Value> {
    match answer {
        Value::ServerError(refusal) => Err(refusal.into()),
        answer => Ok(answer),
    }
}

fn timed_out() -> RedisError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

fn unasked() -> RedisError {
    RedisError::from((ClientErrorKind::Parse, "the server sent an answer without a request"))
}

fn refused(config: &Config, error: ::redis::RedisError) -> Error {
    if let Some(explained) = explain_tls(&error) {
        return explained.with_system(SYSTEM).with_context("server", config.address());
    }
    match kind_of(&error) {
        ErrorKind::Unavailable | ErrorKind::Timeout if error.code().is_none() => unreachable(config).with_source(error),
        _ => command_failed("connect", error).with_context("server", config.address()),
    }
}

fn unreachable(config: &Config) -> Error {
    let message = match config.tls {
        None => {
            "cannot reach the server: check host and port, that Redis runs there, that it listens on that address, \
             and that it expects no TLS (rediss://)"
        }
        Some(_) => "cannot reach the server: check host and port, that Redis runs there, and that the port expects TLS",
    };
    Error::new(ErrorKind::Unavailable, message).with_system(SYSTEM).with_context("server", config.address())
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}
