//! Messages of librdkafka beside its answers: passed to the `tracing` log, and kept for the error
//! of a failed connection.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::super::error;
use crate::error::{Error, ErrorKind};

/// The last error that the client reported by itself and not as the answer to a call.
#[derive(Debug, Default)]
pub(crate) struct Trouble(Mutex<Option<(RDKafkaErrorCode, String)>>);

impl Trouble {
    /// Returns the code of the error and librdkafka's text.
    fn last(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.0.lock().clone()
    }

    /// Returns the error of a failed attempt to connect to these servers, with the reason.
    pub(crate) fn explain(&self, error: Error, servers: &str) -> Error {
        let message = "no broker answered; check that it runs, that host and port are right, and that it accepts plain \
                       connections";
        let last = self.last();
        let error = match &last {
            Some((code, _)) if error::from_code(*code).kind() == ErrorKind::Unauthenticated => error::from_code(*code),
            _ if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => {
                Error::new(ErrorKind::Unavailable, message).with_source(error)
            }
            _ => error,
        };
        let error = error.with_context("servers", servers);
        match last {
            Some((_, reason)) => error.with_context("reason", reason),
            None => error,
        }
    }

    pub(crate) fn note(&self, error: &KafkaError, reason: &str) {
        tracing::warn!(error = %error, reason, "kafka");
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut last = self.0.lock();
        // `AllBrokersDown` follows from another error and says less than that.
        if code != RDKafkaErrorCode::AllBrokersDown || last.is_none() {
            *last = Some((code, reason.to_owned()));
        }
    }
}

/// Logs a line of librdkafka's own log.
fn line(level: RDKafkaLogLevel, facility: &str, text: &str) {
    use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
    match level {
        // Producer and consumer share properties, and each warns about those that it does not use.
        _ if facility == "CONFWARN" => tracing::debug!(facility, text, "librdkafka"),
        Emerg | Alert | Critical | Error => tracing::error!(facility, text, "librdkafka"),
        Warning => tracing::warn!(facility, text, "librdkafka"),
        Notice | Info => tracing::info!(facility, text, "librdkafka"),
        Debug => tracing::debug!(facility, text, "librdkafka"),
    }
}

/// The client context that passes on log lines and errors.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    pub(crate) trouble: Arc<Trouble>,
    /// `true` once the connection is closed.
    pub(crate) is_closing: AtomicBool,
    /// `true` if a message was confirmed since the last look at the producer.
    pub(crate) is_answered: AtomicBool,
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble.note(&error, reason);
    }
}

impl ConsumerContext for Listener {}
