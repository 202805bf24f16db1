//! A hundred thousand messages, sixty-four at a time, some retried and some dead-lettered: no
//! handler sees the context of another message.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{TraceContextExt, TraceFlags};
use opentelemetry::{Context, KeyValue};
use parking_lot::Mutex;

use crate::broker::{Broker, TracedBroker};
use crate::conformance::case_context::{CaseContext, text};
use crate::conformance::counted::counted;
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::conformance::foreign::remote;
use crate::message::{HandlerError, Message, Received};
use crate::runtime::TracedBrokerExt;
use crate::runtime::consume::Retry;

crate::conformance::case::cases! { Stress:
    b17_none_of_a_hundred_thousand_sees_anothers_context [AtLeastOnce]
        "A hundred thousand messages, sixty-four at a time, with retries and dead letters: the context of each equals the copy in its payload, and every span that was started has ended.";
}

/// Number of handlers that run at a time.
const AT_A_TIME: usize = 64;
/// Number of publishes in flight at a time.
const IN_FLIGHT: usize = 256;

async fn b17_none_of_a_hundred_thousand_sees_anothers_context(case: &CaseContext) -> Checked {
    let (provider, counts) = counted();
    let broker = case.untraced().await?.with_tracer_provider(&provider);
    let dead = case.topic("dead");
    let seen = Arc::new(Seen::new(case.harness.many()));
    let subscription = case.group("g").prefetch(4 * AT_A_TIME).dead_letter(&dead);
    let live = Arc::clone(&seen);
    let consume = broker.consume(subscription, move |message: Received| work(Arc::clone(&live), message));
    let consume = consume.concurrency(AT_A_TIME).in_own_tasks().retry(Retry::immediate(3));
    let consumer = consume.subscribed().await?;
    let buried = Arc::clone(&seen);
    let desk =
        broker.consume(case.group_on(&dead, "desk"), move |message: Received| reject_all(Arc::clone(&buried), message));
    let desk = desk.concurrency(AT_A_TIME).in_own_tasks().subscribed().await?;

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let until =
        |mut stopped: tokio::sync::watch::Receiver<bool>| async move { stopped.wait_for(|stop| *stop).await.is_ok() };
    let consuming = tokio::spawn(consumer.run_until(until(stopped.clone())));
    let burying = tokio::spawn(desk.run_until(until(stopped)));
    let all = async {
        publish_all(case, &broker, seen.messages.len()).await?;
        seen.complete(case.harness.patience()).await
    };
    let outcome = all.await;
    let _ = stop.send(true);
    for ended in [consuming.await, burying.await] {
        ended.map_err(|error| Failure::new(format!("consuming does not panic: {error}")))??;
    }
    outcome?;
    broker.close().await?;
    if let Some(failure) = seen.failures.lock().first() {
        return Err(failure.clone());
    }
    check!(counts.started() >= seen.messages.len(), "spans were started: {counts:?}");
    check_eq!(counts.ended(), counts.started(), "how many spans ended, of those that were started");
    Ok(())
}

/// Returns the context of a message, which has its own trace. Every fourth is not sampled.
fn context_of(number: usize) -> Context {
    let flags = if number.is_multiple_of(4) { TraceFlags::default() } else { TraceFlags::SAMPLED };
    let context = remote(number as u128 + 1, number as u64 + 1, flags);
    context.with_baggage([KeyValue::new("number", number.to_string())])
}

/// Returns the payload, which is a copy of the context.
fn copy_of(number: usize) -> String {
    let flag = u8::from(!number.is_multiple_of(4));
    format!("{number}/{:032x}/{:016x}/{flag}", number + 1, number + 1)
}

/// Publishes every other message within its context, and forwards the rest, which already have a
/// context and are all sampled.
async fn publish_all(case: &CaseContext, broker: &Broker, count: usize) -> Checked {
    let publish = |number: usize| async move {
        let message = Message::new(copy_of(number)).key(number.to_string());
        let receipt = if number.is_multiple_of(2) {
            broker.publish(&case.topic, message.context(context_of(number))).await
        } else {
            let parent = format!("00-{:032x}-{:016x}-01", number + 1, number + 1);
            let message = message.header("traceparent", parent).header("baggage", format!("number={number}"));
            broker.forward(&case.topic, message).await
        };
        Checked::Ok(receipt?)
    };
    let mut publishing = futures_util::stream::iter(0..count).map(publish).buffer_unordered(IN_FLIGHT);
    while let Some(receipt) = publishing.next().await {
        receipt?;
    }
    Ok(())
}

/// Fails some messages at their first attempt, and rejects others.
async fn work(seen: Arc<Seen>, message: Received) -> Result<(), HandlerError> {
    tokio::task::yield_now().await;
    let number = seen.check(&message)?;
    match number % 100 {
        7 => Err(HandlerError::reject("never")),
        3 | 34 | 65 if message.attempt() == 1 => Err(HandlerError::retry("not yet")),
        _ => {
            seen.done(number);
            Ok(())
        }
    }
}

async fn reject_all(seen: Arc<Seen>, message: Received) -> Result<(), HandlerError> {
    let number = seen.check(&message)?;
    seen.done(number);
    Ok(())
}

/// The state of each message.
struct Seen {
    messages: Vec<AtomicU8>,
    left: AtomicUsize,
    failures: Mutex<Vec<Failure>>,
}

impl Seen {
    fn new(count: usize) -> Self {
        let messages = (0..count).map(|_| AtomicU8::new(0)).collect();
        Self { messages, left: AtomicUsize::new(count), failures: Mutex::default() }
    }

    /// Compares the current context of the handler with the copy in the payload.
    fn check(&self, message: &Received) -> Result<usize, HandlerError> {
        let payload = text(message.payload());
        let number: usize = payload.split('/').next().unwrap_or_default().parse()?;
        let checked = check_context(number, &payload, message);
        if let Err(failure) = checked {
            self.failures.lock().push(failure);
        }
        Ok(number)
    }

    fn done(&self, number: usize) {
        let first = self.messages.get(number).is_some_and(|message| message.swap(1, Ordering::Relaxed) == 0);
        if first {
            self.left.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Waits until all messages are handled or buried. Fails if there is no progress for
    /// `patience`.
    async fn complete(&self, patience: Duration) -> Checked {
        let mut last = (usize::MAX, Instant::now());
        loop {
            let left = self.left.load(Ordering::Relaxed);
            if left == 0 {
                return Ok(());
            }
            if left < last.0 {
                last = (left, Instant::now());
            }
            check!(last.1.elapsed() < patience, "messages keep arriving: {left} are missing for {patience:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn check_context(number: usize, payload: &str, message: &Received) -> Checked {
    let current = Context::current();
    let span = current.span().span_context().clone();
    let baggage = current.baggage().get("number").map(ToString::to_string);
    check_eq!(baggage, Some(number.to_string()), "the baggage of {payload}");
    let mut copy = payload.split('/').skip(1);
    let (trace, parent, flag) = (copy.next(), copy.next(), copy.next());
    check_eq!(Some(&*span.trace_id().to_string()), trace, "the trace of the handler of {payload}");
    check_eq!(Some(if span.is_sampled() { "1" } else { "0" }), flag, "the sampled flag of the handler of {payload}");
    let carried = message.headers().get_str("traceparent").unwrap_or_default();
    check_eq!(carried.get(3..35), trace, "the trace that {payload} carries");
    if !number.is_multiple_of(2) {
        check_eq!(carried.get(36..52), parent, "the span that {payload} carries");
    }
    Ok(())
}
