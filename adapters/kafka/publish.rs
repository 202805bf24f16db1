//! Publishing: straight into librdkafka's queue, confirmed from a thread that polls for its delivery reports.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use super::config::{KafkaBuilder, default};
use super::log::{Listener, Trouble};
use super::{error, headers, native};
use crate::driver::{Confirmation, Confirmer, Outbound};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Receipt;

/// How long the polling thread waits for a delivery report at a time, hence how soon it notices that it is to end.
const POLL: Duration = Duration::from_millis(100);

/// The producer and the thread that polls it.
#[derive(Debug)]
pub(super) struct Publisher {
    running: Arc<Running>,
    thread: Mutex<Option<JoinHandle<()>>>,
    max_message: usize,
}

struct Running {
    producer: BaseProducer<Listener>,
    ended: AtomicBool,
}

impl Publisher {
    pub(super) fn new(settings: &KafkaBuilder, trouble: Arc<Trouble>) -> Result<Self> {
        let listener = Listener { trouble };
        let producer = configuration(settings).create_with_context(listener).map_err(error::from_client)?;
        let running = Arc::new(Running { producer, ended: AtomicBool::new(false) });
        let polled = Arc::clone(&running);
        let poll = move || {
            while !polled.ended.load(Ordering::Relaxed) {
                polled.producer.poll(POLL);
            }
        };
        let thread = thread::Builder::new().name("kafka-producer".to_owned()).spawn(poll).map_err(|error| {
            Error::new(ErrorKind::Unexpected, "no thread can be started for the kafka producer").with_source(error)
        })?;
        Ok(Self { running, thread: Mutex::new(Some(thread)), max_message: settings.max_message() })
    }

    /// The producer's client, for metadata.
    pub(super) fn client(&self) -> &Client<Listener> {
        self.running.producer.client()
    }

    /// Enqueues a message; its report gives the confirmation.
    pub(super) fn publish(&self, topic: &str, message: &Outbound) -> Confirmation<Receipt> {
        let headers = match headers::to_native(&message.headers, message.id.as_deref()) {
            Ok(headers) => headers,
            Err(error) => return Confirmation::ready(Err(error)),
        };
        let (confirmer, confirmation) = Confirmation::pending();
        let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(topic, Box::new(confirmer));
        record.headers = headers;
        record.payload = message.payload.as_deref();
        record.key = message.key.as_deref();
        match self.running.producer.send(record) {
            Ok(()) => confirmation,
            Err((error, _)) => Confirmation::ready(Err(self.refused(error, message))),
        }
    }

    /// The error of a message that librdkafka did not take.
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

    /// Waits until every message has its report, then ends the thread. Blocks; a second call finds nothing left to do.
    pub(super) fn close(&self, limit: Duration) -> Result<()> {
        let flushed = self.running.producer.flush(limit);
        self.running.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.lock().take() {
            // It cannot have panicked but in a callback, and then there is nothing to do about it here.
            let _ = thread.join();
        }
        flushed.map_err(|error| error::from_client(error).with_unknown_outcome())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // The thread drops the producer, which blocks while it tells of every message that was not confirmed.
        self.running.ended.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("in_flight", &self.producer.in_flight_count()).finish()
    }
}

fn configuration(settings: &KafkaBuilder) -> ClientConfig {
    let mut client = settings.shared_client();
    client
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("allow.auto.create.topics", "false")
        .set("message.timeout.ms", settings.delivery_timeout.as_millis().to_string());
    default(&mut client, "partitioner", "murmur2_random");
    // A message waits for others, so long or until they make a batch: half of what may be in flight, so that one batch is filled
    // while the other is on its way. Those without a key go to one partition for a while, or there would be no batches.
    default(&mut client, "linger.ms", "1");
    default(&mut client, "batch.num.messages", (settings.max_in_flight / 2).clamp(1, 10_000).to_string());
    default(&mut client, "sticky.partitioning.linger.ms", "10");
    // A message counts until its report has been dealt with together with the others of the same answer, while those confirmed
    // first make room for new ones: so the queue is never full for who keeps to `max_in_flight`.
    let messages = 2 * settings.max_in_flight;
    let kilobytes = (messages * settings.max_message() / 1024).clamp(1_048_576, i32::MAX as usize);
    client.set("queue.buffering.max.messages", messages.to_string());
    default(&mut client, "queue.buffering.max.kbytes", kilobytes.to_string());
    client
}

impl ProducerContext for Listener {
    type DeliveryOpaque = Box<Confirmer<Receipt>>;

    fn delivery(&self, report: &DeliveryResult<'_>, confirmer: Self::DeliveryOpaque) {
        confirmer.confirm(match report {
            Ok(message) => {
                let receipt = Receipt::confirmed().with_partition(message.partition());
                // Negative where the broker had stored it at an earlier try of which the answer was lost.
                Ok(if message.offset() >= 0 { receipt.with_offset(message.offset()) } else { receipt })
            }
            Err((error, message)) => Err(undelivered(error, native::may_be_stored(message))),
        });
    }
}

fn undelivered(error: &KafkaError, may_be_stored: bool) -> Error {
    let mapped = match error.rdkafka_error_code() {
        Some(Code::MessageTimedOut) if !may_be_stored => {
            let message = "the broker could not be reached within the delivery timeout";
            Error::new(ErrorKind::Unavailable, message).with_source(error.clone())
        }
        _ => error::from_client(error.clone()),
    };
    if may_be_stored { mapped.with_unknown_outcome() } else { mapped }
}
