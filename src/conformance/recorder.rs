//! A record of all publish attempts and deliveries while a broker is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use parking_lot::Mutex;

use super::case_context::text;
use super::failure::{Checked, Failure, check, check_eq};
use crate::broker::Delivery;
use crate::error::{Error, PublishOutcome};
use crate::message::Message;

/// The header that repeats the payload, to detect mixed-up messages.
const COPY: &str = "x-copy-of-payload";

/// Publish attempts, each identified by its unique payload.
#[derive(Default)]
pub(super) struct Recorder {
    confirmed: Mutex<BTreeSet<String>>,
    unknown: Mutex<BTreeSet<String>>,
    not_sent: Mutex<BTreeSet<String>>,
    delivered: Mutex<BTreeMap<String, usize>>,
    settled: AtomicUsize,
    /// Violations, in the order of their detection.
    violations: Mutex<Vec<Failure>>,
    trouble: Mutex<String>,
}

impl Recorder {
    /// Creates an attempt at publishing a numbered message: its payload, and the message with its
    /// own context.
    pub(super) fn attempt(number: usize, attempt: usize) -> (String, Message) {
        let payload = format!("{number}/{attempt}");
        let message = Message::new(payload.clone())
            .key(number.to_string())
            .header(COPY, &payload)
            .context(Context::new().with_remote_span_context(context_of(number)));
        (payload, message)
    }

    pub(super) fn confirmed(&self, payload: String) {
        self.confirmed.lock().insert(payload);
    }

    pub(super) fn failed(&self, payload: String, error: &Error) {
        let set = match error.publish_outcome() {
            PublishOutcome::NotSent => &self.not_sent,
            PublishOutcome::Unknown | PublishOutcome::Confirmed => &self.unknown,
        };
        set.lock().insert(payload);
        self.trouble(error);
    }

    pub(super) fn trouble(&self, error: &Error) {
        *self.trouble.lock() = format!("{error:?}");
    }

    pub(super) fn delivered(&self, delivery: &Delivery) {
        let payload = text(delivery.message().payload());
        if let Err(failure) = check_intact(delivery, &payload) {
            self.violations.lock().push(failure);
        }
        *self.delivered.lock().entry(payload).or_default() += 1;
    }

    pub(super) fn settled(&self) {
        self.settled.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn confirmed_count(&self) -> usize {
        self.confirmed.lock().len()
    }

    /// Returns the number of confirmed messages that were delivered.
    pub(super) fn arrived_count(&self) -> usize {
        let delivered = self.delivered.lock();
        self.confirmed.lock().iter().filter(|payload| delivered.contains_key(*payload)).count()
    }

    /// Checks that every confirmed message was delivered, that no message appears that was not sent
    /// or never published, and that each arrived as it was sent.
    pub(super) fn check(&self, messages: usize) -> Checked {
        if let Some(violation) = self.violations.lock().first() {
            return Err(violation.clone());
        }
        let (confirmed, unknown, not_sent) = (self.confirmed.lock(), self.unknown.lock(), self.not_sent.lock());
        let delivered = self.delivered.lock();
        check_eq!(confirmed.len(), messages, "the number of confirmed messages");
        if let Some(missing) = missing(&confirmed, &delivered) {
            return Err(missing.followed_by(&format!("; {}", self.summary())));
        }
        for payload in delivered.keys() {
            check!(!not_sent.contains(payload), "{payload} was certainly not sent and is not delivered");
            check!(confirmed.contains(payload) || unknown.contains(payload), "{payload} was published");
        }
        check!(self.settled.load(Ordering::Relaxed) > 0, "settlements succeed");
        Ok(())
    }

    /// Returns the failure of a run in which confirmed messages were not delivered.
    pub(super) fn missing(&self) -> Option<Failure> {
        missing(&self.confirmed.lock(), &self.delivered.lock())
    }

    /// Returns the state of the run, for the text of a failure.
    pub(super) fn summary(&self) -> String {
        format!("settled {}, last trouble: {}", self.settled.load(Ordering::Relaxed), self.trouble.lock())
    }
}

fn missing(confirmed: &BTreeSet<String>, delivered: &BTreeMap<String, usize>) -> Option<Failure> {
    let missing: Vec<&String> = confirmed.iter().filter(|payload| !delivered.contains_key(*payload)).collect();
    let first = &missing[..missing.len().min(10)];
    let (lost, all) = (missing.len(), confirmed.len());
    (lost > 0).then(|| Failure::new(format!("confirmed messages are missing: {lost} of {all}, such as {first:?}")))
}

fn context_of(number: usize) -> SpanContext {
    let (trace, span) = (TraceId::from(number as u128 + 1), SpanId::from(number as u64 + 1));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default())
}

/// Checks that a message is what one attempt sent, including its context.
fn check_intact(delivery: &Delivery, payload: &str) -> Checked {
    let message = delivery.message();
    let number: usize = payload.split('/').next().and_then(|number| number.parse().ok()).unwrap_or(usize::MAX - 1);
    check_eq!(message.key().map(|key| text(key)), Some(number.to_string()), "the key of {payload}");
    check_eq!(message.headers().get_str(COPY), Some(payload), "the header of {payload}");
    let context = delivery.creation_context().span().span_context().trace_id();
    check_eq!(context, context_of(number).trace_id(), "the context of {payload}");
    Ok(())
}
