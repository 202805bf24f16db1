//! Verdicts on messages that could not be settled. They are applied when the message comes again to
//! this process, without running its handler a second time.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::DefaultHashBuilder;
use parking_lot::Mutex;

use crate::message::Parts;
use crate::names::header;

/// Maximum number of verdicts that are kept; beyond it the oldest is forgotten, and its handler
/// runs again.
const MAX_VERDICTS: usize = 4096;

/// The verdict of an attempt whose settlement did not reach the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remembered {
    /// The message was handled, or its dead letter was published; it is to be acknowledged.
    Done,
    /// The message was rejected, and its dead letter is still to be published.
    Rejected { reason: String, error_type: Option<&'static str> },
}

/// The verdicts of one subscription that could not be settled.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    /// `true` if there may be any, so that the usual message takes no lock.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    hasher: DefaultHashBuilder,
    kept: HashMap<u64, Remembered>,
    /// The keys of `kept`, oldest first, and of some that were taken out.
    order: VecDeque<u64>,
}

impl Verdicts {
    /// Keeps the verdict on a message.
    pub(crate) fn remember(&self, message: &Parts, verdict: Remembered) {
        let mut state = self.state.lock();
        let origin = origin(&state.hasher, message);
        if state.kept.insert(origin, verdict).is_none() {
            state.order.push_back(origin);
        }
        while state.order.len() > MAX_VERDICTS {
            let oldest = state.order.pop_front();
            oldest.and_then(|oldest| state.kept.remove(&oldest));
        }
        self.any.store(true, Ordering::Release);
    }

    /// Takes out the verdict on a message, if there is one.
    pub(crate) fn recall(&self, message: &Parts) -> Option<Remembered> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.state.lock();
        let origin = origin(&state.hasher, message);
        let verdict = state.kept.remove(&origin);
        if state.kept.is_empty() {
            state.order.clear();
            self.any.store(false, Ordering::Release);
        }
        verdict
    }
}

/// Returns a number that is the same for every delivery of a message.
///
/// Not every broker numbers its messages, so the content counts, too. Two messages that agree in
/// all of this are copies of each other, and it makes no difference which of them was handled.
fn origin(hasher: &DefaultHashBuilder, message: &Parts) -> u64 {
    let mut state = hasher.build_hasher();
    (message.partition, message.offset, &message.id, message.timestamp.map(|stored| stored.time)).hash(&mut state);
    (&message.key, &message.payload, message.headers.get(header::TRACEPARENT)).hash(&mut state);
    state.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(offset: i64) -> Parts {
        Parts { partition: Some(0), offset: Some(offset), ..Parts::example() }
    }

    #[test]
    fn a_verdict_is_for_its_message_and_for_one_delivery() {
        let verdicts = Verdicts::default();
        verdicts.remember(&message(1), Remembered::Done);
        assert_eq!(verdicts.recall(&message(2)), None);
        assert_eq!(verdicts.recall(&message(1)), Some(Remembered::Done));
        assert_eq!(verdicts.recall(&message(1)), None);
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let verdicts = Verdicts::default();
        for offset in 0..=MAX_VERDICTS as i64 {
            verdicts.remember(&message(offset), Remembered::Done);
        }
        assert_eq!(verdicts.recall(&message(0)), None);
        assert_eq!(verdicts.recall(&message(1)), Some(Remembered::Done));
    }
}
