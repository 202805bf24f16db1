//! What stands in for the world outside: the warehouse, the carriers, the mail provider.
//!
//! How long they take and where they fail follows from what is in the order, so that every run is the same.

use std::fmt;
use std::time::Duration;

use crate::order::Order;

/// Still in somebody's catalogue, no longer in any warehouse.
const DISCONTINUED: [&str; 1] = ["SAMOVAR-TULA-5L"];

/// A carrier that only answers when asked for the third time.
const FLAKY_CARRIER: &str = "flaky-express";

/// Why something could not be done today.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Obstacle {
    OutOfStock { sku: String },
    NoAnswer { from: &'static str },
}

impl Obstacle {
    /// The value of `error.type`: one of a few.
    pub(crate) fn error_type(&self) -> &'static str {
        match self {
            Self::OutOfStock { .. } => "out_of_stock",
            Self::NoAnswer { .. } => "no_answer",
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfStock { sku } => write!(f, "no warehouse has {sku}"),
            Self::NoAnswer { from } => write!(f, "{from} does not answer"),
        }
    }
}

impl std::error::Error for Obstacle {}

/// Takes the items from the shelves.
pub(crate) async fn reserve_stock(order: &Order) -> Result<(), Obstacle> {
    let items = u64::try_from(order.items.len()).unwrap_or(u64::MAX);
    tokio::time::sleep(Duration::from_millis(items.saturating_mul(2))).await;
    match order.items.iter().find(|item| DISCONTINUED.contains(&item.sku.as_str())) {
        Some(item) => Err(Obstacle::OutOfStock { sku: item.sku.clone() }),
        None => Ok(()),
    }
}

/// Has the parcel picked up.
pub(crate) async fn book_carrier(order: &Order, attempt: u32) -> Result<(), Obstacle> {
    tokio::time::sleep(Duration::from_millis(4)).await;
    if order.carrier == FLAKY_CARRIER && attempt < 3 {
        return Err(Obstacle::NoAnswer { from: FLAKY_CARRIER });
    }
    Ok(())
}

/// Sends an e-mail.
pub(crate) async fn send_mail(_to: &str, _text: &str) -> Result<(), Obstacle> {
    tokio::time::sleep(Duration::from_millis(3)).await;
    Ok(())
}
