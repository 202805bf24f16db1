//! The server's limit of time for unsettled messages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lapin::ErrorKind as ClientErrorKind;

/// The limit of one queue in milliseconds, 0 if there is none: as this program was told, until the
/// server names a shorter one when it ends a channel.
#[derive(Debug)]
pub(crate) struct TimeLimit(AtomicU64);

impl TimeLimit {
    pub(crate) fn new(limit: Duration) -> Self {
        Self(AtomicU64::new(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)))
    }

    pub(crate) fn get(&self) -> Option<Duration> {
        Some(self.0.load(Ordering::Relaxed)).filter(|limit| *limit > 0).map(Duration::from_millis)
    }

    /// Takes the limit that the server names as its reason to end the channel.
    pub(crate) fn learn(&self, queue: &str, error: &lapin::Error) {
        let ClientErrorKind::ProtocolError(refusal) = error.kind() else { return };
        let Some(limit_ms) = named(refusal.get_message().as_str()) else { return };
        let known = self.0.load(Ordering::Relaxed);
        if known == 0 || limit_ms < known {
            self.0.store(limit_ms, Ordering::Relaxed);
            let message = "the server's consumer_timeout is shorter than this program was told, and ended a channel: \
                           set the option consumer_timeout";
            tracing::warn!(queue, limit_ms, known_ms = known, message);
        }
    }
}

fn named(refusal: &str) -> Option<u64> {
    let (_, rest) = refusal.split_once("Timeout value used: ")?;
    rest.split(' ').next()?.parse().ok().filter(|limit| *limit > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_read_from_the_servers_words() {
        let words = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 6000 \
                     ms. This timeout value can be configured, see consumers doc guide to learn more";
        assert_eq!(named(words), Some(6000));
        for other in ["", "Timeout value used: ", "Timeout value used: 0 ms", "Timeout value used: soon"] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
