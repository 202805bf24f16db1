//! Consumers that were given up for new ones.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::recipe::Client;

/// The pause after the first renewal, which doubles with each one that brings no message.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// Maximum number of consumers that still end while another one works. Ending waits for the broker,
/// and one that reaches none may wait for ever.
const ENDING: usize = 4;

/// The renewals of one subscription.
#[derive(Default)]
pub(crate) struct Renewals {
    pub(crate) count: i64,
    pause: Duration,
    next: Option<Instant>,
    ending: Vec<JoinHandle<()>>,
}

impl Renewals {
    /// Returns `true` if another renewal may be tried, and begins the pause after it.
    pub(crate) fn try_begin(&mut self) -> bool {
        self.ending.retain(|thread| !thread.is_finished());
        let may = self.ending.len() < ENDING && self.next.is_none_or(|next| next <= Instant::now());
        if may {
            self.pause = (2 * self.pause).clamp(FIRST, LONGEST);
            self.next = Some(Instant::now() + self.pause);
        }
        may
    }

    /// Counts a renewal, and ends the old consumer without waiting for it.
    pub(crate) fn count(&mut self, old: Client) {
        self.count += 1;
        let ending = thread::Builder::new().name("kafka-consumer".to_owned()).spawn(move || drop(old));
        self.ending.extend(ending);
    }

    /// Notes that a message came.
    pub(crate) fn succeed(&mut self) {
        self.pause = Duration::ZERO;
    }
}
