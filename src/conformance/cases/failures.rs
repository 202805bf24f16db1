//! Failures beside the handler: dead letters that cannot be written, panics, lost deliveries,
//! settlements that are not answered, and deploys.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::trace::Status;
use tokio::time::sleep;

use super::refusing::Refusing;
use super::restart::killable;
use crate::broker::{Broker, Deliveries, Traced, TracedBroker};
use crate::conformance::case_context::{CaseContext, numbers, refused, text};
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::conformance::journal::{Journal, up_to};
use crate::conformance::measurements::total;
use crate::conformance::requirement::Need;
use crate::conformance::spans::attribute_text;
use crate::conformance::watched::Watched;
use crate::error::{Error, ErrorKind};
use crate::message::{HandlerError, Message, Received};
use crate::names::{attribute, header, metric};
use crate::runtime::TracedBrokerExt;
use crate::runtime::consume::Retry;

crate::conformance::case::cases! { Runtime:
    repeats_the_burial_and_not_the_handler [AtLeastOnce]
        "While a dead letter cannot be published, its publish is repeated; the handler does not run again.";
    stops_when_a_dead_letter_is_refused_for_good [AtLeastOnce]
        "A consumer whose dead-letter topic does not exist stops with that error, and the message is redelivered.";
    treats_a_panic_of_the_filter_as_a_failure [AtLeastOnce]
        "A panic in a filter is a failed attempt of that message; the consumer goes on.";
    treats_a_panic_of_the_choice_as_no_choice [AtLeastOnce]
        "A panic in the choice of a verdict leaves the verdict to the rest of the policy; the consumer goes on.";
    outlives_a_handler_that_panics_when_it_is_cut_off [AtLeastOnce]
        "A handler that panics while it is cancelled has failed; the consumer goes on.";
    finds_an_error_of_the_library_inside_another [AtLeastOnce]
        "An undecodable message is rejected at the first attempt where the application wraps the error, and the dead letter names every cause.";
    counts_no_attempt_for_what_a_deploy_gives_back [AtLeastOnce]
        "Messages that several consumers took and never began are at their first attempt.";
    measures_the_queue_at_the_first_hand_out [AtLeastOnce]
        "The time in the queue is measured once for a message that is retried, and the wait in the process for every attempt.";
    makes_again_what_is_deleted_in_use [AtLeastOnce]
        "A topic and its dead-letter topic that are deleted in use are made again: publishers, the consumer and dead letters go on.";
    keeps_retries_of_a_group_that_is_deleted [AtLeastOnce]
        "A message that waits for its retry when its group is deleted comes again, and so does one that fails afterwards.";
    tells_what_was_handled_and_not_settled [AtLeastOnce]
        "A handler that succeeded is not reported as cancelled when the settlement outlasts the drain.";
}

async fn publish(case: &CaseContext, broker: &impl TracedBroker, payloads: &[&str]) -> Checked {
    for payload in payloads {
        case.check_receipt(&broker.publish(&case.topic, Message::new((*payload).to_owned())).await?)?;
    }
    Ok(())
}

async fn repeats_the_burial_and_not_the_handler(case: &CaseContext) -> Checked {
    let dead_topic = case.topic("dead");
    let mut dead = case.broker().await?.subscribe(case.group_on(&dead_topic, "desk")).await?;
    let broker = case.traced(Refusing::at_first(case.driver().await?, dead_topic.clone(), 2));
    let journal = Journal::default();
    let handler = async |message: Received| {
        journal.write(text(message.payload()));
        if text(message.payload()) == "bad" { Err(HandlerError::reject("broken")) } else { Ok(()) }
    };
    let consumer = broker.consume(case.group("g"), handler).dead_letter(&dead_topic).subscribed().await?;
    publish(case, &broker, &["bad", "good"]).await?;
    let mut letters = Ok(Vec::new());
    let report = consumer
        .run_until(async {
            letters = case.drain(&mut dead, 1).await;
            journal.has(case, 2).await;
        })
        .await?;
    check_eq!(letters?, ["bad"], "the dead letters");
    let mut runs = journal.lines();
    // Messages without a key may come from two partitions.
    runs.sort();
    check_eq!(runs, ["bad", "good"], "the runs of the handler");
    check_eq!((report.handled, report.rejected, report.retried), (1, 1, 0), "what the report says: {report}");
    Ok(())
}

async fn stops_when_a_dead_letter_is_refused_for_good(case: &CaseContext) -> Checked {
    let dead_topic = case.topic("dead");
    let broker = case.traced(Refusing::topic(case.driver().await?, dead_topic.clone()));
    let journal = Journal::default();
    let handler = async |_: Received| {
        journal.write("run");
        Err::<(), _>(HandlerError::reject("broken"))
    };
    let consumer = broker.consume(case.group("g"), handler).dead_letter(&dead_topic).subscribed().await?;
    publish(case, &broker, &["kept"]).await?;
    let stopped = case.within("the end of the consumer", consumer.run()).await?;
    let error = refused("a consumer that cannot bury", stopped)?;
    check_eq!(error.kind(), ErrorKind::NotFound, "the kind of {error}");
    check_eq!(journal.lines().len(), 1, "the runs of the handler");
    let mut deliveries = case.broker().await?.subscribe(case.group("g")).await?;
    check_eq!(case.drain(&mut deliveries, 1).await?, ["kept"], "what is redelivered");
    Ok(())
}

async fn treats_a_panic_of_the_filter_as_a_failure(case: &CaseContext) -> Checked {
    let (broker, journal) = (case.broker().await?, std::sync::Arc::new(Journal::default()));
    let (seen, asked) = (journal.clone(), AtomicUsize::new(0));
    let wanted = move |message: &Received| {
        let bad = text(message.payload()) == "bad";
        assert!(!(bad && asked.fetch_add(1, Ordering::Relaxed) == 0), "the filter panics once");
        true
    };
    let handler = async |message: Received| {
        seen.write(format!("{} {}", text(message.payload()), message.attempt()));
        Ok::<_, HandlerError>(())
    };
    let consume = broker.consume(case.group("g"), handler).filter(wanted).retry(Retry::immediate(3));
    let consumer = consume.subscribed().await?;
    publish(case, &broker, &["bad", "good"]).await?;
    let report = consumer.run_until(journal.has(case, 2)).await?;
    check_eq!(journal.set(), BTreeSet::from(["bad 2", "good 1"].map(str::to_owned)), "what was handled");
    check_eq!((report.handled, report.retried), (2, 1), "what the report says: {report}");
    Ok(())
}

async fn treats_a_panic_of_the_choice_as_no_choice(case: &CaseContext) -> Checked {
    let (broker, journal) = (case.broker().await?, Journal::default());
    let handler = async |message: Received| {
        journal.write(format!("{} {}", text(message.payload()), message.attempt()));
        let fails = text(message.payload()) == "bad" && message.attempt() == 1;
        if fails { Err(HandlerError::retry("again")) } else { Ok(()) }
    };
    let retry = Retry::immediate(3).choose(|_| panic!("the choice panics"));
    let consumer = broker.consume(case.group("g"), handler).retry(retry).subscribed().await?;
    publish(case, &broker, &["bad", "good"]).await?;
    consumer.run_until(journal.has(case, 3)).await?;
    check_eq!(journal.set(), BTreeSet::from(["bad 1", "bad 2", "good 1"].map(str::to_owned)), "what was handled");
    Ok(())
}

/// Panics when it is dropped.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        // A second panic while one is under way would end the process.
        assert!(std::thread::panicking(), "a guard panics when its handler is cut off");
    }
}

async fn outlives_a_handler_that_panics_when_it_is_cut_off(case: &CaseContext) -> Checked {
    let (broker, journal) = (case.broker().await?, Journal::default());
    let handler = async |message: Received| {
        if text(message.payload()) == "bad" && message.attempt() == 1 {
            let _grenade = Grenade;
            sleep(Duration::from_secs(3600)).await;
        }
        journal.write(format!("{} {}", text(message.payload()), message.attempt()));
        Ok::<_, HandlerError>(())
    };
    let consume = broker.consume(case.group("g"), handler).time_limit(Duration::from_millis(50));
    let consumer = consume.retry(Retry::immediate(3)).subscribed().await?;
    publish(case, &broker, &["bad", "good"]).await?;
    let report = consumer.run_until(journal.has(case, 2)).await?;
    check_eq!(journal.set(), BTreeSet::from(["bad 2", "good 1"].map(str::to_owned)), "what was handled");
    check_eq!((report.handled, report.retried), (2, 1), "what the report says: {report}");
    Ok(())
}

/// An application's error around one of the library.
#[derive(Debug)]
struct Unbookable(Error);

impl fmt::Display for Unbookable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot book a carrier")
    }
}

impl std::error::Error for Unbookable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

async fn finds_an_error_of_the_library_inside_another(case: &CaseContext) -> Checked {
    let dead_topic = case.topic("dead");
    let (broker, journal) = (case.broker().await?, Journal::default());
    let mut dead = broker.subscribe(case.group_on(&dead_topic, "desk")).await?;
    let handler = async |message: Received| {
        journal.write("run");
        let _number: u32 = message.json().map_err(Unbookable)?;
        Ok::<_, HandlerError>(())
    };
    let consumer = broker.consume(case.group("g"), handler).dead_letter(&dead_topic).subscribed().await?;
    publish(case, &broker, &["not a number"]).await?;
    let mut letter = Ok(None);
    consumer.run_until(async { letter = case.next(&mut dead).await.map(Some) }).await?;
    let Some(letter) = letter? else { return Ok(()) };
    check_eq!(journal.lines().len(), 1, "the runs of the handler");
    let header = |name| letter.message().headers().get_str(name).unwrap_or("none").to_owned();
    check_eq!(header(header::DEAD_LETTER_ERROR_TYPE), "invalid_message", "the type of error");
    let reason = header(header::DEAD_LETTER_REASON);
    for words in ["cannot book a carrier: ", "not of the expected format", "expected"] {
        check!(reason.contains(words), "the reason names every cause ({words}): {reason}");
    }
    letter.ack().await?;
    Ok(())
}

async fn counts_no_attempt_for_what_a_deploy_gives_back(case: &CaseContext) -> Checked {
    const MESSAGES: usize = 20;
    const DEPLOYS: usize = 5;
    let attempts: parking_lot::Mutex<BTreeMap<String, u32>> = parking_lot::Mutex::default();
    case.make_group("g").await?;
    let payloads = numbers(MESSAGES);
    publish(case, &case.broker().await?, &payloads.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    for deploy in 0..=DEPLOYS {
        let (broker, journal) = (case.broker().await?, Journal::default());
        let handler = async |message: Received| {
            attempts.lock().insert(text(message.payload()), message.attempt());
            journal.write(text(message.payload()));
            // Long enough for the consumer to fetch ahead what is left.
            sleep(Duration::from_millis(50)).await;
            Ok::<_, HandlerError>(())
        };
        let consumer = broker.consume(case.group("g").prefetch(MESSAGES), handler).subscribed().await?;
        let enough = async {
            if deploy < DEPLOYS {
                journal.has(case, 1).await;
            } else {
                let all = async {
                    while attempts.lock().len() < MESSAGES {
                        sleep(Duration::from_millis(10)).await;
                    }
                };
                let _: Checked<()> = case.within("the rest of the messages", all).await;
            }
        };
        consumer.run_until(enough).await?;
        broker.close().await?;
    }
    let attempts = attempts.into_inner();
    check_eq!(attempts.keys().cloned().collect::<BTreeSet<_>>(), up_to(MESSAGES), "what was handled");
    let repeated: Vec<_> = attempts.iter().filter(|(_, attempt)| **attempt > 1).collect();
    check!(repeated.is_empty(), "what was never begun before is at attempt 1: {repeated:?}");
    Ok(())
}

async fn measures_the_queue_at_the_first_hand_out(case: &CaseContext) -> Checked {
    let (broker, journal) = (case.broker().await?, Journal::default());
    let handler = async |message: Received| {
        journal.write(message.attempt().to_string());
        if message.attempt() < 3 { Err(HandlerError::retry("again")) } else { Ok(()) }
    };
    let retry = Retry::fixed(5, Duration::from_millis(100));
    let consumer = broker.consume(case.group("g"), handler).retry(retry).subscribed().await?;
    publish(case, &broker, &["again"]).await?;
    consumer.run_until(journal.has(case, 3)).await?;
    broker.close().await?;
    let of_system = ("messaging.system", broker.system());
    let queued = case.measurements.points(metric::QUEUE_DURATION.name, of_system)?;
    let due = u64::from(case.capabilities.timestamp.is_some());
    check_eq!(total(&queued), due, "how many times in the queue are measured");
    let waited = case.measurements.points(metric::WAIT_DURATION.name, of_system)?;
    check_eq!(total(&waited), 3, "how many waits in the process are measured");
    Ok(())
}

async fn makes_again_what_is_deleted_in_use(case: &CaseContext) -> Checked {
    let dead_topic = case.topic("dead");
    let (broker, publisher, journal) = (case.broker().await?, case.broker().await?, Journal::default());
    let handler = async |message: Received| {
        let payload = text(message.payload());
        let is_bad = payload.starts_with("bad");
        journal.write(payload);
        if is_bad { Err(HandlerError::reject("bad")) } else { Ok(()) }
    };
    let mut dead = publisher.subscribe(case.group_on(&dead_topic, "desk")).await?;
    let consumer = broker.consume(case.group("g"), handler).dead_letter(&dead_topic).subscribed().await?;
    let mut done = Ok(());
    let report = consumer.run_until(async { done = delete_in_use(case, &publisher, &journal, &mut dead).await });
    let report = report.await?;
    done?;
    check!(case.lacked().is_some() || report.rejected >= 2, "letters are written before and after: {report}");
    Ok(())
}

/// Deletes both topics under running consumers, and waits until messages and dead letters arrive
/// again.
async fn delete_in_use(case: &CaseContext, broker: &Broker, journal: &Journal, dead: &mut Deliveries) -> Checked {
    publish(case, broker, &["before", "bad before"]).await?;
    journal.has(case, 2).await;
    check_eq!(case.drain(dead, 1).await?, ["bad before"], "the dead letter before");
    for topic in [case.topic.clone(), case.topic("dead")] {
        if !case.harness.delete_topic(&topic).await? {
            return case.lacks(Need::Deletion);
        }
    }
    // Some may be confirmed and gone with what is being deleted.
    let publishing = |payload: &'static str| async move {
        loop {
            let _ = broker.publish(&case.topic, Message::new(payload)).await;
            sleep(case.harness.quiet() / 4).await;
        }
    };
    let handled = journal.reaches(case, |lines| lines.iter().any(|line| line == "after"));
    tokio::select! {
        () = handled => {}
        () = publishing("after") => {}
    }
    check!(journal.set().contains("after"), "a message that is published afterwards is handled");
    let buried = async {
        loop {
            // A letter that was settled before the deletion may be there again.
            if case.drain(dead, 1).await? == ["bad after"] {
                return Checked::Ok(());
            }
        }
    };
    tokio::select! {
        buried = buried => buried.map_err(|failure| failure.during("a dead letter that is written afterwards")),
        () = publishing("bad after") => Ok(()),
    }
}

async fn keeps_retries_of_a_group_that_is_deleted(case: &CaseContext) -> Checked {
    let (broker, publisher, journal) = (case.broker().await?, case.broker().await?, Journal::default());
    let handler = async |message: Received| {
        let payload = text(message.payload());
        let is_first = !journal.set().contains(&payload);
        journal.write(payload);
        if is_first { Err(HandlerError::retry("not yet")) } else { Ok(()) }
    };
    // Longer than it takes to make the group again on a busy machine.
    let retry = Retry::fixed(9, 5 * case.harness.quiet());
    let consumer = broker.consume(case.group("g"), handler).retry(retry).subscribed().await?;
    let mut done = Ok(());
    consumer.run_until(async { done = delete_group_in_use(case, &publisher, &journal).await }).await?;
    done
}

/// Deletes the group while a message waits for its retry, and waits until all that failed once
/// comes again.
async fn delete_group_in_use(case: &CaseContext, broker: &Broker, journal: &Journal) -> Checked {
    publish(case, broker, &["before"]).await?;
    journal.has(case, 1).await;
    sleep(case.harness.quiet()).await;
    if !case.harness.delete_group(&case.topic, &case.group_name("g")).await? {
        return case.lacks(Need::GroupDeletion);
    }
    let publishing = async {
        for number in 0.. {
            // Some may be lost with the group.
            let _ = broker.publish(&case.topic, Message::new(format!("after {number}"))).await;
            sleep(case.harness.quiet() / 4).await;
        }
    };
    tokio::select! {
        () = journal.reaches(case, |lines| lines.iter().any(|line| line.starts_with("after"))) => {}
        () = publishing => {}
    }
    let once = |lines: &[String]| -> Vec<String> {
        let times = |line: &String| lines.iter().filter(|other| *other == line).count();
        lines.iter().filter(|line| times(line) == 1).cloned().collect()
    };
    journal.reaches(case, |lines| once(lines).is_empty()).await;
    check_eq!(once(&journal.lines()), Vec::<String>::new(), "messages that failed once and never came again");
    check!(journal.set().iter().any(|line| line.starts_with("after")), "the group goes on");
    Ok(())
}

async fn tells_what_was_handled_and_not_settled(case: &CaseContext) -> Checked {
    let (driver, _) = Watched::late(case.driver().await?, Duration::from_secs(3600));
    let publisher = case.broker().await?;
    let (broker, journal) = (case.traced(driver), Journal::default());
    let handler = async |message: Received| {
        journal.write(text(message.payload()));
        Ok::<_, HandlerError>(())
    };
    let consume = broker.consume(case.group("g"), handler).drain_time(Duration::from_millis(100));
    let consumer = consume.subscribed().await?;
    publish(case, &publisher, &["handled"]).await?;
    let report = consumer.run_until(journal.has(case, 1)).await?;
    check_eq!((report.abandoned, report.unsettled), (0, 1), "what the report says: {report}");
    let process = case.spans.one(&case.process_name())?;
    check_eq!(process.status, Status::Unset, "the status of a handler that succeeded");
    check_eq!(attribute_text(&process, attribute::SETTLEMENT), "none", "the settlement");
    Ok(())
}

pub(super) mod killed {
    //! A connection that is lost under a consumer.

    use super::*;

    crate::conformance::case::cases! { Restart:
        handles_nothing_twice_that_it_handled_when_the_broker_was_killed [Durable, AtLeastOnce]
            "A message that was handled when its connection was lost is settled when it comes again, without running its handler; what had not begun is handled once, at its first attempt.";
    }

    async fn handles_nothing_twice_that_it_handled_when_the_broker_was_killed(case: &CaseContext) -> Checked {
        const MESSAGES: usize = 10;
        let killable = killable(case).await?;
        let broker = Traced::new(killable.connect().await?);
        let (journal, killed) = (Journal::default(), tokio::sync::Semaphore::new(0));
        let handler = async |message: Received| {
            journal.write(format!("{} {}", text(message.payload()), message.attempt()));
            if text(message.payload()) == "0" {
                // Ends after the broker was killed and its messages are another delivery's.
                drop(killed.acquire().await);
            }
            Ok::<_, HandlerError>(())
        };
        let consume = broker.consume(case.group("g").prefetch(MESSAGES), handler).ordered_by_key();
        let consumer = consume.concurrency(4).subscribed().await?;
        for number in numbers(MESSAGES) {
            broker.publish(&case.topic, Message::new(number).key("one")).await?;
        }
        let all = async {
            journal.has(case, 1).await;
            sleep(killable.settling_time()).await;
            killable.kill_and_restart().await?;
            sleep(killable.settling_time()).await;
            killed.add_permits(1);
            let all = journal.reaches(case, |lines| {
                (0..MESSAGES).all(|number| lines.iter().any(|line| line.starts_with(&format!("{number} "))))
            });
            all.await;
            // Long enough for what comes again to be begun.
            sleep(4 * case.harness.quiet()).await;
            Checked::Ok(())
        };
        let mut ended = Ok(());
        let report = consumer.run_until(async { ended = all.await }).await?;
        ended?;
        let lines = journal.lines();
        for number in numbers(MESSAGES) {
            let runs: Vec<&String> = lines.iter().filter(|line| line.starts_with(&format!("{number} "))).collect();
            check_eq!(runs, [&format!("{number} 1")], "the runs of the handler on message {number}: {report}");
        }
        let failure = |error: Error| Failure::new(format!("closing works: {error}"));
        broker.close().await.map_err(failure)
    }
}
