//! Reading messages one after the other.

use std::pin::Pin;

use futures_util::StreamExt as _;
use traced_broker::{Deliveries, Delivery};

use crate::screen;
use crate::trouble::chain;

/// The next message; none when the subscription ends, or `stop` does. Trouble that the subscription survives is told.
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
            Err(error) => screen::remark(&format!("trouble with the subscription, which goes on: {}", chain(&error))),
        }
    }
}
