//! When and how often a message is tried again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::handler::{HandlerError, Verdict};

/// The delay before the second attempt unless [`Retry::first_delay`] says otherwise.
pub const DEFAULT_FIRST_DELAY: Duration = Duration::from_millis(100);
/// The longest delay unless [`Retry::longest_delay`] says otherwise.
pub const DEFAULT_LONGEST_DELAY: Duration = Duration::from_secs(30);

/// What a consumer does with messages whose handler failed.
///
/// An error that is [rejected](HandlerError::reject) by the handler is never retried, one with a
/// [delay of its own](HandlerError::retry_after) waits that long, and any other waits as long as the policy says. After the last attempt
/// the message is rejected: copied to the dead-letter topic, or discarded where the subscription names none, which is logged.
///
/// The default has no last attempt, so that nothing is discarded unless someone said so: delays grow from 100 ms to 30 s.
///
/// ```
/// use std::time::Duration;
/// use traced_broker::{Retry, Verdict};
///
/// let patient = Retry::exponential(8).first_delay(Duration::from_secs(1)).longest_delay(Duration::from_secs(600));
/// let choosy = Retry::fixed(3, Duration::from_secs(5)).choose(|error| {
///     let hopeless = error.error().is::<std::num::ParseIntError>();
///     hopeless.then_some(Verdict::Reject)
/// });
/// # drop((patient, choosy));
/// ```
#[derive(Clone)]
pub struct Retry {
    attempts: Option<u32>,
    first: Duration,
    factor: f64,
    longest: Duration,
    jitter: f64,
    choose: Option<Arc<Choose>>,
}

type Choose = dyn Fn(&HandlerError) -> Option<Verdict> + Send + Sync;

impl Retry {
    /// Up to `attempts` attempts, the first included, with delays that double from 100 ms to 30 s, jittered.
    pub fn exponential(attempts: u32) -> Self {
        Self { attempts: Some(attempts.max(1)), ..Self::default() }
    }

    /// Up to `attempts` attempts, the first included, with the same delay between them, jittered.
    pub fn fixed(attempts: u32, delay: Duration) -> Self {
        Self { first: delay, factor: 1.0, longest: delay, ..Self::exponential(attempts) }
    }

    /// Up to `attempts` attempts, the first included, without delay.
    pub fn immediate(attempts: u32) -> Self {
        Self::fixed(attempts, Duration::ZERO)
    }

    /// One attempt only.
    pub fn never() -> Self {
        Self::immediate(1)
    }

    /// The delay before the second attempt.
    #[must_use]
    pub fn first_delay(mut self, delay: Duration) -> Self {
        self.first = delay;
        self
    }

    /// By how much each delay is longer than the one before. Values below 1, and what is no number, count as 1. Default 2.
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = factor.max(1.0);
        self
    }

    /// The longest delay.
    #[must_use]
    pub fn longest_delay(mut self, delay: Duration) -> Self {
        self.longest = delay;
        self
    }

    /// By what part, 0 to 1, a delay may be shorter at random, so that messages that failed together are not retried together.
    /// Default 0.25.
    #[must_use]
    pub fn jitter(mut self, part: f64) -> Self {
        self.jitter = part.clamp(0.0, 1.0);
        self
    }

    /// Decides by the error: `Some` overrules the handler and the delays, `None` leaves the error to the policy.
    ///
    /// A retry is still the last one when the attempts are used up.
    #[must_use]
    pub fn choose(mut self, choose: impl Fn(&HandlerError) -> Option<Verdict> + Send + Sync + 'static) -> Self {
        self.choose = Some(Arc::new(choose));
        self
    }

    /// What is to happen after that attempt, counted from 1, failed with `error`.
    pub fn verdict(&self, error: &HandlerError, attempt: u32) -> Verdict {
        let chosen = self.choose.as_ref().and_then(|choose| choose(error));
        let used_up = self.attempts.is_some_and(|attempts| attempt >= attempts);
        match chosen.unwrap_or(error.verdict()) {
            Verdict::Retry(_) if used_up => Verdict::Reject,
            Verdict::Retry(Duration::ZERO) if chosen.is_none() => Verdict::Retry(self.delay(attempt)),
            verdict => verdict,
        }
    }

    fn delay(&self, attempt: u32) -> Duration {
        let doublings = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.first.as_secs_f64() * self.factor.powi(doublings);
        let seconds = grown.min(self.longest.as_secs_f64());
        let shortened = seconds * (1.0 - self.jitter * fastrand::f64());
        Duration::try_from_secs_f64(shortened).unwrap_or(self.longest)
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: None,
            first: DEFAULT_FIRST_DELAY,
            factor: 2.0,
            longest: DEFAULT_LONGEST_DELAY,
            jitter: 0.25,
            choose: None,
        }
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("attempts", &self.attempts)
            .field("first", &self.first)
            .field("factor", &self.factor)
            .field("longest", &self.longest)
            .field("jitter", &self.jitter)
            .field("chooses", &self.choose.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(retry: &Retry, attempt: u32) -> Duration {
        match retry.verdict(&HandlerError::retry("busy"), attempt) {
            Verdict::Retry(delay) => delay,
            Verdict::Reject => panic!("rejected at attempt {attempt}"),
        }
    }

    #[test]
    fn delays_grow_to_the_longest_and_attempts_end() {
        let retry = Retry::exponential(5).jitter(0.0).longest_delay(Duration::from_millis(350));
        let delays: Vec<u128> = (1..5).map(|attempt| again(&retry, attempt).as_millis()).collect();
        assert_eq!(delays, [100, 200, 350, 350]);
        assert_eq!(retry.verdict(&HandlerError::retry("busy"), 5), Verdict::Reject);
    }

    #[test]
    fn jitter_only_shortens() {
        let retry = Retry::fixed(2, Duration::from_secs(1)).jitter(0.5);
        let delays: Vec<Duration> = (0..200).map(|_| again(&retry, 1)).collect();
        assert!(delays.iter().all(|delay| (500..=1000).contains(&delay.as_millis())), "{delays:?}");
        assert!(delays.iter().any(|delay| *delay != delays[0]), "no two alike");
    }

    #[test]
    fn the_handlers_word_counts_and_the_choice_overrules_it() {
        let retry = Retry::default();
        let own = HandlerError::retry_after("busy", Duration::from_secs(7));
        assert_eq!(retry.verdict(&own, 1_000_000), Verdict::Retry(Duration::from_secs(7)));
        assert_eq!(retry.verdict(&HandlerError::reject("never"), 1), Verdict::Reject);
        let at_once = Retry::exponential(3).choose(|_| Some(Verdict::Retry(Duration::ZERO)));
        assert_eq!(at_once.verdict(&HandlerError::reject("never"), 1), Verdict::Retry(Duration::ZERO));
        assert_eq!(at_once.verdict(&HandlerError::reject("never"), 3), Verdict::Reject);
    }

    #[test]
    fn no_setting_makes_a_delay_overflow() {
        let retry = Retry::default().factor(f64::INFINITY).longest_delay(Duration::MAX).first_delay(Duration::MAX);
        for attempt in [1, 2, u32::MAX] {
            again(&retry, attempt);
        }
    }
}
