//! The settlements of which it is not known that the server has processed them.
//!
//! A settlement that is sent without waiting for an answer is lost if the connection breaks before
//! the server has read it. It names the message and not the connection, so it is sent again over
//! the next one, while the delivery is certainly still this member's.

use std::collections::VecDeque;

use super::super::connection::replies::Settlement;

/// Maximum number of settlements that are remembered. The oldest are forgotten first.
const REMEMBERED: usize = 16_384;

/// The settlements of one session, in the order in which they were sent.
#[derive(Debug, Default)]
pub(crate) struct Unanswered {
    sent: VecDeque<Settlement>,
    /// The number of the first one.
    first: u64,
    /// `true` while the server is asked if it has processed them.
    is_asked: bool,
}

impl Unanswered {
    /// Adds a settlement that is about to be sent.
    pub(super) fn add(&mut self, settlement: Settlement) {
        if self.sent.len() >= REMEMBERED {
            self.sent.pop_front();
            self.first += 1;
        }
        self.sent.push_back(settlement);
    }

    /// Returns the number of the next settlement, if the server is to be asked about those before.
    pub(super) fn ask(&mut self) -> Option<u64> {
        if self.is_asked || self.sent.is_empty() {
            return None;
        }
        self.is_asked = true;
        Some(self.first + self.sent.len() as u64)
    }

    /// Ends the question about the settlements before this number.
    pub(super) fn answer(&mut self, number: u64, is_processed: bool) {
        self.is_asked = false;
        while is_processed && self.first < number && self.sent.pop_front().is_some() {
            self.first += 1;
        }
    }

    /// Takes out all settlements.
    pub(super) fn take(&mut self) -> VecDeque<Settlement> {
        let sent = std::mem::take(&mut self.sent);
        self.first += sent.len() as u64;
        sent
    }
}

#[cfg(test)]
mod tests {
    use async_nats::Subject;
    use bytes::Bytes;
    use tokio::time::Instant;

    use super::*;

    fn settlement(subject: &'static str) -> Settlement {
        Settlement { subject: Subject::from_static(subject), payload: Bytes::new(), until: Instant::now() }
    }

    fn subjects(unanswered: &mut Unanswered) -> Vec<String> {
        unanswered.take().iter().map(|settlement| settlement.subject.to_string()).collect()
    }

    #[tokio::test]
    async fn an_answer_is_about_those_before_the_question() {
        let mut unanswered = Unanswered::default();
        assert_eq!(unanswered.ask(), None);
        unanswered.add(settlement("a"));
        let asked = unanswered.ask().unwrap();
        unanswered.add(settlement("b"));
        assert_eq!(unanswered.ask(), None, "one question at a time");
        unanswered.answer(asked, false);
        let asked = unanswered.ask().unwrap();
        unanswered.add(settlement("c"));
        unanswered.answer(asked, true);
        assert_eq!(subjects(&mut unanswered), ["c"]);
    }

    #[tokio::test]
    async fn an_answer_is_not_about_those_that_were_sent_again() {
        let mut unanswered = Unanswered::default();
        unanswered.add(settlement("a"));
        let asked = unanswered.ask().unwrap();
        for settlement in unanswered.take() {
            unanswered.add(settlement);
        }
        unanswered.answer(asked, true);
        assert_eq!(subjects(&mut unanswered), ["a"]);
    }

    #[tokio::test]
    async fn the_oldest_are_forgotten_beyond_the_bound() {
        let mut unanswered = Unanswered::default();
        for _ in 0..REMEMBERED + 10 {
            unanswered.add(settlement("a"));
        }
        assert_eq!((unanswered.sent.len(), unanswered.first), (REMEMBERED, 10));
    }
}
