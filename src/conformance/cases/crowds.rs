//! Many messages that wait in the consumer's process: for another attempt, or behind one of their
//! key. They must not hold up the others.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;

use crate::broker::{Broker, TracedBroker};
use crate::conformance::case_context::{CaseContext, numbers, text};
use crate::conformance::failure::{Checked, check, check_eq};
use crate::conformance::journal::{Journal, up_to};
use crate::message::{HandlerError, Message, Received};
use crate::names::metric;
use crate::runtime::TracedBrokerExt;
use crate::runtime::consume::Retry;

crate::conformance::case::cases! { Runtime:
    good_messages_pass_many_that_fail [AtLeastOnce, SetsAside]
        "More failing messages than the prefetch wait for their next attempt, and all others are handled.";
    good_keys_pass_a_key_that_fails [AtLeastOnce, SetsAside]
        "Behind a failing message wait more of its key than the prefetch, and all other keys are handled.";
    good_keys_pass_many_keys_that_fail [AtLeastOnce, SetsAside]
        "More keys than the prefetch have a failing message, and all other keys are handled.";
    good_keys_pass_a_slow_key [AtLeastOnce, SetsAside]
        "Behind a slow handler wait more messages of its key than the prefetch: other keys are handled, and then those, in order.";
    measures_what_waits [AtLeastOnce]
        "The numbers of messages that wait for a retry and behind their key are measured, and are zero at the end.";
}

/// More than the default prefetch of any consumer.
const CROWD: usize = 400;
const GOOD: usize = 100;
/// A delay that no case lives to see the end of.
const LONG: Duration = Duration::from_secs(120);

/// Publishes messages with these keys, all at once.
async fn publish(case: &CaseContext, broker: &Broker, messages: Vec<Message>) -> Checked {
    for result in broker.publish_batch(&case.topic, messages).await {
        case.check_receipt(&result?)?;
    }
    Ok(())
}

fn bad(key: impl Fn(usize) -> String) -> Vec<Message> {
    (0..CROWD).map(|number| Message::new(format!("bad {number}")).key(key(number))).collect()
}

fn good() -> Vec<Message> {
    (0..GOOD).map(|number| Message::new(number.to_string()).key(format!("key-{}", number % 10))).collect()
}

/// Fails for a long time if the message is a bad one, and notes the others.
async fn fail_if_bad(journal: &Journal, message: &Received) -> Result<(), HandlerError> {
    let payload = text(message.payload());
    if payload.starts_with("bad") {
        return Err(HandlerError::retry_after("bad", LONG));
    }
    journal.write(payload);
    Ok(())
}

/// Checks that all good messages are handled beside bad ones with these keys.
async fn check_good_ones(case: &CaseContext, ordered: bool, key: impl Fn(usize) -> String) -> Checked {
    let (broker, journal) = (case.broker().await?, Journal::default());
    let handler = async |message: Received| fail_if_bad(&journal, &message).await;
    let consume = broker.consume(case.group("g"), handler).concurrency(4);
    let consume = if ordered { consume.ordered_by_key() } else { consume };
    let consumer = consume.subscribed().await?;
    publish(case, &broker, bad(key)).await?;
    publish(case, &broker, good()).await?;
    let report = consumer.run_until(journal.has(case, GOOD)).await?;
    check_eq!(journal.set(), up_to(GOOD), "the good messages that were handled; the report says: {report}");
    Ok(())
}

async fn good_messages_pass_many_that_fail(case: &CaseContext) -> Checked {
    check_good_ones(case, false, |number| format!("bad-{number}")).await
}

async fn good_keys_pass_a_key_that_fails(case: &CaseContext) -> Checked {
    check_good_ones(case, true, |_| "bad".to_owned()).await
}

async fn good_keys_pass_many_keys_that_fail(case: &CaseContext) -> Checked {
    check_good_ones(case, true, |number| format!("bad-{number}")).await
}

async fn good_keys_pass_a_slow_key(case: &CaseContext) -> Checked {
    let (broker, journal, slow) = (case.broker().await?, Journal::default(), Journal::default());
    let (open, gate) = watch::channel(false);
    let handler = async |message: Received| {
        let payload = text(message.payload());
        if payload.starts_with("bad") {
            // An error means that the case is over.
            let _ = gate.clone().wait_for(|is_open| *is_open).await;
            slow.write(payload);
        } else {
            journal.write(payload);
        }
        Ok::<_, HandlerError>(())
    };
    let consumer = broker.consume(case.group("g"), handler).concurrency(4).ordered_by_key().subscribed().await?;
    publish(case, &broker, bad(|_| "slow".to_owned())).await?;
    publish(case, &broker, good()).await?;
    let report = consumer.run_until(async {
        journal.has(case, GOOD).await;
        let _ = open.send(true);
        slow.has(case, CROWD).await;
    });
    let report = report.await?;
    check_eq!(journal.set(), up_to(GOOD), "the messages of other keys that were handled");
    let in_order: Vec<String> = numbers(CROWD).iter().map(|number| format!("bad {number}")).collect();
    check_eq!(slow.lines(), in_order, "the messages of the slow key, in their order");
    check_eq!(report.handled, (CROWD + GOOD) as u64, "what the report says: {report}");
    case.nothing_comes(&mut case.broker().await?.subscribe(case.group("g")).await?).await
}

async fn measures_what_waits(case: &CaseContext) -> Checked {
    let (broker, tried) = (case.broker().await?, Journal::default());
    let handler = async |_: Received| {
        tried.write("tried");
        Err::<(), _>(HandlerError::retry("busy"))
    };
    let retry = Retry::fixed(5, LONG);
    let consumer = broker.consume(case.group("g"), handler).ordered_by_key().retry(retry).subscribed().await?;
    let messages = numbers(10).into_iter().map(|number| Message::new(number).key("one")).collect();
    publish(case, &broker, messages).await?;
    let (mut seen, begun) = (BTreeMap::new(), Instant::now());
    let waiting = async {
        tried.has(case, 1).await;
        while begun.elapsed() < case.harness.patience() {
            seen = waiting_now(case)?;
            if seen == expected(1, 9) {
                break;
            }
            sleep(case.harness.quiet() / 20).await;
        }
        Checked::Ok(())
    };
    consumer.run_until(waiting).await?;
    check_eq!(seen, expected(1, 9), "the messages that wait, by reason");
    check!(waiting_now(case)? == expected(0, 0), "none waits at the end: {:?}", waiting_now(case)?);
    Ok(())
}

fn expected(retry: i64, lane: i64) -> BTreeMap<String, i64> {
    BTreeMap::from([("retry".to_owned(), retry), ("lane".to_owned(), lane)])
}

/// Returns the measured numbers of messages that wait, by reason.
fn waiting_now(case: &CaseContext) -> Checked<BTreeMap<String, i64>> {
    let points = case.measurements.points(metric::WAITING.name, (crate::names::attribute::SYSTEM, case.system()))?;
    Ok(points.iter().map(|point| (point.text(crate::names::attribute::WAITING_REASON), point.sum as i64)).collect())
}
