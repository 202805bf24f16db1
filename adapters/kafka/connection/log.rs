//! Messages of librdkafka beside its answers: passed to the `tracing` log, and kept for the error
//! of a failed connection.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::super::config::KafkaBuilder;
use super::super::{error, tls};
use crate::error::{Error, ErrorKind};

/// The error that the client reported by itself and not as the answer to a call: the last one, or a
/// former one that says more.
#[derive(Debug, Default)]
pub(crate) struct Trouble(Mutex<Option<(RDKafkaErrorCode, String)>>);

impl Trouble {
    /// Returns the error of a failed attempt to connect with these settings, with the reason.
    pub(crate) fn explain(&self, error: Error, settings: &KafkaBuilder) -> Error {
        let message = if tls::is_encrypted(&settings.client) {
            "no broker answered; check that it runs, that host and port are right, and that the port accepts TLS \
             (without TLS the scheme is kafka://)"
        } else {
            "no broker answered; check that it runs, that host and port are right, and that the port accepts plain \
             connections (with TLS the scheme is kafkas://)"
        };
        let last = self.0.lock().clone();
        let error = match &last {
            Some((code, reason)) if is_refusal(*code, reason) => error::of_connection(*code, reason),
            _ if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => {
                Error::new(ErrorKind::Unavailable, message).with_source(error)
            }
            _ => error,
        };
        let error = error.with_context("servers", settings.servers());
        match last {
            Some((_, reason)) => error.with_context("reason", reason),
            None => error,
        }
    }

    pub(crate) fn note(&self, error: &KafkaError, reason: &str) {
        tracing::warn!(error = %error, reason, "kafka");
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut last = self.0.lock();
        // `AllBrokersDown` follows from another error and says less than that. So does the end of a
        // connection whose broker refuses: its reason is not always read before.
        let says_less = |(known, told): &(RDKafkaErrorCode, String)| {
            code == RDKafkaErrorCode::AllBrokersDown || is_refusal(*known, told) && !is_refusal(code, reason)
        };
        if !last.as_ref().is_some_and(says_less) {
            *last = Some((code, reason.to_owned()));
        }
    }
}

/// Returns `true` if one side does not accept the credentials or the certificate of the other.
fn is_refusal(code: RDKafkaErrorCode, reason: &str) -> bool {
    error::of_connection(code, reason).kind() == ErrorKind::Unauthenticated
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A broker says why it ends the connection, and the next one may end before that is read.
    #[test]
    fn a_refusal_is_told_whatever_follows() {
        let trouble = Trouble::default();
        for (code, reason) in [
            (RDKafkaErrorCode::BrokerTransportFailure, "Receive failed: tlsv13 alert certificate required"),
            (RDKafkaErrorCode::BrokerTransportFailure, "Disconnected: connection reset by peer"),
            (RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down"),
        ] {
            trouble.note(&KafkaError::Global(code), reason);
        }
        let error = trouble.explain(Error::new(ErrorKind::Timeout, "late"), &KafkaBuilder::new("k:9093"));
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        assert!(error.to_string().contains("certificate required"), "{error}");
    }
}
