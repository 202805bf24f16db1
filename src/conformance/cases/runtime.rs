//! The consumer runtime on top of the adapter: concurrency, order by key, retries, time limits,
//! drain.

use crate::names::header;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::trace::TraceContextExt;
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::broker::TracedBroker;
use crate::conformance::case_context::{CaseContext, numbers, text};
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::conformance::journal::{Journal, up_to};
use crate::driver::capability::Order;
use crate::message::codec::{Json, decoding};
use crate::message::{HandlerError, Message, Received};
use crate::runtime::TracedBrokerExt;
use crate::runtime::consume::Retry;

crate::conformance::case::cases! { Runtime:
    runs_as_many_handlers_as_it_may []
        "Handlers run side by side up to the concurrency, and never more; every message is handled.";
    handles_each_key_in_order_across_retries [AtLeastOnce]
        "With order by key, messages of one key are handled one after the other, in order, even if some are retried.";
    does_not_let_a_failing_key_stop_the_others [AtLeastOnce]
        "While the messages of one key wait for a retry, those of other keys are handled.";
    retries_as_the_policy_says_then_buries [AtLeastOnce]
        "A message is attempted as often as the policy says, then dead-lettered with reason, attempts and trace; others are handled.";
    waits_between_attempts [AtLeastOnce]
        "The delay of the policy lies between two attempts, even if the broker keeps the message meanwhile.";
    cancels_a_handler_that_takes_too_long [AtLeastOnce]
        "A handler that exceeds the time limit is cancelled, and its message is redelivered.";
    drains_without_losing_or_repeating [AtLeastOnce]
        "A consumer that is told to stop finishes the messages it has begun; the next one gets the rest, and none that was handled.";
    gives_back_what_does_not_end_in_time [AtLeastOnce]
        "A message whose handler is cut off by the end of the drain is redelivered.";
    stops_while_messages_fail [AtLeastOnce]
        "A consumer can be stopped in the middle of retries; the messages are redelivered, and none is dead-lettered.";
    buries_what_cannot_be_decoded [AtLeastOnce]
        "A payload that cannot be decoded is dead-lettered at the first attempt, with the reason.";
    counts_failures_at_most_once []
        "A failing handler of an at-most-once subscription does no harm: the failure is counted, and the next message is delivered.";
}

async fn publish(
    case: &CaseContext,
    broker: &impl TracedBroker,
    messages: impl IntoIterator<Item = Message>,
) -> Checked {
    for result in broker.publish_batch(&case.topic, messages.into_iter().collect()).await {
        case.check_receipt(&result?)?;
    }
    Ok(())
}

fn numbered(count: usize) -> impl Iterator<Item = Message> {
    (0..count).map(|number| Message::new(number.to_string()))
}

async fn runs_as_many_handlers_as_it_may(case: &CaseContext) -> Checked {
    let (broker, journal) = (case.broker().await?, Journal::default());
    let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let handler = async |message: Received| {
        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        sleep(Duration::from_millis(20)).await;
        running.fetch_sub(1, Ordering::SeqCst);
        journal.write(text(message.payload()));
        Ok::<_, HandlerError>(())
    };
    let consumer = broker.consume(case.group("g"), handler).concurrency(8).subscribed().await?;
    publish(case, &broker, numbered(80)).await?;
    let report = consumer.run_until(journal.has(case, 80)).await?;
    check_eq!(journal.set(), up_to(80), "what was handled");
    check_eq!((report.handled, report.unsettled, report.abandoned), (80, 0, 0), "what the report says: {report}");
    check_eq!(most.load(Ordering::SeqCst), 8, "the most handlers at a time");
    Ok(())
}

async fn handles_each_key_in_order_across_retries(case: &CaseContext) -> Checked {
    const KEYS: usize = 16;
    let (broker, journal) = (case.broker().await?, Journal::default());
    let handler = async |message: Received| {
        let number: usize = text(message.payload()).parse()?;
        if number.is_multiple_of(9) {
            sleep(Duration::from_millis(3)).await;
        }
        if number.is_multiple_of(40) && message.attempt() < 3 {
            return Err(HandlerError::retry("again"));
        }
        journal.write(number.to_string());
        Ok(())
    };
    let consume = broker.consume(case.group("g"), handler).concurrency(32).ordered_by_key();
    let consumer = consume.retry(Retry::fixed(5, Duration::from_millis(5))).subscribed().await?;
    let keyed = (0..400).map(|number| Message::new(number.to_string()).key(format!("key-{}", number % KEYS)));
    publish(case, &broker, keyed).await?;
    let report = consumer.run_until(journal.has(case, 400)).await?;
    check_eq!((report.handled, report.retried), (400, 20), "what the report says: {report}");
    let mut last: HashMap<usize, usize> = HashMap::new();
    for line in journal.lines() {
        let number: usize = line.parse().map_err(|_| Failure::new(format!("a number was written: {line}")))?;
        let before = last.insert(number % KEYS, number);
        // The broker promises no order across publishers, but these messages are from one
        // publisher.
        check!(before.is_none_or(|before| before + KEYS == number), "{number} comes right after {before:?} in its key");
    }
    Ok(())
}

async fn does_not_let_a_failing_key_stop_the_others(case: &CaseContext) -> Checked {
    let (broker, journal) = (case.broker().await?, Journal::default());
    let handler = async |message: Received| {
        if text(message.payload()) == "bad" {
            return Err(HandlerError::retry("down"));
        }
        journal.write(text(message.payload()));
        Ok(())
    };
    let retry = Retry::fixed(9, Duration::from_secs(3600));
    let consume = broker.consume(case.group("g"), handler).concurrency(2).ordered_by_key().retry(retry);
    let consumer = consume.subscribed().await?;
    let failing = (0..10).map(|number| Message::new("bad").key(format!("failing-{number}")));
    publish(case, &broker, failing.chain(numbered(10).map(|message| message.key("fine")))).await?;
    let report = consumer.run_until(journal.has(case, 10)).await?;
    check_eq!(journal.lines(), numbers(10), "what was handled");
    check_eq!(report.rejected, 0, "what was given up: {report}");
    Ok(())
}

async fn retries_as_the_policy_says_then_buries(case: &CaseContext) -> Checked {
    let (broker, journal) = (case.broker().await?, Journal::default());
    let dead_topic = case.topic("dead");
    let mut dead = broker.subscribe(case.group_on(&dead_topic, "desk")).await?;
    let handler = async |message: Received| {
        journal.write(format!("{} {}", text(message.payload()), message.attempt()));
        if text(message.payload()) == "bad" { Err(HandlerError::retry("no stock")) } else { Ok(()) }
    };
    let consume = broker.consume(case.group("g"), handler).dead_letter(&dead_topic);
    let consumer = consume.retry(Retry::fixed(3, Duration::from_millis(50))).subscribed().await?;
    let root = case.root("order");
    publish(case, &broker, [Message::new("bad").context(root.clone()), Message::new("good")]).await?;
    let mut letter = Ok(None);
    let report = consumer.run_until(async { letter = case.next(&mut dead).await.map(Some) }).await?;
    let Some(letter) = letter? else { return Ok(()) };
    let bad: Vec<String> = journal.lines().into_iter().filter(|line| line.starts_with("bad")).collect();
    check_eq!(bad, ["bad 1", "bad 2", "bad 3"], "the attempts");
    check_eq!((report.handled, report.retried, report.rejected), (1, 2, 1), "what the report says: {report}");

    let header = |name| letter.message().headers().get_str(name).unwrap_or("none").to_owned();
    check_eq!(header(header::DEAD_LETTER_REASON), "given up after 3 attempts: no stock", "the reason");
    check_eq!(header(header::DEAD_LETTER_ATTEMPTS), "3", "the attempts of the dead letter");
    check_eq!(header(header::DEAD_LETTER_TOPIC), case.topic, "where it came from");
    letter.ack().await?;
    case.nothing_comes(&mut dead).await?;
    let trace = root.span().span_context().trace_id();
    let attempts = case.spans.named(&case.process_name());
    let ours = attempts.iter().filter(|span| span.span_context.trace_id() == trace).count();
    check_eq!(ours, 3, "the attempts in the trace of the order");
    let buried = case.spans.one(&format!("send {dead_topic}"))?;
    check_eq!(buried.span_context.trace_id(), trace, "the trace of the dead letter");
    Ok(())
}

async fn waits_between_attempts(case: &CaseContext) -> Checked {
    let delay = Duration::from_millis(1500);
    let (broker, journal) = (case.broker().await?, Journal::default());
    // Recorded by the handler, because on a busy machine other tasks notice an attempt much later.
    let attempts: Mutex<Vec<Instant>> = Mutex::default();
    let handler = async |message: Received| {
        let is_late = text(message.payload()) == "late";
        if is_late {
            attempts.lock().push(Instant::now());
        }
        journal.write(text(message.payload()));
        if is_late && message.attempt() == 1 { Err(HandlerError::retry("later")) } else { Ok(()) }
    };
    let retry = Retry::fixed(3, delay).jitter(0.0);
    let consumer = broker.consume(case.group("g"), handler).retry(retry).subscribed().await?;
    publish(case, &broker, [Message::new("late")]).await?;
    let began = async {
        journal.has(case, 1).await;
        publish(case, &broker, [Message::new("other")]).await?;
        journal.has(case, 3).await;
        Checked::Ok(())
    };
    let mut published = Ok(());
    let report = consumer.run_until(async { published = began.await }).await?;
    published?;
    check_eq!(journal.lines(), ["late", "other", "late"], "what was handled");
    // Broker clocks are coarse; a delay is never shorter by more than this.
    let attempts = attempts.into_inner();
    let waited = attempts.last().zip(attempts.first()).map(|(last, first)| *last - *first).unwrap_or_default();
    check!(
        waited + Duration::from_millis(20) >= delay,
        "the second attempt comes after {delay:?}, not after {waited:?}"
    );
    check_eq!((report.handled, report.retried), (2, 1), "what the report says: {report}");
    Ok(())
}

async fn cancels_a_handler_that_takes_too_long(case: &CaseContext) -> Checked {
    let (broker, journal) = (case.broker().await?, Journal::default());
    let handler = async |message: Received| {
        if message.attempt() == 1 {
            sleep(Duration::from_secs(3600)).await;
        }
        journal.write(message.attempt().to_string());
        Ok::<_, HandlerError>(())
    };
    let consume = broker.consume(case.group("g"), handler).time_limit(Duration::from_millis(100));
    let consumer = consume.retry(Retry::immediate(3)).subscribed().await?;
    publish(case, &broker, [Message::new("slow")]).await?;
    let report = consumer.run_until(journal.has(case, 1)).await?;
    check_eq!((journal.lines(), report.retried), (vec!["2".to_owned()], 1), "the attempts: {report}");
    Ok(())
}

async fn drains_without_losing_or_repeating(case: &CaseContext) -> Checked {
    let (broker, journal) = (case.broker().await?, Journal::default());
    let handler = async |message: Received| {
        sleep(Duration::from_millis(10)).await;
        journal.write(text(message.payload()));
        Ok::<_, HandlerError>(())
    };
    let consumer = broker.consume(case.group("g"), handler).concurrency(4).subscribed().await?;
    publish(case, &broker, numbered(60)).await?;
    let report = consumer.run_until(journal.has(case, 20)).await?;
    let first: BTreeSet<String> = journal.set();
    check_eq!((report.handled as usize, report.unsettled), (first.len(), 0), "what the report says: {report}");
    check!(first.len() < 60, "the rest is left: the consumer was told to stop in the middle");
    broker.close().await?;

    let (broker, next) = (case.broker().await?, Journal::default());
    let handler = async |message: Received| {
        next.write(text(message.payload()));
        Ok::<_, HandlerError>(())
    };
    let rest = 60 - first.len();
    broker.consume(case.group("g"), handler).concurrency(4).run_until(next.has(case, rest)).await?;
    let all: BTreeSet<String> = first.union(&next.set()).cloned().collect();
    check_eq!(all, up_to(60), "what both handled");
    let again: Vec<&String> = first.iter().filter(|line| next.lines().contains(line)).collect();
    check_eq!(again, Vec::<&String>::new(), "what was handled and came again");
    Ok(())
}

async fn gives_back_what_does_not_end_in_time(case: &CaseContext) -> Checked {
    let (broker, journal) = (case.broker().await?, Journal::default());
    let endless = async |_: Received| {
        journal.write("begun");
        sleep(Duration::from_secs(3600)).await;
        Ok::<_, HandlerError>(())
    };
    let consume = broker.consume(case.group("g"), endless).drain_time(Duration::from_millis(100));
    let consumer = consume.subscribed().await?;
    publish(case, &broker, [Message::new("cut off")]).await?;
    let report = consumer.run_until(journal.has(case, 1)).await?;
    check_eq!((report.handled, report.abandoned), (0, 1), "what the report says: {report}");
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    check_eq!(case.drain(&mut deliveries, 1).await?, ["cut off"], "the redelivered messages");
    Ok(())
}

async fn stops_while_messages_fail(case: &CaseContext) -> Checked {
    let (broker, journal) = (case.broker().await?, Journal::default());
    let dead_topic = case.topic("dead");
    let mut dead = broker.subscribe(case.group_on(&dead_topic, "desk")).await?;
    let failing = async |message: Received| {
        journal.write(text(message.payload()));
        sleep(Duration::from_millis(5)).await;
        Err::<(), _>(HandlerError::retry("down"))
    };
    let retry = Retry::fixed(1000, Duration::from_millis(300));
    let consume = broker.consume(case.group("g"), failing).concurrency(4).retry(retry).dead_letter(&dead_topic);
    let consumer = consume.subscribed().await?;
    publish(case, &broker, numbered(20)).await?;
    let report = consumer.run_until(journal.has(case, 30)).await?;
    check_eq!((report.handled, report.rejected), (0, 0), "what the report says: {report}");

    let mended = Journal::default();
    let handler = async |message: Received| {
        mended.write(text(message.payload()));
        Ok::<_, HandlerError>(())
    };
    let all = mended.reaches(case, |lines| lines.iter().collect::<BTreeSet<_>>().len() >= 20);
    broker.consume(case.group("g"), handler).concurrency(4).run_until(all).await?;
    check_eq!(mended.set(), up_to(20), "the messages redelivered after the stop");
    case.nothing_comes(&mut dead).await
}

async fn buries_what_cannot_be_decoded(case: &CaseContext) -> Checked {
    let (broker, journal) = (case.broker().await?, Journal::default());
    let dead_topic = case.topic("dead");
    let mut dead = broker.subscribe(case.group_on(&dead_topic, "desk")).await?;
    let handler = async |number: u32, _: Received| {
        journal.write(number.to_string());
        Ok::<_, HandlerError>(())
    };
    let consume = broker.consume(case.group("g"), decoding(Json, handler)).dead_letter(&dead_topic);
    let consumer = consume.subscribed().await?;
    let of_other_type = Message::new("2").header("content-type", "text/csv");
    publish(case, &broker, [Message::json(&1)?, of_other_type, Message::new("three"), Message::json(&4)?]).await?;
    let mut letters = Vec::new();
    let burials = async {
        while letters.len() < 2 {
            letters.push(case.next(&mut dead).await?);
        }
        journal.has(case, 2).await;
        Checked::Ok(())
    };
    let mut buried = Ok(());
    let report = consumer.run_until(async { buried = burials.await }).await?;
    buried?;
    check_eq!(
        (journal.lines(), report.rejected),
        (vec!["1".to_owned(), "4".to_owned()], 2),
        "what was handled: {report}"
    );
    for letter in letters {
        let header = |name| letter.message().headers().get_str(name).unwrap_or("none").to_owned();
        check_eq!(header(header::DEAD_LETTER_ERROR_TYPE), "invalid_message", "the type of error");
        check_eq!(header(header::DEAD_LETTER_ATTEMPTS), "1", "the attempts");
        letter.ack().await?;
    }
    Ok(())
}

async fn counts_failures_at_most_once(case: &CaseContext) -> Checked {
    let (broker, journal) = (case.broker().await?, Journal::default());
    let handler = async |message: Received| {
        journal.write(text(message.payload()));
        if text(message.payload()) == "bad" { Err(HandlerError::retry("bad")) } else { Ok(()) }
    };
    let consumer = broker.consume(case.group("g").at_most_once(), handler).subscribed().await?;
    publish(case, &broker, [Message::new("bad"), Message::new("good")]).await?;
    let report = consumer.run_until(journal.has(case, 2)).await?;
    if case.capabilities.order == Order::Stream {
        check_eq!(journal.lines(), ["bad", "good"], "what came, in order");
    }
    check_eq!(journal.lines().len(), 2, "how often handlers were run");
    check_eq!((report.handled, report.failed, report.retried), (1, 1, 0), "what the report says: {report}");
    Ok(())
}
