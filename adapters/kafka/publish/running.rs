//! A producer and the thread that polls it, and watches over it.
//!
//! A client of librdkafka that took the answer of a server that starts or stops for the whole
//! cluster may have no broker left to ask, and reaches none again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::Client;
use rdkafka::producer::{BaseProducer, Producer as _, PurgeConfig};

use crate::adapters::kafka::connection::log::{Listener, Trouble};
use crate::adapters::kafka::{error, topology};
use crate::error::{Error, ErrorKind, Result};

/// Maximum time that the polling thread waits for a delivery report, and so the delay until it
/// notices that it is to end.
const POLL: Duration = Duration::from_millis(100);
/// Interval of the looks at a producer whose messages, or questions, are not answered.
const LOOK: Duration = Duration::from_secs(5);
/// Maximum time of a question to the broker.
const ASK: Duration = Duration::from_secs(1);
/// The number of looks in a row after which a producer is cut off: one may come while it is
/// reconnecting.
const ENOUGH: u32 = 2;

/// A producer and the thread that polls it.
#[derive(Debug)]
pub(super) struct Polled {
    pub(super) running: Arc<Running>,
    pub(super) thread: JoinHandle<()>,
}

/// A producer that is polled.
pub(super) struct Running {
    pub(super) producer: BaseProducer<Listener>,
    ended: AtomicBool,
    /// `true` if a question was not answered in time.
    is_suspect: AtomicBool,
    /// `true` once it reached no broker while another client did.
    is_cut_off: AtomicBool,
}

impl Polled {
    pub(super) fn start(configuration: &ClientConfig, trouble: Arc<Trouble>) -> Result<Self> {
        let producer = configuration
            .create_with_context(Listener { trouble, ..Listener::default() })
            .map_err(error::from_client)?;
        let (ended, is_suspect, is_cut_off) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
        let running = Arc::new(Running { producer, ended, is_suspect, is_cut_off });
        let (polled, mut watch) = (Arc::clone(&running), Watch::new(configuration.clone()));
        let poll = move || {
            while !polled.ended.load(Ordering::Relaxed) {
                polled.producer.poll(POLL);
                watch.look(&polled);
            }
        };
        let thread = thread::Builder::new().name("kafka-producer".to_owned()).spawn(poll).map_err(|error| {
            Error::new(ErrorKind::Unexpected, "no thread can be started for the kafka producer").with_source(error)
        })?;
        Ok(Self { running, thread })
    }
}

impl Running {
    /// Tells the thread to end. It drops the producer, which blocks while it reports every message
    /// that was not confirmed.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Ends it because the connection is closed.
    pub(super) fn close(&self) {
        self.client().context().is_closing.store(true, Ordering::Relaxed);
        self.end();
    }

    /// Returns the client, which can be asked for metadata.
    pub(super) fn client(&self) -> &Client<Listener> {
        self.producer.client()
    }

    /// Notes that a question was not answered in time.
    pub(super) fn suspect(&self) {
        self.is_suspect.store(true, Ordering::Relaxed);
    }

    /// Returns `true` if it reaches no broker any more.
    pub(super) fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::Relaxed)
    }

    /// Returns the reason for which it can send no more messages.
    pub(super) fn failure(&self) -> Option<String> {
        let fatal = self.client().fatal_error().map(|(code, reason)| format!("{code}: {reason}"));
        fatal.or_else(|| self.is_cut_off().then(|| "it reaches no broker, and another client does".to_owned()))
    }

    /// Ends the wait of its messages.
    fn cut_off(&self) {
        self.is_cut_off.store(true, Ordering::Relaxed);
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("in_flight", &self.producer.in_flight_count()).finish()
    }
}

/// The watch over a producer.
struct Watch {
    configuration: ClientConfig,
    looked: Instant,
    suspicions: u32,
}

impl Watch {
    fn new(configuration: ClientConfig) -> Self {
        Self { configuration, looked: Instant::now(), suspicions: 0 }
    }

    /// Looks at intervals at a producer that should have heard of a broker.
    fn look(&mut self, running: &Running) {
        if self.looked.elapsed() < LOOK || running.is_cut_off() {
            return;
        }
        let is_answered = running.client().context().is_answered.swap(false, Ordering::Relaxed);
        let is_waiting = running.is_suspect.load(Ordering::Relaxed) || running.producer.in_flight_count() > 0;
        let is_cut_off = !is_answered && is_waiting && self.is_cut_off(running);
        running.is_suspect.fetch_and(is_cut_off, Ordering::Relaxed);
        self.suspicions = if is_cut_off { self.suspicions + 1 } else { 0 };
        self.looked = Instant::now();
        if self.suspicions >= ENOUGH {
            running.cut_off();
        }
    }

    /// Returns `true` if the producer reaches no broker, and another client does.
    fn is_cut_off(&self, running: &Running) -> bool {
        let reaches = |client: &Client<Listener>| topology::ping(client, ASK).is_ok();
        let other = || self.configuration.create_with_context::<_, BaseProducer<Listener>>(Listener::default());
        !reaches(running.client()) && other().is_ok_and(|other| reaches(other.client()))
    }
}
