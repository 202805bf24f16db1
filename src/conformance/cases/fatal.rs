//! Messages that end the process of their handler, and others that only share its fate.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::restart::killable;
use crate::broker::{Deliveries, Delivery, Traced, TracedBroker};
use crate::conformance::case_context::{CaseContext, numbers, text};
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::conformance::journal::{Journal, up_to};
use crate::conformance::process::{FATAL, Process, Task, dead_letters_of, words};
use crate::conformance::requirement::Need;
use crate::error::ErrorKind;
use crate::message::{HandlerError, Message, Received, Subscription};
use crate::names::header;
use crate::runtime::TracedBrokerExt;

crate::conformance::case::cases! { Restart:
    buries_what_ends_its_process [Durable, AtLeastOnce, NotesTrials]
        "A message whose handler ends its process is a dead letter after five processes, and the messages beside it are handled.";
    buries_nothing_for_processes_and_connections_that_are_lost [Durable, AtLeastOnce, NotesTrials]
        "Processes that are killed with messages in hand, handlers that fail, and connections lost while messages are handled, make no dead letter.";
}

/// The processes that the message ends: two before it is a suspect, and three trials.
const DEATHS: usize = 5;
const GOOD: usize = 12;
/// Maximum time until the broker notices that a process is gone.
const STUCK: Duration = Duration::from_secs(60);

async fn buries_what_ends_its_process(case: &CaseContext) -> Checked {
    let killable = killable(case).await?;
    let Some(command) = killable.other_process() else { return case.lacks(Need::OtherProcess) };
    drop(command);
    let broker = case.harness.set_up(Traced::new(killable.connect().await?));
    drop(broker.subscribe(case.group("g")).await?);
    let mut letters = broker.subscribe(support(case, &dead_letters_of(&case.topic))).await?;
    let mut payloads = numbers(GOOD);
    payloads.insert(GOOD / 2, FATAL.to_owned());
    for payload in payloads {
        case.check_receipt(&broker.publish(&case.topic, Message::new(payload.clone()).key(payload)).await?)?;
    }
    sleep(killable.settling_time()).await;
    let (mut deaths, mut handled) = (0, BTreeSet::new());
    let letter = loop {
        let Some(command) = killable.other_process() else { return case.lacks(Need::OtherProcess) };
        let mut process = Process::start(case, command, "g", Task::Die)?;
        let end = tokio::time::timeout(STUCK, async {
            tokio::select! {
                letter = next_of(&mut letters) => letter,
                () = process.ended() => None,
            }
        });
        let end = end.await;
        check!(end.is_ok(), "a process ends, or its message is buried: after {deaths} processes, neither");
        if matches!(end, Ok(Some(_))) {
            // Its settlement of the buried message may still be on its way.
            sleep(case.harness.quiet()).await;
        }
        let said = process.kill().await?;
        handled.extend(words(&said, "handled"));
        match end {
            Ok(Some(letter)) => break letter,
            _ => deaths += 1,
        }
        check!(deaths <= 2 * DEATHS, "the message is buried: it has ended {deaths} processes; the last said {said:?}");
    };
    check_eq!(text(letter.message().payload()), FATAL, "the dead letter");
    let headers = letter.message().headers();
    check_eq!(headers.get_str(header::DEAD_LETTER_ERROR_TYPE), Some("process_lost"), "the reason's type");
    check_eq!(deaths, DEATHS, "the processes that the message has ended");
    letter.ack().await?;
    case.nothing_comes(&mut letters).await?;
    let rest = Journal::default();
    let handler = async |message: Received| {
        rest.write(text(message.payload()));
        Ok::<_, HandlerError>(())
    };
    let consumer = broker.consume(case.group("g"), handler).subscribed().await?;
    let left = up_to(GOOD).difference(&handled).count();
    consumer.run_until(rest.has(case, left)).await?;
    handled.append(&mut rest.set());
    check_eq!(handled, up_to(GOOD), "the messages that are handled beside it and behind it");
    Ok(broker.close().await?)
}

/// Returns a subscription of the dead letters.
fn support(case: &CaseContext, dead_letters: &str) -> Subscription {
    Subscription::new(dead_letters).group(case.group_name("support"))
}

/// Fails at the messages, one of them as often as would bury it if each were a lost trial, in a
/// process that then ends in order.
async fn fail_and_close(case: &CaseContext, broker: impl TracedBroker, dead: &str) -> Checked {
    const FAILURES: usize = 4;
    let failed = Journal::default();
    let handler = async |message: Received| {
        failed.write(text(message.payload()));
        Err::<(), _>(HandlerError::retry_after("again", Duration::from_millis(100)))
    };
    let is_enough = |lines: &[String]| lines.iter().filter(|line| Some(*line) == lines.first()).count() >= FAILURES;
    let enough = async {
        let begun = std::time::Instant::now();
        while !is_enough(&failed.lines()) && begun.elapsed() < STUCK {
            sleep(case.harness.quiet() / 4).await;
        }
    };
    let consumer = broker.consume(case.group("g").dead_letter(dead), handler).concurrency(4).subscribed().await?;
    consumer.run_until(enough).await?;
    // The group may be busy with the members that were killed.
    if let Err(error) = broker.close().await {
        check_eq!(error.kind(), ErrorKind::SettlementLost, "the kind of {error}");
    }
    let failed = failed.lines();
    check!(is_enough(&failed), "a message that fails is tried again, {FAILURES} times: {failed:?}");
    Ok(())
}

/// Returns the next delivery, and skips errors that the stream reports in between. This may take
/// several processes.
async fn next_of(letters: &mut Deliveries) -> Option<Delivery> {
    loop {
        match letters.next().await {
            Some(Ok(letter)) => return Some(letter),
            Some(Err(_)) => {}
            None => return None,
        }
    }
}

async fn buries_nothing_for_processes_and_connections_that_are_lost(case: &CaseContext) -> Checked {
    const KILLS: usize = 4;
    const CUTS: usize = 3;
    let killable = killable(case).await?;
    let Some(command) = killable.other_process() else { return case.lacks(Need::OtherProcess) };
    drop(command);
    let broker = case.harness.set_up(Traced::new(killable.connect().await?));
    drop(broker.subscribe(case.group("g")).await?);
    for number in numbers(GOOD) {
        case.check_receipt(&broker.publish(&case.topic, Message::new(number).key("one")).await?)?;
    }
    broker.close().await?;
    sleep(killable.settling_time()).await;
    for kill in 0..KILLS {
        let Some(command) = killable.other_process() else { return case.lacks(Need::OtherProcess) };
        let mut process = Process::start(case, command, "g", Task::Hold)?;
        process.read(1 + GOOD, STUCK).await.map_err(|failure| failure.during(&format!("process {kill}")))?;
        process.kill().await?;
    }
    let broker = case.harness.set_up(Traced::new(killable.connect().await?));
    let dead = format!("{}.dead", case.topic);
    let mut letters = broker.subscribe(support(case, &dead)).await?;
    for _ in 0..2 {
        fail_and_close(case, case.harness.set_up(Traced::new(killable.connect().await?)), &dead).await?;
    }
    let (begun, handled) = (Journal::default(), Mutex::new(BTreeSet::new()));
    let handler = async |message: Received| {
        begun.write("begun");
        sleep(case.harness.quiet() / 2).await;
        handled.lock().insert(text(message.payload()));
        Ok::<_, HandlerError>(())
    };
    let consumer = broker.consume(case.group("g").dead_letter(&dead), handler).concurrency(4).subscribed().await?;
    let work = async {
        for cut in 0..CUTS {
            // While handlers run, whose trials are noted.
            begun.has(case, 1 + cut).await;
            killable.kill_and_restart().await?;
        }
        let begun = std::time::Instant::now();
        while handled.lock().len() < GOOD && begun.elapsed() < STUCK {
            sleep(case.harness.quiet() / 4).await;
        }
        Checked::Ok(())
    };
    let mut done = Ok(());
    let report = consumer.run_until(async { done = work.await }).await?;
    done?;
    check_eq!(*handled.lock(), up_to(GOOD), "the messages that are handled; the report says: {report}");
    let letter = tokio::time::timeout(case.harness.quiet(), next_of(&mut letters)).await;
    check!(letter.is_err(), "nothing is buried: {:?}", letter.ok().flatten().map(|letter| letter.message().clone()));
    check_eq!(report.rejected, 0, "what the report says: {report}");
    broker.close().await.map_err(Failure::from)
}
