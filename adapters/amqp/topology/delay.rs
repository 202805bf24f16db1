//! Splits a delay into waits.
//!
//! A queue releases messages at its head only, so a message with a long delay would hold up the
//! messages behind it. Each wait therefore has its own queue, in which all messages wait equally
//! long. A delay is counted in steps of 16 milliseconds and written as seven hexadecimal digits.
//! Each digit that is not zero is a wait; the largest comes first.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// The number of digits of a delay.
pub(crate) const LEVELS: usize = 7;
/// The digits.
pub(crate) const DIGITS: [&str; 16] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f"];

/// The length of a step in milliseconds.
const STEP: u128 = 16;
const BITS: usize = 4;
/// The longest delay in milliseconds: 49 days and 17 hours. Its longest wait is just below the
/// largest time to live that RabbitMQ accepts.
const LONGEST: u128 = ((1 << (BITS * LEVELS)) - 1) * STEP;

/// The delay of a message; at least one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delay(u32);

impl Delay {
    /// Rounds a delay up to whole steps.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidMessage`] if the delay is longer than seven digits can express.
    pub(crate) fn of(delay: Duration) -> Result<Self> {
        let milliseconds = delay.as_nanos().div_ceil(1_000_000).max(1);
        if milliseconds > LONGEST {
            return Err(Error::new(ErrorKind::InvalidMessage, "the delay is longer than the delay queues can express")
                .with_context("delay_ms", milliseconds)
                .with_context("limit_ms", LONGEST));
        }
        Ok(Self(u32::try_from(milliseconds.div_ceil(STEP)).unwrap_or(u32::MAX)))
    }

    /// Returns the digits with their levels, from the first that is not zero down to the lowest.
    pub(crate) fn digits(self) -> impl Iterator<Item = Wait> {
        (0..=self.first_level()).rev().map(move |level| Wait { level, digit: self.0 >> (BITS * level) & 0xf })
    }

    /// Returns the level of the first wait.
    pub(crate) fn first_level(self) -> usize {
        (u32::BITS - 1 - self.0.leading_zeros()) as usize / BITS
    }
}

/// One digit of a delay. It stands for one queue, or for none if the digit is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) level: usize,
    pub(crate) digit: u32,
}

impl Wait {
    /// Returns how long messages wait in this queue, in milliseconds.
    pub(crate) fn milliseconds(self) -> u32 {
        (self.digit << (BITS * self.level)) * STEP as u32
    }

    pub(crate) fn text(self) -> &'static str {
        DIGITS[self.digit as usize % DIGITS.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(milliseconds: u64) -> Vec<u32> {
        let delay = Delay::of(Duration::from_millis(milliseconds)).unwrap();
        delay.digits().map(Wait::milliseconds).filter(|wait| *wait > 0).collect()
    }

    #[test]
    fn the_waits_make_up_the_delay_and_never_less() {
        assert_eq!(waits(0), [16]);
        assert_eq!(waits(16), [16]);
        assert_eq!(waits(17), [32]);
        assert_eq!(waits(800), [768, 32]);
        assert_eq!(waits(1000), [768, 240]);
        for milliseconds in [1, 15, 255, 256, 257, 4095, 4096, 60_000, 3_600_000, 86_400_001, 4_294_967_280] {
            let waits = waits(milliseconds);
            let total: u64 = waits.iter().copied().map(u64::from).sum();
            assert!((milliseconds..milliseconds + 16).contains(&total), "{milliseconds}: {waits:?}");
            assert!(waits.is_sorted_by(|longer, shorter| longer > shorter), "{waits:?}");
        }
        assert_eq!(waits(4_294_967_280)[0], 0xf000_0000);
    }

    #[test]
    fn a_fraction_of_a_millisecond_counts() {
        assert_eq!(Delay::of(Duration::from_nanos(16_000_001)).unwrap(), Delay(2));
    }

    #[test]
    fn what_no_queue_reaches_is_refused() {
        for delay in [Duration::from_millis(4_294_967_281), Duration::MAX] {
            assert_eq!(Delay::of(delay).unwrap_err().kind(), ErrorKind::InvalidMessage);
        }
    }

    #[test]
    fn zeros_before_the_first_wait_are_left_out() {
        let delay = Delay::of(Duration::from_millis(0x1020)).unwrap();
        let digits: Vec<_> = delay.digits().map(|wait| (wait.level, wait.text())).collect();
        assert_eq!(digits, [(2, "1"), (1, "0"), (0, "2")]);
        assert_eq!(delay.first_level(), 2);
    }
}
