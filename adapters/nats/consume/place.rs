//! The place at the server where a group keeps how often its messages have failed, and the trials
//! of those that may end the process of their handler.
//!
//! The server counts how often it hands a message out, which is more: being fetched ahead, given
//! back and redelivered count there too. So the failures are kept in a stream beside the stream of
//! the topic. It has one small message for each message that failed and is not settled yet; it is
//! written when a retry is asked for, read when a message comes that was handed out before, and
//! deleted when the message is settled. The trials that are noted are kept in the same record, as a
//! number that is only ever changed by one: a process that has lost the message to another may
//! still have its own note to withdraw.

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
/// Number of times that a record is read and changed, if others change it in between.
const ROUNDS: usize = 5;

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

/// The counts of one message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) failed: u32,
    /// The trials that are noted.
    pub(crate) trials: u32,
}

/// The counts of one message, as the place keeps them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) counts: Counts,
    /// The sequence at which they are kept; 0 without a record.
    pub(crate) sequence: u64,
}

impl Counts {
    fn write(self, consumer: &str) -> Value {
        let Self { failed, trials } = self;
        let mut fields = vec![("failed", failed.into()), ("consumer", consumer.into())];
        if trials > 0 {
            fields.push(("trials", trials.into()));
        }
        object(fields)
    }

    /// Reads a record; `None` if it is not one, or not of this consumer.
    fn read(payload: &[u8], consumer: &str) -> Option<Self> {
        let record: Value = std::str::from_utf8(payload).ok()?.parse().ok()?;
        let count = |field: &str| u32::try_from(number(&record[field])).unwrap_or(u32::MAX);
        (text(&record["consumer"]) == consumer).then(|| Self { failed: count("failed"), trials: count("trials") })
    }
}

impl Place {
    /// Returns the place of a group in this stream. `replicas` is the number of servers that keep
    /// the stream.
    pub(crate) fn new(stream: &str, group: &str, replicas: u64, may_create: bool) -> Self {
        let (stream, group) = (stream.to_owned(), group.to_owned());
        Self { stream, group, replicas, may_create, standing: Mutex::default() }
    }

    /// Writes the counts of a message, and returns the sequence of the record. `consumer` is the
    /// time at which the group was created: what an earlier group of the same name wrote does not
    /// count.
    pub(crate) async fn write(&self, link: &Link, message: u64, counts: Counts, consumer: &str) -> Result<u64> {
        self.ask(link, self.put(link, message, &counts.write(consumer), None)).await
    }

    /// Reads the counts of a message.
    pub(crate) async fn read(&self, link: &Link, message: u64, consumer: &str) -> Result<Record> {
        self.ask(link, self.find(link, message, consumer)).await
    }

    /// Changes the counts of a message, also while others do so, and returns the record.
    pub(crate) async fn change(
        &self,
        link: &Link,
        message: u64,
        consumer: &str,
        change: impl Fn(Counts) -> Counts,
    ) -> Result<Record> {
        self.ask(link, async {
            let mut round = 1;
            loop {
                let record = self.find(link, message, consumer).await?;
                match self.replace(link, message, record, change(record.counts), consumer).await {
                    // Another process has changed or deleted it.
                    Err(error) if error.kind() == ErrorKind::Conflict && round < ROUNDS => round += 1,
                    replaced => return replaced,
                }
            }
        })
        .await
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

    async fn find(&self, link: &Link, message: u64, consumer: &str) -> Result<Record> {
        let found = api::last_message(link, &names::tries(&self.stream), &self.subject(message)).await?;
        let record = found.map(|found| Record {
            counts: Counts::read(&found.payload, consumer).unwrap_or_default(),
            sequence: found.sequence,
        });
        Ok(record.unwrap_or_default())
    }

    /// Writes other counts, or deletes the record if there is nothing left to count. Fails as a
    /// conflict if it is no longer the record of the message.
    async fn replace(
        &self,
        link: &Link,
        message: u64,
        record: Record,
        counts: Counts,
        consumer: &str,
    ) -> Result<Record> {
        if counts == record.counts {
            return Ok(record);
        }
        if counts == Counts::default() {
            return match api::delete_message(link, &names::tries(&self.stream), record.sequence).await {
                Err(error) if matches!(error.kind(), ErrorKind::Rejected | ErrorKind::NotFound) => {
                    Err(Error::new(ErrorKind::Conflict, "the record is not there to be deleted").with_source(error))
                }
                deleted => deleted.map(|()| Record::default()),
            };
        }
        let sequence = self.put(link, message, &counts.write(consumer), Some(record.sequence)).await?;
        Ok(Record { counts, sequence })
    }

    /// Writes a record, in a place that is created if it is missing; `after` is the sequence of the
    /// one that it must replace.
    async fn put(&self, link: &Link, message: u64, record: &Value, after: Option<u64>) -> Result<u64> {
        match self.try_put(link, message, record, after).await {
            Err(missing) if missing.kind() == ErrorKind::NotFound => {
                self.create(link).await?;
                self.try_put(link, message, record, after).await
            }
            put => put,
        }
    }

    async fn try_put(&self, link: &Link, message: u64, record: &Value, after: Option<u64>) -> Result<u64> {
        let place = names::tries(&self.stream);
        // A stream with wide subjects must not take the record.
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Stream", place.as_str());
        if let Some(after) = after {
            headers.insert("Nats-Expected-Last-Subject-Sequence", after.to_string());
        }
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
            (
                "description",
                "failed attempts at messages that are not settled yet, and their lost trials (traced-broker)".into(),
            ),
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
    async fn ask<T>(&self, link: &Link, asking: impl Future<Output = Result<T>>) -> Result<T> {
        if self.is_refused() {
            return Err(Error::new(ErrorKind::Busy, "the place has failed a moment ago and is not asked"));
        }
        let epoch = link.health().epoch();
        let late = || Error::new(ErrorKind::Timeout, "the server did not answer in time").with_unknown_outcome();
        let answer = timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(late()));
        // The loss of a connection says nothing about the place, nor does a race for a record.
        if let Err(error) = &answer
            && error.kind() != ErrorKind::Conflict
            && link.health().is_same(epoch)
        {
            self.refuse(error);
        }
        answer
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_with_and_without_trials_and_for_its_consumer_only() {
        let read = |record: &str| Counts::read(record.as_bytes(), "now");
        for counts in [Counts { failed: 2, trials: 0 }, Counts { failed: 0, trials: 3 }] {
            assert_eq!(read(&counts.write("now").to_string()), Some(counts));
            assert_eq!(read(&counts.write("before").to_string()), None, "of an earlier group of the name");
        }
        assert_eq!(read(r#"{"failed":4,"consumer":"now"}"#), Some(Counts { failed: 4, trials: 0 }));
        assert_eq!(read(r#"{"failed":1,"trials":"x","consumer":"now"}"#), Some(Counts { failed: 1, trials: 0 }));
        assert_eq!((read("no record"), read("{}")), (None, None));
    }
}
