//! The settings that all consumers have: workers, batches and bridges.

use std::time::Duration;

use super::DEFAULT_DRAIN_TIME;
use super::retry::Retry;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Subscription;

/// The settings of a consumer; its builder sets them, and running checks them.
#[derive(Debug)]
pub(in crate::runtime) struct Settings {
    /// The number of messages to work on at a time.
    pub(in crate::runtime) size: usize,
    pub(in crate::runtime) ordered: bool,
    pub(in crate::runtime) time_limit: Option<Duration>,
    pub(in crate::runtime) retry: Retry,
    pub(in crate::runtime) drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { size: 1, ordered: false, time_limit: None, retry: Retry::default(), drain: DEFAULT_DRAIN_TIME }
    }
}

impl Settings {
    /// Checks the size, which the caller names, and raises the subscription's prefetch to it.
    pub(super) fn fit(&self, subscription: Subscription, named: &'static str) -> Result<Subscription> {
        if !(1..=Subscription::MAX_PREFETCH).contains(&self.size) {
            let message = format!("the {named} is outside 1 to {}", Subscription::MAX_PREFETCH);
            let error = Error::new(ErrorKind::InvalidConfig, message).with_operation("consume");
            let key = named.split(' ').next().unwrap_or(named);
            return Err(error.with_context(key, self.size));
        }
        // A prefetch of 0 is left for subscribing to reject.
        let is_lower = (1..self.size).contains(&subscription.prefetch_limit());
        Ok(if is_lower { subscription.prefetch(self.size) } else { subscription })
    }
}
