//! How every service reads its topic.

use std::future::Future;

use traced_broker::consume::{Consume, InTask};
use traced_broker::{Broker, HandlerError, Received, Result};

use crate::run::Run;

/// Subscribes, and returns the future that does the work: it hands this run's messages to the handler until the run is told to stop,
/// then lets those in hand end.
///
/// Messages that another run left behind are passed over without a span: the traces they would continue are not among ours.
pub(crate) async fn start<H, F>(
    service: &'static str,
    run: &Run,
    consume: Consume<'_, Broker, H, InTask>,
) -> Result<impl Future<Output = ()> + use<H, F>>
where
    H: Fn(Received) -> F,
    F: Future<Output = Result<(), HandlerError>>,
{
    let (run, ours) = (run.clone(), run.clone());
    let consumer = consume.filter(move |message| ours.owns(message)).subscribed().await?;
    Ok(async move {
        let report = consumer.run_until(run.stop.cancelled()).await;
        run.ledger.passed_over(report.skipped);
        if report.errors + report.unsettled + report.abandoned > 0 {
            run.ledger.trouble(format!("{service}: {report}"));
        }
    })
}
