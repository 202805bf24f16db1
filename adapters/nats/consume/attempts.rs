//! The attempts at the messages of a consumer: how often a retry was asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::timeout;

use crate::error::ErrorKind;

use super::super::connection::link::Link;
use super::super::headers::reply_subject::Tokens;
use super::place::{PATIENCE, Place, Record};
use crate::adapters::nats::connection::api;
use crate::adapters::nats::topology::names;

/// Maximum number of messages of a consumer whose attempts are remembered in this process.
const REMEMBERED: usize = 16_384;

/// The attempts of one consumer, for all its members in this process.
#[derive(Debug)]
pub(crate) struct Attempts {
    /// The place at the server; `None` for a reader without a group, whose consumer ends with it.
    place: Option<Place>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The time at which the consumer was created: its successor begins anew.
    consumer: String,
    messages: BTreeMap<u64, Message>,
}

#[derive(Debug, Clone, Copy)]
struct Message {
    failed: u32,
    /// The number of the delivery after which this was known. If the next one comes to this process
    /// too, no other process can know more.
    delivered: u32,
    record: Option<u64>,
}

/// The attempts of all groups that were read from, by stream and consumer.
#[derive(Debug, Default)]
pub(crate) struct AllAttempts(Mutex<HashMap<(String, String), Arc<Attempts>>>);

impl AllAttempts {
    /// Returns the attempts of a group; `place` is made if they are new.
    pub(crate) fn of(&self, stream: &str, group: &str, place: impl FnOnce() -> Place) -> Arc<Attempts> {
        let mut all = self.0.lock();
        let attempts = all.entry((stream.to_owned(), group.to_owned()));
        Arc::clone(attempts.or_insert_with(|| Arc::new(Attempts::new(Some(place())))))
    }

    /// Forgets the attempts of a group whose position was moved: its messages begin anew.
    pub(crate) async fn forget(&self, link: &Link, stream: &str, group: &str) {
        let (place, subjects) = (names::tries(stream), names::tries_subjects(stream, Some(group)));
        // Without the permission, messages that failed before the move keep their count.
        match timeout(PATIENCE, api::purge(link, &place, &subjects)).await {
            Ok(Err(error)) if error.kind() != ErrorKind::NotFound => {
                tracing::debug!(stream, group, %error, "the attempts of a group that was moved are not deleted");
            }
            _ => {}
        }
        if let Some(attempts) = self.0.lock().get(&(stream.to_owned(), group.to_owned())) {
            attempts.known.lock().messages.clear();
        }
    }
}

impl Attempts {
    pub(crate) fn new(place: Option<Place>) -> Self {
        Self { place, known: Mutex::default() }
    }

    /// Starts a session of the consumer that was created at this time.
    pub(crate) fn begin(&self, consumer: &str) {
        let mut known = self.known.lock();
        if known.consumer != consumer {
            *known = Known { consumer: consumer.to_owned(), messages: BTreeMap::new() };
        }
    }

    /// Returns the attempt that a delivery is, if it is known without asking the server.
    pub(crate) fn known(&self, tokens: &Tokens) -> Option<u32> {
        if tokens.delivered <= 1 {
            return Some(1);
        }
        match (self.known.lock().messages.get(&tokens.stream_sequence), &self.place) {
            (Some(message), None) => Some(message.failed.saturating_add(1)),
            (None, None) => Some(1),
            (Some(message), Some(_)) if message.delivered.saturating_add(1) == tokens.delivered => {
                Some(message.failed.saturating_add(1))
            }
            _ => None,
        }
    }

    /// Returns the attempt that a delivery is; asks the server.
    pub(crate) async fn find(&self, link: &Link, tokens: &Tokens) -> u32 {
        let sequence = tokens.stream_sequence;
        let (consumer, here) = {
            let known = self.known.lock();
            (known.consumer.clone(), known.messages.get(&sequence).copied())
        };
        let found = match &self.place {
            Some(place) => place.read(link, sequence, &consumer).await.flatten(),
            None => None,
        };
        let failed_here = here.map_or(0, |message| message.failed);
        let failed = found.map_or(0, |record| record.failed).max(failed_here);
        let record = found.map(|Record { sequence, .. }| sequence).or(here.and_then(|message| message.record));
        self.remember(sequence, Message { failed, delivered: tokens.delivered, record });
        failed.saturating_add(1)
    }

    /// Records that a retry is asked for after this attempt. Returns `true` if that is still to be
    /// [kept](Self::keep) at the server.
    pub(crate) fn fail(&self, tokens: &Tokens, attempt: u32) -> bool {
        let record = self.known.lock().messages.get(&tokens.stream_sequence).and_then(|message| message.record);
        self.remember(tokens.stream_sequence, Message { failed: attempt, delivered: tokens.delivered, record });
        self.place.is_some()
    }

    /// Writes down at the server that an attempt has failed.
    pub(crate) async fn keep(&self, link: &Link, tokens: &Tokens, attempt: u32) {
        let (sequence, consumer) = (tokens.stream_sequence, self.known.lock().consumer.clone());
        let Some(place) = &self.place else {
            return;
        };
        if let Some(record) = place.write(link, sequence, attempt, &consumer).await
            && let Some(message) = self.known.lock().messages.get_mut(&sequence)
        {
            message.record = Some(record);
        }
    }

    /// Forgets a message that is settled for good.
    pub(crate) fn settle(&self, link: &Link, sequence: u64) {
        let message = self.known.lock().messages.remove(&sequence);
        if let (Some(place), Some(record)) = (&self.place, message.and_then(|message| message.record)) {
            place.delete(link, record);
        }
    }

    fn remember(&self, sequence: u64, message: Message) {
        let mut known = self.known.lock();
        known.messages.insert(sequence, message);
        if known.messages.len() > REMEMBERED {
            known.messages.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(stream_sequence: u64, delivered: u32) -> Tokens {
        Tokens { delivered, stream_sequence, consumer_sequence: 1, published: None }
    }

    #[test]
    fn without_a_place_retries_count_and_deliveries_do_not() {
        let attempts = Attempts::new(None);
        attempts.begin("now");
        assert_eq!(attempts.known(&tokens(7, 5)), Some(1));
        attempts.fail(&tokens(7, 5), 1);
        assert_eq!(attempts.known(&tokens(7, 9)), Some(2));
        assert_eq!(attempts.known(&tokens(8, 9)), Some(1));
        attempts.begin("later");
        assert_eq!(attempts.known(&tokens(7, 10)), Some(1), "another consumer of the same name");
    }

    #[test]
    fn with_a_place_only_the_very_next_delivery_is_known_here() {
        let attempts = Attempts::new(Some(Place::new("orders", "workers", 1, true)));
        assert!(attempts.fail(&tokens(7, 2), 1));
        assert_eq!(attempts.known(&tokens(7, 3)), Some(2));
        assert_eq!(attempts.known(&tokens(7, 4)), None, "another process may have had it");
        assert_eq!(attempts.known(&tokens(8, 1)), Some(1), "handed out for the first time");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let attempts = Attempts::new(None);
        for sequence in 0..REMEMBERED as u64 + 10 {
            attempts.fail(&tokens(sequence, 1), 1);
        }
        assert_eq!(attempts.known.lock().messages.len(), REMEMBERED);
        assert_eq!(attempts.known(&tokens(0, 2)), Some(1), "the oldest is forgotten");
    }
}
