//! The attempts at the messages of a consumer: how often a retry was asked for, and the trials of
//! which nothing was heard.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::timeout;

use crate::driver::Inbound;
use crate::error::{ErrorKind, PublishOutcome, Result};

use super::super::connection::link::Link;
use super::super::headers::reply_subject::Tokens;
use super::place::{Counts, PATIENCE, Place};
use super::sent_back::SentBack;
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
    pub(crate) sent_back: Mutex<SentBack>,
}

#[derive(Debug, Default)]
struct Known {
    /// The time at which the consumer was created: its successor begins anew.
    consumer: String,
    messages: BTreeMap<u64, Message>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Message {
    failed: u32,
    /// The trials that are noted at the server, as far as this process knows.
    trials: u32,
    /// The trials that this process has noted, and of which it has not withdrawn the note.
    own: u32,
    /// The number of the delivery after which this was known. If the next one comes to this process
    /// too, no other process can know more.
    delivered: u32,
    /// The sequence of the record at the server; 0 without one.
    record: u64,
}

/// The facts about a delivery that outlive a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) attempt: u32,
    /// The number of lost trials, of a suspect.
    pub(crate) lost_trials: Option<u32>,
}

impl Past {
    /// Returns the past of a message that no other process can have tried.
    pub(crate) fn here(attempt: u32) -> Self {
        Self { attempt, lost_trials: None }
    }
}

impl Message {
    fn past(self, delivered: u32) -> Past {
        let (attempt, lost) = (self.failed.saturating_add(1), self.trials.saturating_sub(self.own));
        let is_suspect = lost > 0 || Inbound::is_suspicious(attempt, delivered);
        Past { attempt, lost_trials: is_suspect.then_some(lost) }
    }
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
            attempts.sent_back.lock().clear();
        }
    }
}

impl Attempts {
    pub(crate) fn new(place: Option<Place>) -> Self {
        Self { place, known: Mutex::default(), sent_back: Mutex::default() }
    }

    /// Starts a session of the consumer that was created at this time.
    pub(crate) fn begin(&self, consumer: &str) {
        let mut known = self.known.lock();
        if known.consumer != consumer {
            *known = Known { consumer: consumer.to_owned(), messages: BTreeMap::new() };
            self.sent_back.lock().clear();
        }
    }

    /// Returns the past of a delivery, if it is known without asking the server.
    pub(crate) fn known(&self, tokens: &Tokens) -> Option<Past> {
        if tokens.delivered <= 1 {
            return Some(Past::here(1));
        }
        match (self.known.lock().messages.get(&tokens.stream_sequence), &self.place) {
            (Some(message), None) => Some(Past::here(message.failed.saturating_add(1))),
            (None, None) => Some(Past::here(1)),
            (Some(message), Some(_)) if message.delivered.saturating_add(1) == tokens.delivered => {
                Some(message.past(tokens.delivered))
            }
            _ => None,
        }
    }

    /// Returns the past of a delivery; asks the server.
    pub(crate) async fn find(&self, link: &Link, tokens: &Tokens) -> Past {
        let Some(place) = &self.place else { return Past::here(1) };
        let sequence = tokens.stream_sequence;
        let (consumer, own) = {
            let known = self.known.lock();
            (known.consumer.clone(), known.messages.get(&sequence).map_or(0, |message| message.own))
        };
        let found = place.read(link, sequence, &consumer).await;
        let mut message = self.known.lock().messages.get(&sequence).copied().unwrap_or_default();
        if let Ok(record) = found {
            message.failed = message.failed.max(record.counts.failed);
            (message.trials, message.record) = (record.counts.trials, record.sequence);
        }
        message.delivered = tokens.delivered;
        self.remember(sequence, message);
        // A note that was withdrawn in the meantime may have been read before.
        Message { own: own.max(message.own), ..message }.past(tokens.delivered)
    }

    /// Records that a retry is asked for after this attempt. Returns `true` if that is still to be
    /// [kept](Self::keep) at the server.
    pub(crate) fn fail(&self, tokens: &Tokens, attempt: u32) -> bool {
        let message = self.known.lock().messages.get(&tokens.stream_sequence).copied().unwrap_or_default();
        let message = Message { failed: attempt, delivered: tokens.delivered, ..message };
        self.remember(tokens.stream_sequence, message);
        self.place.is_some()
    }

    /// Writes down at the server that an attempt has failed.
    pub(crate) async fn keep(&self, link: &Link, sequence: u64, attempt: u32) {
        let Some(place) = &self.place else {
            return;
        };
        let (consumer, trials) = {
            let known = self.known.lock();
            (known.consumer.clone(), known.messages.get(&sequence).map_or(0, |message| message.trials))
        };
        let counts = Counts { failed: attempt, trials };
        if let Ok(record) = place.write(link, sequence, counts, &consumer).await
            && let Some(message) = self.known.lock().messages.get_mut(&sequence)
        {
            message.record = record;
        }
    }

    /// Forgets a message that is settled for good.
    pub(crate) fn settle(&self, link: &Link, sequence: u64) {
        let record = self.known.lock().messages.remove(&sequence).map_or(0, |message| message.record);
        if let Some(place) = self.place.as_ref().filter(|_| record > 0) {
            place.delete(link, record);
        }
    }

    /// Counts a trial of this process, whose note is still to be [written](Self::note).
    pub(crate) fn begin_trial(&self, sequence: u64) {
        self.known.lock().messages.entry(sequence).or_default().own += 1;
    }

    /// Notes a trial at the server. Returns `false` with the answer if there is certainly no note.
    pub(crate) async fn note(&self, link: &Link, sequence: u64) -> (bool, Result<()>) {
        let more = |counts: Counts| Counts { trials: counts.trials.saturating_add(1), ..counts };
        let noted = self.change(link, sequence, more).await;
        let is_noted = noted.as_ref().err().is_none_or(|error| error.publish_outcome() == PublishOutcome::Unknown);
        if !is_noted {
            self.end_trial(sequence);
        }
        (is_noted, noted)
    }

    /// Withdraws the note of a trial, and writes with it how many attempts have failed, if that is
    /// new.
    pub(crate) async fn withdraw(&self, link: &Link, sequence: u64, failed: Option<u32>) -> Result<()> {
        let less = |counts: Counts| {
            let (failed, trials) = (failed.unwrap_or(counts.failed), counts.trials.saturating_sub(1));
            Counts { failed, trials }
        };
        self.change(link, sequence, less).await?;
        self.end_trial(sequence);
        Ok(())
    }

    /// Deletes the record of a message that was tried and is settled for good.
    pub(crate) async fn erase(&self, link: &Link, sequence: u64) -> Result<()> {
        self.change(link, sequence, |_| Counts::default()).await
    }

    async fn change(&self, link: &Link, sequence: u64, change: impl Fn(Counts) -> Counts) -> Result<()> {
        let Some(place) = &self.place else { return Ok(()) };
        let consumer = self.known.lock().consumer.clone();
        let record = place.change(link, sequence, &consumer, change).await?;
        if let Some(message) = self.known.lock().messages.get_mut(&sequence) {
            (message.trials, message.record) = (record.counts.trials, record.sequence);
        }
        Ok(())
    }

    fn end_trial(&self, sequence: u64) {
        if let Some(message) = self.known.lock().messages.get_mut(&sequence) {
            message.own = message.own.saturating_sub(1);
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
        assert_eq!(attempts.known(&tokens(7, 5)), Some(Past::here(1)));
        attempts.fail(&tokens(7, 5), 1);
        assert_eq!(attempts.known(&tokens(7, 9)), Some(Past::here(2)));
        assert_eq!(attempts.known(&tokens(8, 9)), Some(Past::here(1)));
        attempts.begin("later");
        assert_eq!(attempts.known(&tokens(7, 10)), Some(Past::here(1)), "another consumer of the same name");
    }

    #[test]
    fn with_a_place_only_the_very_next_delivery_is_known_here() {
        let attempts = Attempts::new(Some(Place::new("orders", "workers", 1, true)));
        assert!(attempts.fail(&tokens(7, 2), 1));
        assert_eq!(attempts.known(&tokens(7, 3)), Some(Past::here(2)));
        assert_eq!(attempts.known(&tokens(7, 4)), None, "another process may have had it");
        assert_eq!(attempts.known(&tokens(8, 1)), Some(Past::here(1)), "handed out for the first time");
    }

    #[test]
    fn a_suspect_has_the_trials_of_others_and_not_those_of_this_process() {
        let lost = |trials, own, delivered| {
            let message = Message { failed: 1, trials, own, ..Message::default() };
            message.past(delivered).lost_trials
        };
        assert_eq!(lost(0, 0, 3), None, "heard of once, and once not");
        assert_eq!(lost(0, 0, 4), Some(0));
        assert_eq!((lost(2, 0, 2), lost(2, 1, 2)), (Some(2), Some(1)), "a suspect as long as there is a note");
        assert_eq!((lost(1, 1, 2), lost(1, 1, 4), lost(0, 1, 4)), (None, Some(0), Some(0)));
    }

    #[test]
    fn a_trial_of_this_process_is_no_lost_one_of_the_next_delivery() {
        let attempts = Attempts::new(Some(Place::new("orders", "workers", 1, true)));
        let message = Message { trials: 2, delivered: 3, record: 9, ..Message::default() };
        attempts.remember(7, message);
        attempts.begin_trial(7);
        assert_eq!(attempts.known(&tokens(7, 4)), Some(Past { attempt: 1, lost_trials: Some(1) }));
        assert!(attempts.fail(&tokens(7, 4), 1));
        assert_eq!(attempts.known(&tokens(7, 5)), Some(Past { attempt: 2, lost_trials: Some(1) }));
        attempts.end_trial(7);
        assert_eq!(attempts.known(&tokens(7, 5)), Some(Past { attempt: 2, lost_trials: Some(2) }));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let attempts = Attempts::new(None);
        for sequence in 0..REMEMBERED as u64 + 10 {
            attempts.fail(&tokens(sequence, 1), 1);
        }
        assert_eq!(attempts.known.lock().messages.len(), REMEMBERED);
        assert_eq!(attempts.known(&tokens(0, 2)), Some(Past::here(1)), "the oldest is forgotten");
    }
}
