//! Publishing: straight into librdkafka's queue. A thread polls for delivery reports and confirms
//! publishes.

mod running;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::RwLock;
use rdkafka::ClientConfig;
use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Headers as _, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext};

use self::running::{Polled, Running};
use super::config::{KafkaBuilder, default};
use super::connection::log::{Listener, Trouble};
use crate::adapters::kafka::connection::native;
use crate::adapters::kafka::{closed, error, headers};
use crate::driver::{Confirmer, Outbound};
use crate::error::{Error, ErrorKind, Result};
use crate::headers::Headers;
use crate::message::Receipt;

/// Maximum number of messages that a batch waits for. Larger ones are hardly smaller per message.
const BATCH: usize = 128;

const UNKNOWN_TOPIC: Duration = Duration::from_secs(5);

/// The producer, until it is closed.
pub(super) struct Publisher {
    configuration: ClientConfig,
    trouble: Arc<Trouble>,
    polled: RwLock<Option<Polled>>,
    max_message: usize,
}

type Record<'a> = BaseRecord<'a, [u8], [u8], Box<Confirmer<Receipt>>>;

impl Publisher {
    pub(super) fn new(settings: &KafkaBuilder, trouble: Arc<Trouble>) -> Result<Self> {
        let configuration = configuration(settings);
        let polled = Polled::start(&configuration, Arc::clone(&trouble))?;
        Ok(Self { configuration, trouble, polled: RwLock::new(Some(polled)), max_message: settings.max_message() })
    }

    /// Asks the client for something.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] after [`close`](Self::close), and those of the question.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&Client<Listener>) -> Result<T>) -> Result<T> {
        let mut running = self.running()?;
        if running.is_cut_off() {
            self.renew()?;
            running = self.running()?;
        }
        question(running.client()).inspect_err(|error| {
            if matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable) {
                running.suspect();
            }
        })
    }

    fn running(&self) -> Result<Arc<Running>> {
        self.polled.read().as_ref().map(|polled| Arc::clone(&polled.running)).ok_or_else(closed)
    }

    /// Enqueues a message. Its delivery report answers the confirmer.
    pub(super) fn publish(&self, topic: &str, message: &Outbound, confirmer: Confirmer<Receipt>) {
        let headers = match headers::to_native(&message.headers, message.id.as_deref()) {
            Ok(headers) => headers,
            Err(error) => return confirmer.confirm(Err(error)),
        };
        let mut record = Record::with_opaque_to(topic, Box::new(confirmer));
        record.headers = headers;
        record.payload = message.payload.as_deref();
        record.key = message.key.as_deref();
        let sent = match self.send(record) {
            Err((error, record)) if error.rdkafka_error_code() == Some(Code::Fatal) => match self.renew() {
                Ok(()) => self.send(record),
                Err(error) => return record.delivery_opaque.confirm(Err(error)),
            },
            sent => sent,
        };
        match sent {
            Ok(()) => {}
            Err((KafkaError::Canceled, record)) => record.delivery_opaque.confirm(Err(closed())),
            Err((error, record)) => match self.refused(error, message) {
                error if error.kind() == ErrorKind::NotFound => {
                    record.delivery_opaque.give_back(message.clone(), error);
                }
                error => record.delivery_opaque.confirm(Err(error)),
            },
        }
    }

    /// Passes the record to librdkafka. Returns the record if it is refused, and after closing.
    #[expect(clippy::result_large_err, reason = "rdkafka gives a record back by value, and failures are rare")]
    fn send<'a>(&self, record: Record<'a>) -> Result<(), (KafkaError, Record<'a>)> {
        match &*self.polled.read() {
            Some(polled) if polled.running.is_cut_off() => Err((KafkaError::MessageProduction(Code::Fatal), record)),
            Some(polled) => polled.running.producer.send(record),
            None => Err((KafkaError::Canceled, record)),
        }
    }

    /// Replaces a producer that can send no more messages. This happens when the broker has
    /// forgotten messages that it had confirmed, and when the client has lost all brokers.
    fn renew(&self) -> Result<()> {
        let mut polled = self.polled.write();
        let Some(old) = polled.as_ref() else { return Err(closed()) };
        // Another caller may have replaced it already.
        if let Some(reason) = old.running.failure() {
            tracing::warn!(reason, "kafka: the producer is made anew");
            let new = Polled::start(&self.configuration, Arc::clone(&self.trouble))?;
            old.running.end();
            *polled = Some(new);
        }
        Ok(())
    }

    /// Returns the error of a message that librdkafka did not accept.
    fn refused(&self, error: KafkaError, message: &Outbound) -> Error {
        match error.rdkafka_error_code() {
            Some(Code::MessageSizeTooLarge) => {
                let size = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
                let size = size(&message.payload) + size(&message.key) + message.headers.byte_len();
                error::from_client(error).with_context("size", size).with_context("limit", self.max_message)
            }
            _ => error::from_client(error),
        }
    }

    /// Waits until every message has its report, then ends producer and thread. Blocks; a second
    /// call is a no-op.
    pub(super) fn close(&self, limit: Duration) -> Result<()> {
        let Some(Polled { running, thread }) = self.polled.write().take() else { return Ok(()) };
        let flushed = running.producer.flush(limit);
        running.close();
        drop(running);
        // The thread can only have panicked in a callback, which cannot be repaired here.
        let _ = thread.join();
        flushed.map_err(|error| error::from_client(error).with_unknown_outcome())
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the configuration, whose values may be secrets.
        f.debug_struct("Publisher").field("polled", &self.polled).finish_non_exhaustive()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if let Some(polled) = self.polled.get_mut() {
            polled.running.close();
        }
    }
}

fn configuration(settings: &KafkaBuilder) -> ClientConfig {
    let mut client = settings.shared_client();
    client
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("allow.auto.create.topics", "false")
        .set("message.timeout.ms", settings.delivery_timeout.as_millis().to_string());
    // Maximum time that a topic may be unknown before its messages fail. It existed when it was
    // declared.
    let unknown = (settings.delivery_timeout / 2).min(UNKNOWN_TOPIC);
    default(&mut client, "topic.metadata.propagation.max.ms", unknown.as_millis().to_string());
    default(&mut client, "partitioner", "murmur2_random");
    // A message waits for the linger time, or until half of the messages in flight make a batch.
    // One batch is then filled while the other is sent. The limit is small, so that publishers with
    // far fewer messages in flight do not wait each time. Messages without a key go to one
    // partition for a while, or there would be no batches.
    default(&mut client, "linger.ms", "1");
    default(&mut client, "batch.num.messages", (settings.max_in_flight / 2).clamp(1, BATCH).to_string());
    default(&mut client, "sticky.partitioning.linger.ms", "10");
    // A message counts until its report has been handled together with the others of the same
    // answer, while messages confirmed first make room for new ones. With twice the limit, the
    // queue is never full for callers that keep to `max_in_flight`.
    let messages = 2 * settings.max_in_flight;
    let kilobytes = (messages * settings.max_message() / 1024).clamp(1_048_576, i32::MAX as usize);
    client.set("queue.buffering.max.messages", messages.to_string());
    default(&mut client, "queue.buffering.max.kbytes", kilobytes.to_string());
    client
}

impl ProducerContext for Listener {
    type DeliveryOpaque = Box<Confirmer<Receipt>>;

    fn delivery(&self, report: &DeliveryResult<'_>, confirmer: Self::DeliveryOpaque) {
        match report {
            Ok(message) => {
                self.is_answered.store(true, Ordering::Relaxed);
                confirmer.confirm(stored(message));
            }
            Err((error, message)) => {
                let may_be_stored = native::may_be_stored(message);
                let error = undelivered(error, may_be_stored, self.is_closing.load(Ordering::Relaxed));
                if error.kind() == ErrorKind::NotFound && !may_be_stored {
                    return confirmer.give_back(unsent(message), error);
                }
                confirmer.confirm(Err(error));
            }
        }
    }
}

/// Returns the receipt of a message that the broker has answered.
///
/// # Errors
/// The broker took it for a repetition, and librdkafka reports it as stored, without an offset. It
/// is, if the answer to the first attempt was lost. It is not, if the leader of a new partition
/// refused the first batch and took the second one: a partition without messages of a producer
/// begins with any of them, and the broker then takes the first one for an old one.
fn stored(message: &BorrowedMessage<'_>) -> Result<Receipt> {
    if message.offset() < 0 {
        let text = "the broker takes the message for a repetition, and may not have stored it";
        return Err(Error::new(ErrorKind::Unavailable, text).with_unknown_outcome());
    }
    Ok(Receipt::confirmed().with_partition(message.partition()).with_offset(message.offset()))
}

/// Returns the message of a failed delivery, as it was published. Its id is among its headers.
fn unsent(message: &BorrowedMessage<'_>) -> Outbound {
    let mut headers = Headers::new();
    // All names are text and all values are there, since this adapter wrote them.
    for header in message.headers().into_iter().flat_map(|native| native.iter()) {
        headers.append(header.key, header.value.unwrap_or_default());
    }
    let copied = |bytes: Option<&[u8]>| bytes.map(bytes::Bytes::copy_from_slice);
    Outbound { payload: copied(message.payload()), key: copied(message.key()), headers, ..Outbound::default() }
}

fn undelivered(error: &KafkaError, may_be_stored: bool, is_closing: bool) -> Error {
    let mapped = match error.rdkafka_error_code() {
        // What else librdkafka had accepted, after a fatal error.
        Some(Code::PurgeQueue | Code::PurgeInflight) if !is_closing => {
            let message = "the producer failed before the broker confirmed the message, and is replaced";
            Error::new(ErrorKind::Unavailable, message).with_source(error.clone())
        }
        Some(Code::MessageTimedOut) if !may_be_stored => {
            let message = "no broker took the message within the delivery timeout";
            Error::new(ErrorKind::Unavailable, message).with_source(error.clone())
        }
        // librdkafka says so of messages that it had assigned to a partition whose topic it then
        // found deleted, and of what is left when the producer is closed.
        Some(Code::BrokerDestroy) if !may_be_stored => {
            let message = "the topic was deleted while the message waited to be sent";
            Error::new(ErrorKind::NotFound, message).with_source(error.clone())
        }
        _ => error::from_client(error.clone()),
    };
    if may_be_stored { mapped.with_unknown_outcome() } else { mapped }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::PublishOutcome;

    #[test]
    fn a_message_of_a_partition_that_went_with_its_topic_was_not_sent() {
        let destroyed = KafkaError::MessageProduction(Code::BrokerDestroy);
        let error = undelivered(&destroyed, false, false);
        assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::NotFound, PublishOutcome::NotSent));
        assert_eq!(undelivered(&destroyed, true, false).publish_outcome(), PublishOutcome::Unknown);
    }

    #[test]
    fn only_closing_is_told_as_closing() {
        let purged = KafkaError::MessageProduction(Code::PurgeQueue);
        assert_eq!(undelivered(&purged, false, true).kind(), ErrorKind::Closed);
        let error = undelivered(&purged, false, false);
        assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Unavailable, PublishOutcome::NotSent));
    }
}
