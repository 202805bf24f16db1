//! What became of every order, written down as it happens.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use opentelemetry::trace::SpanContext;
use parking_lot::Mutex;
use tokio::sync::watch;
use traced_broker::verify::{SpanId, TraceId};

use crate::books::Books;

/// Of more troubles than this only the number is kept.
const MAX_TROUBLES: usize = 20;

/// One account per order, for as long as the run lasts, and the [`Tally`] of all.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    accounts: Mutex<HashMap<Arc<str>, Account>>,
    tally: watch::Sender<Tally>,
    callers: Mutex<BTreeSet<TraceId>>,
    troubles: Mutex<Vec<String>>,
}

/// How many orders have come how far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) accepted: usize,
    /// Not valid, or there already.
    pub(crate) refused: usize,
    /// Valid, but not taken, or posted without an answer.
    pub(crate) failed: usize,
    pub(crate) fulfilled: usize,
    pub(crate) notified: usize,
    /// Fulfilled or dead-lettered after more than one attempt.
    pub(crate) retried: usize,
    pub(crate) dead_lettered: usize,
    /// Accepted, and at the end of its way.
    pub(crate) settled: usize,
    /// Messages of other runs that were passed over.
    pub(crate) leftovers: usize,
    pub(crate) troubles: usize,
}

/// What is known of one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    /// The trace of the request it came with.
    pub(crate) trace_id: TraceId,
    /// The server span of that request.
    pub(crate) span_id: SpanId,
    /// Whether its spans are exported at all: a caller may decide against it.
    pub(crate) sampled: bool,
    /// The broker has confirmed it.
    pub(crate) accepted: bool,
    pub(crate) attempts: u32,
    pub(crate) fulfilled: bool,
    pub(crate) notified: bool,
    pub(crate) dead_lettered: bool,
}

impl Account {
    /// Whether an accepted order got to one of the two ends there are.
    pub(crate) fn is_settled(&self) -> bool {
        self.fulfilled && self.notified || self.dead_lettered
    }

    /// That of an order that is in the books of another process.
    fn of_elsewhere() -> Self {
        let (trace_id, span_id) = (TraceId::new(0), SpanId::new(0));
        Self { accepted: true, ..Self::new(trace_id, span_id, false) }
    }

    fn new(trace_id: TraceId, span_id: SpanId, sampled: bool) -> Self {
        Self {
            trace_id,
            span_id,
            sampled,
            accepted: false,
            attempts: 0,
            fulfilled: false,
            notified: false,
            dead_lettered: false,
        }
    }
}

impl Ledger {
    /// Opens an account for an order that arrived within this span, unless there is one: `false` for the same order
    /// again.
    pub(crate) fn open(&self, order: &str, span: &SpanContext) -> bool {
        let mut accounts = self.accounts.lock();
        if accounts.contains_key(order) {
            return false;
        }
        let span_id = SpanId::new(u64::from_be_bytes(span.span_id().to_bytes()));
        let account = Account::new(trace_id(span), span_id, span.is_sampled());
        accounts.insert(order.into(), account);
        true
    }

    /// Takes back an account whose order certainly went nowhere.
    pub(crate) fn withdraw(&self, order: &str) {
        self.accounts.lock().remove(order);
    }

    pub(crate) fn accepted(&self, order: &str) {
        self.update(order, |account| account.accepted = true);
    }

    pub(crate) fn attempted(&self, order: &str, attempt: u32) {
        self.update(order, |account| account.attempts = account.attempts.max(attempt));
    }

    pub(crate) fn fulfilled(&self, order: &str) {
        self.update(order, |account| account.fulfilled = true);
    }

    pub(crate) fn notified(&self, order: &str) {
        self.update(order, |account| account.notified = true);
    }

    pub(crate) fn dead_lettered(&self, order: &str) {
        self.update(order, |account| account.dead_lettered = true);
    }

    /// Keeps the trace of a caller that sent its context along, and whose own spans are not among ours.
    pub(crate) fn called_within(&self, caller: &SpanContext) {
        self.callers.lock().insert(trace_id(caller));
    }

    /// Counts what has no account.
    pub(crate) fn count(&self, what: impl FnOnce(&mut Tally) -> &mut usize) {
        self.tally.send_modify(|tally| *what(tally) += 1);
    }

    /// Counts messages of other runs.
    pub(crate) fn passed_over(&self, messages: u64) {
        let messages = usize::try_from(messages).unwrap_or(usize::MAX);
        self.tally.send_modify(|tally| tally.leftovers += messages);
    }

    /// Keeps something that went wrong beside the orders, to be told at the end.
    pub(crate) fn trouble(&self, what: impl fmt::Display) {
        let mut troubles = self.troubles.lock();
        if troubles.len() < MAX_TROUBLES {
            troubles.push(what.to_string());
        }
        self.count(|tally| &mut tally.troubles);
    }

    /// The tally, as it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Tally> {
        self.tally.subscribe()
    }

    /// All of it, as it stands.
    pub(crate) fn books(&self) -> Books {
        let accounts = self.accounts.lock().iter().map(|(id, account)| (Arc::clone(id), *account)).collect();
        let (callers, troubles) = (self.callers.lock().clone(), self.troubles.lock().clone());
        Books { tally: *self.tally.borrow(), accounts, callers, troubles }
    }

    /// A message may come twice, and an answer before the confirm it answers: only the difference to before counts.
    ///
    /// Of orders that another process accepted only the tally is kept.
    fn update(&self, order: &str, change: impl FnOnce(&mut Account)) {
        let mut accounts = self.accounts.lock();
        let mut elsewhere = Account::of_elsewhere();
        let account = accounts.get_mut(order).unwrap_or(&mut elsewhere);
        let before = *account;
        change(account);
        let after = *account;
        // Under the lock, so that the tally never lags behind the accounts.
        self.tally.send_if_modified(|tally| tally.replace(&before, &after));
    }
}

impl Tally {
    /// Orders that were posted and answered.
    pub(crate) fn answered(&self) -> usize {
        self.accepted + self.refused + self.failed
    }

    /// Whether every accepted order has got to an end.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled == self.accepted
    }

    fn replace(&mut self, before: &Account, after: &Account) -> bool {
        let count = |number: &mut usize, is_so: fn(&Account) -> bool| {
            let counts = |account: &Account| usize::from(account.accepted && is_so(account));
            *number = *number + counts(after) - counts(before);
        };
        count(&mut self.accepted, |_| true);
        count(&mut self.fulfilled, |account| account.fulfilled);
        count(&mut self.notified, |account| account.notified);
        count(&mut self.retried, |account| account.attempts > 1);
        count(&mut self.dead_lettered, |account| account.dead_lettered);
        count(&mut self.settled, Account::is_settled);
        before != after
    }
}

fn trace_id(span: &SpanContext) -> TraceId {
    TraceId::new(u128::from_be_bytes(span.trace_id().to_bytes()))
}
