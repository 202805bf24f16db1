//! What librdkafka says beside its answers: to the `tracing` log, and kept for the error of a failed connection.

use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The last trouble that the client reported of itself rather than as the answer to a call.
#[derive(Debug, Default)]
pub(super) struct Trouble(Mutex<Option<(RDKafkaErrorCode, String)>>);

impl Trouble {
    /// What it was and what librdkafka said of it.
    pub(super) fn last(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.0.lock().clone()
    }

    pub(super) fn note(&self, error: &KafkaError, reason: &str) {
        tracing::warn!(error = %error, reason, "kafka");
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut last = self.0.lock();
        // That every broker is down follows from a reason, and says less than it.
        if code != RDKafkaErrorCode::AllBrokersDown || last.is_none() {
            *last = Some((code, reason.to_owned()));
        }
    }
}

/// A line of librdkafka's own log.
fn line(level: RDKafkaLogLevel, facility: &str, text: &str) {
    use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
    match level {
        // Shared properties are meant for producer or consumer, and the other warns that it does not use them.
        _ if facility == "CONFWARN" => tracing::debug!(facility, text, "librdkafka"),
        Emerg | Alert | Critical | Error => tracing::error!(facility, text, "librdkafka"),
        Warning => tracing::warn!(facility, text, "librdkafka"),
        Notice | Info => tracing::info!(facility, text, "librdkafka"),
        Debug => tracing::debug!(facility, text, "librdkafka"),
    }
}

/// Passes on what a client says.
#[derive(Debug, Default)]
pub(super) struct Listener {
    pub(super) trouble: Arc<Trouble>,
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble.note(&error, reason);
    }
}
