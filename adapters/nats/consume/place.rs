//! The place at the server where a group keeps how often its messages have failed.
//!
//! The server counts how often it hands a message out, which is more: being fetched ahead, given
//! back and redelivered count there too. So the failures are kept in a stream beside the stream of
//! the topic. It has one small message for each message that failed and is not settled yet; it is
//! written when a retry is asked for, read when a message comes that was handed out before, and
//! deleted when the message is settled.

use std::time::Duration;

use async_nats::message::OutboundMessage;
use async_nats::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::error::{Error, ErrorKind, Result};

use super::super::connection::info::{nanos, number, object, text};
use super::super::connection::link::Link;
use crate::adapters::nats::connection::api;
use crate::adapters::nats::topology::names;

/// Maximum wait for the place. The messages behind one whose failures are read wait as well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// Time for which a place that failed is not asked again.
const PAUSE: Duration = Duration::from_secs(60);
/// Time after which the server forgets the failures of a message that was settled by a process that
/// could not delete them.
const KEPT: Duration = Duration::from_secs(30 * 86_400);
/// Maximum number of failed messages of a stream, all groups together.
const MAX_RECORDS: u64 = 1_000_000;

/// The place of one group.
#[derive(Debug)]
pub(crate) struct Place {
    stream: String,
    group: String,
    replicas: u64,
    may_create: bool,
    standing: Mutex<Standing>,
}

#[derive(Debug, Default)]
struct Standing {
    /// The time until which the place is not used.
    refused: Option<Instant>,
    has_warned: bool,
}

/// The failures of one message, as the place keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) failed: u32,
    /// The sequence at which they are kept.
    pub(crate) sequence: u64,
}

impl Place {
    /// Returns the place of a group in this stream. `replicas` is the number of servers that keep
    /// the stream.
    pub(crate) fn new(stream: &str, group: &str, replicas: u64, may_create: bool) -> Self {
        let (stream, group) = (stream.to_owned(), group.to_owned());
        Self { stream, group, replicas, may_create, standing: Mutex::default() }
    }

    /// Writes how often a message has failed; `None` if the place cannot be used. `consumer` is the
    /// time at which the group was created: what an earlier group of the same name wrote does not
    /// count.
    pub(crate) async fn write(&self, link: &Link, message: u64, failed: u32, consumer: &str) -> Option<u64> {
        let record = object([("failed", failed.into()), ("consumer", consumer.into())]);
        self.ask(async {
            match self.put(link, message, &record).await {
                Err(missing) if missing.kind() == ErrorKind::NotFound => {
                    self.create(link).await?;
                    self.put(link, message, &record).await
                }
                put => put,
            }
        })
        .await
    }

    /// Reads how often a message has failed: `Some(None)` if it has not, and `None` if the place
    /// cannot be used.
    pub(crate) async fn read(&self, link: &Link, message: u64, consumer: &str) -> Option<Option<Record>> {
        let (place, subject) = (names::tries(&self.stream), self.subject(message));
        let found = self.ask(api::last_message(link, &place, &subject)).await?;
        Some(found.and_then(|found| {
            let record: Value = std::str::from_utf8(&found.payload).ok()?.parse().ok()?;
            let failed = u32::try_from(number(&record["failed"])).unwrap_or(u32::MAX);
            (text(&record["consumer"]) == consumer).then_some(Record { failed, sequence: found.sequence })
        }))
    }

    /// Deletes a record, without waiting: if it is not deleted, it expires.
    pub(crate) fn delete(&self, link: &Link, sequence: u64) {
        if !self.is_refused() {
            api::forget_message(link, &names::tries(&self.stream), sequence);
        }
    }

    fn subject(&self, message: u64) -> String {
        names::tries_subject(&self.stream, &self.group, &message.to_string())
    }

    async fn put(&self, link: &Link, message: u64, record: &Value) -> Result<u64> {
        let place = names::tries(&self.stream);
        // A stream with wide subjects must not take the record.
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Stream", place.as_str());
        let (subject, payload) = (self.subject(message).into(), record.to_string().into());
        let answer =
            link.request_with(OutboundMessage { subject, payload, reply: None, headers: Some(headers) }).await?;
        if answer.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(Error::new(ErrorKind::NotFound, "the place does not exist").with_context("stream", place));
        }
        api::read(&answer).map(|answer| number(&answer["seq"]))
    }

    async fn create(&self, link: &Link) -> Result<()> {
        let name = names::tries(&self.stream);
        if !self.may_create {
            let message = "the place does not exist, and topology=check forbids creating it";
            return Err(Error::new(ErrorKind::NotFound, message).with_context("stream", name));
        }
        let config = object([
            ("name", name.as_str().into()),
            ("description", "failed attempts at messages that are not settled yet (traced-broker)".into()),
            ("subjects", vec![names::tries_subjects(&self.stream, None)].into()),
            ("retention", "limits".into()),
            ("storage", "file".into()),
            ("num_replicas", self.replicas.max(1).into()),
            ("max_msgs_per_subject", 1.into()),
            ("max_msgs", MAX_RECORDS.into()),
            ("max_age", nanos(KEPT)),
        ]);
        match api::create_stream(link, &name, config).await {
            Ok(_) => Ok(()),
            // Another member was quicker, or an operator has created it with other limits. If it
            // takes other subjects, writing fails.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
            Err(error) => Err(error.with_context("stream", name)),
        }
    }

    /// Asks the place, unless it has failed a moment ago.
    async fn ask<T>(&self, asking: impl Future<Output = Result<T>>) -> Option<T> {
        if self.is_refused() {
            return None;
        }
        let late = || Error::new(ErrorKind::Timeout, "the server did not answer in time");
        match timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(late())) {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.refuse(&error);
                None
            }
        }
    }

    fn is_refused(&self) -> bool {
        self.standing.lock().refused.is_some_and(|until| Instant::now() < until)
    }

    fn refuse(&self, error: &Error) {
        let mut standing = self.standing.lock();
        standing.refused = Some(Instant::now() + PAUSE);
        if !std::mem::replace(&mut standing.has_warned, true) {
            let (stream, group) = (names::tries(&self.stream), self.group.as_str());
            tracing::warn!(
                stream,
                group,
                %error,
                "attempts cannot be kept at the server, so they are counted in this process only"
            );
        }
    }
}
