//! Members that come and go in an orderly way, and connections that are lost in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::restart::killable;
use crate::broker::{Broker, Traced, TracedBroker};
use crate::conformance::case_context::{CaseContext, numbers, text};
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::error::Result;
use crate::message::{HandlerError, Message, Received};
use crate::runtime::TracedBrokerExt;
use crate::runtime::consume::Report;

crate::conformance::case::cases! { Runtime:
    handles_nothing_twice_when_members_come_and_go [AtLeastOnce]
        "Members that join, leave and are replaced in an orderly way under load handle each message once.";
}

/// Time that a handler takes: shorter than the patience of any broker with a member that leaves.
const HANDLER: Duration = Duration::from_millis(100);

/// The number of times that each message was handled, all members together.
type Times = Arc<Mutex<BTreeMap<String, u32>>>;

/// A running member of the group.
struct Worker {
    broker: Broker,
    handled: watch::Receiver<u32>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<Report>>,
}

impl Worker {
    async fn start(case: &CaseContext, times: &Times) -> Checked<Self> {
        let broker = case.broker().await?;
        let (count, handled) = watch::channel(0);
        let times = Arc::clone(times);
        let handler = move |message: Received| {
            *times.lock().entry(text(message.payload())).or_default() += 1;
            count.send_modify(|count| *count += 1);
            async {
                sleep(HANDLER).await;
                Ok::<_, HandlerError>(())
            }
        };
        let consumer = broker.consume(case.group("g"), handler).concurrency(8).subscribed().await?;
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(async move { consumer.run_until(stopped).await });
        Ok(Self { broker, handled, stop, running })
    }

    /// Waits until this member has handled so many more messages.
    async fn handles(&self, case: &CaseContext, more: u32) -> Checked {
        let mut handled = self.handled.clone();
        let goal = *handled.borrow() + more;
        let reached = case.within("the work of a member", handled.wait_for(|count| *count >= goal)).await?;
        reached.map(drop).map_err(|_| Failure::new("a member goes on until it is stopped: it ended"))
    }

    async fn leave(self, case: &CaseContext) -> Checked {
        drop(self.stop);
        let ended = case.within("the end of a member", self.running).await?;
        let report = ended.map_err(|error| Failure::new(format!("a member does not panic: {error}")))??;
        check_eq!((report.lost, report.unsettled), (0, 0), "what the report says: {report}");
        Ok(self.broker.close().await?)
    }
}

/// Publishes numbered messages of many keys until it is told to stop, and returns their number.
fn under_load(case: &CaseContext, broker: Broker) -> (oneshot::Sender<()>, JoinHandle<Result<usize>>) {
    let (stop, mut stopped) = oneshot::channel::<()>();
    let topic = case.topic.clone();
    let load = tokio::spawn(async move {
        for number in 0.. {
            broker.publish(&topic, Message::new(number.to_string()).key(number.to_string())).await?;
            if tokio::time::timeout(Duration::from_millis(4), &mut stopped).await.is_ok() {
                return Ok(number + 1);
            }
        }
        Ok(0)
    });
    (stop, load)
}

async fn handles_nothing_twice_when_members_come_and_go(case: &CaseContext) -> Checked {
    let times = Times::default();
    case.make_group("g").await?;
    let (enough, load) = under_load(case, case.broker().await?);
    let one = Worker::start(case, &times).await?;
    one.handles(case, 20).await?;
    let two = Worker::start(case, &times).await?;
    let three = Worker::start(case, &times).await?;
    sleep(HANDLER * 5).await;
    two.leave(case).await?;
    one.handles(case, 20).await?;
    one.leave(case).await?;
    three.handles(case, 20).await?;
    let four = Worker::start(case, &times).await?;
    three.leave(case).await?;
    four.handles(case, 20).await?;
    drop(enough);
    let published = load.await.map_err(|error| Failure::new(format!("publishing does not panic: {error}")))??;
    let begun = Instant::now();
    while times.lock().len() < published && begun.elapsed() < case.harness.patience() {
        sleep(HANDLER).await;
    }
    four.leave(case).await?;
    let times = times.lock();
    check_eq!(times.len(), published, "the messages that were handled");
    let again: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    check!(again.is_empty(), "each message is handled once: {again:?}");
    Ok(())
}

pub(super) mod killed {
    //! Deploys, with a broker that is killed in between.

    use super::*;

    crate::conformance::case::cases! { Restart:
        keeps_attempts_at_one_over_deploys_and_lost_connections [Durable, AtLeastOnce]
            "Ten graceful restarts and three lost connections over a backlog that was fetched ahead cost no attempt.";
    }

    async fn keeps_attempts_at_one_over_deploys_and_lost_connections(case: &CaseContext) -> Checked {
        const MESSAGES: usize = 60;
        const DEPLOYS: usize = 10;
        const CUTS: [usize; 3] = [2, 5, 8];
        let killable = killable(case).await?;
        let connect = async || Checked::Ok(case.harness.set_up(Traced::new(killable.connect().await?)));
        let broker = connect().await?;
        drop(broker.subscribe(case.group("g")).await?);
        for number in numbers(MESSAGES) {
            case.check_receipt(&broker.publish(&case.topic, Message::new(number).key("one")).await?)?;
        }
        broker.close().await?;
        sleep(killable.settling_time()).await;
        let (count, handled) = watch::channel(0);
        // The attempt at which each message was handled first: a later one is a repetition.
        let attempts: Mutex<BTreeMap<String, u32>> = Mutex::default();
        for deploy in 0..=DEPLOYS {
            let broker = connect().await?;
            let handler = async |message: Received| {
                attempts.lock().entry(text(message.payload())).or_insert(message.attempt());
                count.send_modify(|count| *count += 1);
                sleep(HANDLER * 2).await;
                Ok::<_, HandlerError>(())
            };
            let consumer = broker.consume(case.group("g").prefetch(MESSAGES), handler).subscribed().await?;
            // While the broker is away, members handle what they have fetched: in the end, all.
            let more = async || {
                let mut handled = handled.clone();
                let goal = *handled.borrow() + 1;
                if attempts.lock().len() < MESSAGES {
                    let _ = case.within("the work of a member", handled.wait_for(|count| *count >= goal)).await;
                }
            };
            let enough = async {
                more().await;
                if CUTS.contains(&deploy) {
                    killable.kill_and_restart().await?;
                    more().await;
                }
                while deploy == DEPLOYS && attempts.lock().len() < MESSAGES {
                    more().await;
                }
                Checked::Ok(())
            };
            let mut done = Ok(());
            consumer.run_until(async { done = enough.await }).await?;
            done?;
            broker.close().await?;
        }
        let attempts = attempts.into_inner();
        let counted: Vec<_> = attempts.iter().filter(|(_, attempt)| **attempt > 1).collect();
        check!(counted.is_empty(), "what was never begun before is at attempt 1: {counted:?}");
        check_eq!(attempts.len(), MESSAGES, "the messages that were handled");
        Ok(())
    }
}
