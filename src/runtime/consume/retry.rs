//! The retry policy: the number of attempts and the delays between them.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::message::{HandlerError, Verdict, describe_panic};

/// The default of [`Retry::first_delay`].
pub const DEFAULT_FIRST_DELAY: Duration = Duration::from_millis(100);
/// The default of [`Retry::longest_delay`].
pub const DEFAULT_LONGEST_DELAY: Duration = Duration::from_secs(30);
/// The default number of attempts of a consumer with a dead-letter topic. With the default delays,
/// the last one comes six minutes after the first.
pub const DEFAULT_ATTEMPTS: u32 = 20;

/// The policy for messages whose handler failed: the number of attempts and the delays between
/// them.
///
/// An error that the handler [rejects](HandlerError::reject) is never retried. An error with [its
/// own delay](HandlerError::retry_after) waits that long; any other error waits as long as the
/// policy says. After the last attempt, the message is rejected: copied to the dead-letter topic,
/// or discarded if the subscription names none.
///
/// By default a message with a dead-letter topic gets [20](DEFAULT_ATTEMPTS) attempts. Without one
/// there is no last attempt, so no message is discarded unless the application says so. Delays grow
/// from 100 ms to 30 s.
///
/// ```
/// use std::time::Duration;
/// use traced_broker::{Retry, Verdict};
///
/// let (first, longest) = (Duration::from_secs(1), Duration::from_secs(600));
/// let patient = Retry::exponential(8).first_delay(first).longest_delay(longest);
/// let choosy = Retry::fixed(3, Duration::from_secs(5)).choose(|error| {
///     let hopeless = error.error().is::<std::num::ParseIntError>();
///     hopeless.then_some(Verdict::Reject)
/// });
/// # drop((patient, choosy));
/// ```
#[derive(Clone)]
pub struct Retry {
    attempts: Attempts,
    first: Duration,
    factor: f64,
    longest: Duration,
    jitter: f64,
    choose: Option<Arc<Choose>>,
}

/// The number of attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempts {
    /// Left to the consumer.
    Open,
    Last(u32),
    Endless,
}

type Choose = dyn Fn(&HandlerError) -> Option<Verdict> + Send + Sync;

impl Retry {
    /// Creates a policy of up to `attempts` attempts, including the first, with jittered delays
    /// that double from 100 ms to 30 s.
    ///
    /// ```
    /// use std::time::Duration;
    /// use traced_broker::{HandlerError, Retry, Verdict};
    ///
    /// let retry = Retry::exponential(3).jitter(0.0);
    /// let busy = HandlerError::retry("busy");
    /// assert_eq!(retry.verdict(&busy, 1), Verdict::Retry(Duration::from_millis(100)));
    /// assert_eq!(retry.verdict(&busy, 2), Verdict::Retry(Duration::from_millis(200)));
    /// assert_eq!(retry.verdict(&busy, 3), Verdict::Reject);
    /// ```
    pub fn exponential(attempts: u32) -> Self {
        Self { attempts: Attempts::Last(attempts.max(1)), ..Self::default() }
    }

    /// Creates a policy without a last attempt, with jittered delays that double from 100 ms to
    /// 30 s.
    ///
    /// A message that can never be handled then comes again for ever.
    ///
    /// ```
    /// use traced_broker::{HandlerError, Retry, Verdict};
    ///
    /// let verdict = Retry::endless().verdict(&HandlerError::retry("busy"), 1_000_000);
    /// assert!(matches!(verdict, Verdict::Retry(_)));
    /// ```
    pub fn endless() -> Self {
        Self { attempts: Attempts::Endless, ..Self::default() }
    }

    /// Creates a policy of up to `attempts` attempts, including the first, with the same jittered
    /// delay between them.
    ///
    /// ```
    /// use std::time::Duration;
    /// use traced_broker::{HandlerError, Retry, Verdict};
    ///
    /// let retry = Retry::fixed(10, Duration::from_secs(5)).jitter(0.0);
    /// let busy = HandlerError::retry("busy");
    /// assert_eq!(retry.verdict(&busy, 9), Verdict::Retry(Duration::from_secs(5)));
    /// assert_eq!(retry.verdict(&busy, 10), Verdict::Reject);
    /// ```
    pub fn fixed(attempts: u32, delay: Duration) -> Self {
        Self { first: delay, factor: 1.0, longest: delay, ..Self::exponential(attempts) }
    }

    /// Creates a policy of up to `attempts` attempts, including the first, without delay.
    pub fn immediate(attempts: u32) -> Self {
        Self::fixed(attempts, Duration::ZERO)
    }

    /// Creates a policy of a single attempt.
    ///
    /// ```
    /// use traced_broker::{HandlerError, Retry, Verdict};
    ///
    /// assert_eq!(Retry::never().verdict(&HandlerError::retry("busy"), 1), Verdict::Reject);
    /// ```
    pub fn never() -> Self {
        Self::immediate(1)
    }

    /// Sets the delay before the second attempt. Default 100 ms.
    ///
    /// ```
    /// use std::time::Duration;
    /// use traced_broker::{HandlerError, Retry, Verdict};
    ///
    /// let retry = Retry::exponential(5).first_delay(Duration::from_secs(1)).jitter(0.0);
    /// let busy = HandlerError::retry("busy");
    /// assert_eq!(retry.verdict(&busy, 2), Verdict::Retry(Duration::from_secs(2)));
    /// ```
    #[must_use]
    pub fn first_delay(mut self, delay: Duration) -> Self {
        self.first = delay;
        self
    }

    /// Sets the factor by which each delay is longer than the one before. Values below 1, and NaN,
    /// count as 1. Default 2.
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = factor.max(1.0);
        self
    }

    /// Sets the longest delay. Default 30 s.
    ///
    /// ```
    /// use std::time::Duration;
    /// use traced_broker::{HandlerError, Retry, Verdict};
    ///
    /// let retry = Retry::default().longest_delay(Duration::from_secs(10)).jitter(0.0);
    /// let busy = HandlerError::retry("busy");
    /// assert_eq!(retry.verdict(&busy, 1_000), Verdict::Retry(Duration::from_secs(10)));
    /// ```
    #[must_use]
    pub fn longest_delay(mut self, delay: Duration) -> Self {
        self.longest = delay;
        self
    }

    /// Sets the part, 0 to 1, by which a delay may be shortened at random, so that messages that
    /// failed together are not retried together. Default 0.25.
    #[must_use]
    pub fn jitter(mut self, part: f64) -> Self {
        self.jitter = part.clamp(0.0, 1.0);
        self
    }

    /// Decides by the error: `Some` overrules the handler and the delays; `None` leaves the
    /// decision to the policy.
    ///
    /// Once the attempts are used up, a retry becomes a rejection.
    ///
    /// ```
    /// use traced_broker::{HandlerError, Retry, Verdict};
    ///
    /// // Another attempt does not make it a number.
    /// let retry = Retry::exponential(5).choose(|error| {
    ///     error.error().is::<std::num::ParseIntError>().then_some(Verdict::Reject)
    /// });
    /// let error: HandlerError = "seven".parse::<u32>().unwrap_err().into();
    /// assert_eq!(retry.verdict(&error, 1), Verdict::Reject);
    /// assert!(matches!(retry.verdict(&HandlerError::retry("busy"), 1), Verdict::Retry(_)));
    /// ```
    #[must_use]
    pub fn choose(mut self, choose: impl Fn(&HandlerError) -> Option<Verdict> + Send + Sync + 'static) -> Self {
        self.choose = Some(Arc::new(choose));
        self
    }

    /// Returns the verdict after attempt number `attempt`, counted from 1, failed with `error`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use traced_broker::{HandlerError, Retry, Verdict};
    ///
    /// let retry = Retry::exponential(3);
    /// let own = HandlerError::retry_after("busy", Duration::from_secs(7));
    /// assert_eq!(retry.verdict(&own, 1), Verdict::Retry(Duration::from_secs(7)));
    /// assert_eq!(retry.verdict(&own, 3), Verdict::Reject); // the last attempt
    /// assert_eq!(retry.verdict(&HandlerError::reject("no such article"), 1), Verdict::Reject);
    /// ```
    pub fn verdict(&self, error: &HandlerError, attempt: u32) -> Verdict {
        let chosen = self.chosen(error);
        let used_up = matches!(self.attempts, Attempts::Last(last) if attempt >= last);
        match chosen.unwrap_or(error.verdict()) {
            Verdict::Retry(_) if used_up => Verdict::Reject,
            Verdict::Retry(Duration::ZERO) if chosen.is_none() => Verdict::Retry(self.delay(attempt)),
            verdict => verdict,
        }
    }

    /// Asks the application's choice. Without an answer, because it panicked, the rest of the
    /// policy counts.
    fn chosen(&self, error: &HandlerError) -> Option<Verdict> {
        let choose = self.choose.as_ref()?;
        catch_unwind(AssertUnwindSafe(|| choose(error))).unwrap_or_else(|panic| {
            let panic = describe_panic(&*panic);
            tracing::error!(panic, "the choice of a verdict panicked; the message is treated as without one");
            None
        })
    }

    /// Sets the number of attempts if none was set: there is a last one if failures have somewhere
    /// to go.
    pub(super) fn settle_attempts(&mut self, has_dead_letters: bool) {
        if self.attempts == Attempts::Open && has_dead_letters {
            self.attempts = Attempts::Last(DEFAULT_ATTEMPTS);
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
            attempts: Attempts::Open,
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
