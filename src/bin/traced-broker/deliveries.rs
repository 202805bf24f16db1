//! Reading deliveries one after another.

use std::pin::Pin;

use futures_util::StreamExt as _;
use traced_broker::{Deliveries, Delivery};

use crate::error::chain;
use crate::output;

/// Returns the next delivery, or `None` once the subscription ends or `stop` completes.
///
/// Prints errors that the subscription survives.
pub(crate) async fn next(
    deliveries: &mut Deliveries,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Option<Delivery> {
    loop {
        let next = tokio::select! {
            biased;
            () = &mut stop => return None,
            next = deliveries.next() => next?,
        };
        match next {
            Ok(delivery) => return Some(delivery),
            Err(error) => output::warn(&format!("subscription error, the subscription continues: {}", chain(&error))),
        }
    }
}
