//! How every service reads its topic.

use std::future::Future;

use futures_util::StreamExt as _;
use traced_broker::{Deliveries, Delivery, HandlerError, Received, Result};

use crate::run::Run;

/// Hands this run's messages to `handler`, so many at a time, until the run is told to stop; then lets those in hand end.
pub(crate) async fn consume<H, F>(deliveries: Deliveries, run: Run, at_a_time: usize, handler: H)
where
    H: Fn(Received) -> F,
    F: Future<Output = Result<(), HandlerError>>,
{
    let until_stopped = deliveries.take_until(run.stop.clone().cancelled_owned());
    until_stopped
        .for_each_concurrent(at_a_time, async |delivery| {
            let settled = match delivery {
                Ok(delivery) if run.owns(delivery.message()) => delivery.process(&handler).await.map(drop),
                Ok(delivery) => pass_over(&run, delivery).await,
                Err(error) => Err(error),
            };
            if let Err(error) = settled {
                run.ledger.trouble(error);
            }
        })
        .await;
}

/// Without a process span: the trace this one would continue is not among ours.
async fn pass_over(run: &Run, delivery: Delivery) -> Result<()> {
    run.ledger.count(|tally| &mut tally.leftovers);
    delivery.ack().await
}
