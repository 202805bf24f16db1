//! Messages of librdkafka beside its answers: passed to the `tracing` log, and kept for the error
//! of a failed connection.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The last error that the client reported by itself and not as the answer to a call.
#[derive(Debug, Default)]
pub(crate) struct Trouble(Mutex<Option<(RDKafkaErrorCode, String)>>);

impl Trouble {
    /// Returns the code of the error and librdkafka's text.
    pub(crate) fn last(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.0.lock().clone()
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
