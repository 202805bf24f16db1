//! Topics to which publishing failed just now.
//!
//! The broker answers a publish to an exchange that is missing by ending the channel, and with it the confirms of every other topic. So
//! publishes to such a topic fail at once for a while, rather than end the next channel too.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use lapin::ErrorKind as ClientErrorKind;
use parking_lot::Mutex;

use super::error::{During, client_error};
use crate::error::{Error, ErrorKind, Result};

/// How long a topic is left alone before the next try.
const WHILE: Duration = Duration::from_secs(1);

/// The topics, each with when and why it was refused. Holds those of the last second only.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<String, (Instant, ErrorKind)>>);

impl Refusals {
    /// Notes the exchange that the broker's words name as the reason why it ended the channel, if they name one.
    pub(super) fn note(&self, error: &lapin::Error) {
        let ClientErrorKind::ProtocolError(refusal) = error.kind() else { return };
        let Some((_, rest)) = refusal.get_message().as_str().split_once("exchange '") else { return };
        let Some((exchange, _)) = rest.split_once('\'') else { return };
        let kind = client_error(error.clone(), During::Declare).kind();
        let now = Instant::now();
        let mut topics = self.0.lock();
        topics.retain(|_, (at, _)| now.duration_since(*at) < WHILE);
        topics.insert(exchange.to_owned(), (now, kind));
    }

    /// Whether the topic may be tried.
    ///
    /// # Errors
    /// Why it was refused.
    pub(super) fn check(&self, topic: &str) -> Result<()> {
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
