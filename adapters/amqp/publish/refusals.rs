//! Topics to which publishing has just failed.
//!
//! The broker answers a publish to a missing exchange by ending the channel, and with it the
//! confirms of all other topics. Publishes to such a topic therefore fail at once for a while, so
//! that they do not end the next channel too.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use lapin::ErrorKind as ClientErrorKind;
use parking_lot::Mutex;

use super::super::error::{During, client_error};
use crate::error::{Error, ErrorKind, Result};

/// Time for which publishes to a refused topic fail at once.
const WHILE: Duration = Duration::from_secs(1);

/// The refused topics, each with the time and the kind of its error. Holds those of the last second
/// only.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<HashMap<String, (Instant, ErrorKind)>>);

impl Refusals {
    /// Notes the exchange that the text of the error names as the reason for the end of the
    /// channel, if it names one.
    pub(crate) fn note(&self, error: &lapin::Error) {
        let ClientErrorKind::ProtocolError(refusal) = error.kind() else { return };
        let Some((_, rest)) = refusal.get_message().as_str().split_once("exchange '") else { return };
        let Some((exchange, _)) = rest.split_once('\'') else { return };
        let kind = client_error(error.clone(), During::Declare).kind();
        let now = Instant::now();
        let mut topics = self.0.lock();
        topics.retain(|_, (at, _)| now.duration_since(*at) < WHILE);
        topics.insert(exchange.to_owned(), (now, kind));
    }

    /// Forgets a topic whose exchange was declared.
    pub(crate) fn forget(&self, topic: &str) {
        self.0.lock().remove(topic);
    }

    /// Checks that the topic was not refused within the last second.
    ///
    /// # Errors
    /// The error with which the topic was refused.
    pub(crate) fn check(&self, topic: &str) -> Result<()> {
        let topics = self.0.lock();
        match topics.get(topic) {
            Some((at, kind)) if at.elapsed() < WHILE => {
                Err(Error::new(*kind, "the broker refused this topic's exchange just now: see whether it still exists")
                    .with_context("exchange", topic))
            }
            _ => Ok(()),
        }
    }
}
