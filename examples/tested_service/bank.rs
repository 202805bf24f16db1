//! A stand-in for the bank, whose answers depend on the card.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::service::Order;

/// Charges cards: `declined` is declined, `busy-2` is charged at the third request, and any other
/// at the first. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bank {
    requests: Arc<Mutex<HashMap<String, u32>>>,
}

/// The reason why a card was not charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A later request may succeed.
    Busy,
    /// No later request will succeed.
    Declined,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "the bank is busy",
            Self::Declined => "the card is declined",
        })
    }
}

impl std::error::Error for Refusal {}

impl Bank {
    pub(crate) async fn charge(&self, order: &Order) -> Result<(), Refusal> {
        let requests = {
            let mut all = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            let requests = all.entry(order.id.clone()).or_default();
            *requests += 1;
            *requests
        };
        tokio::task::yield_now().await;
        match order.card.strip_prefix("busy-").and_then(|times| times.parse().ok()) {
            Some(busy) if requests <= busy => Err(Refusal::Busy),
            _ if order.card == "declined" => Err(Refusal::Declined),
            _ => Ok(()),
        }
    }
}
