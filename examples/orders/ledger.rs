//! The state of every order, written down as it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use opentelemetry::trace::SpanContext;
use tokio::sync::watch;
use traced_broker::verify::{SpanId, SpanRef, TraceId};

/// The books of one run, shared by its services. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(Arc<watch::Sender<Books>>);

/// One account per order, and the counts of requests and messages that belong to no account.
#[derive(Debug, Clone, Default)]
pub(crate) struct Books {
    pub(crate) accounts: BTreeMap<String, Account>,
    /// Requests that were invalid, or repeated an order.
    pub(crate) refused: usize,
    /// Valid requests that were not accepted, and requests without an answer.
    pub(crate) failed: usize,
    /// Messages of other runs.
    pub(crate) leftovers: u64,
    /// Traces that began in a client, whose spans are not exported here.
    pub(crate) callers: BTreeSet<TraceId>,
    pub(crate) troubles: Vec<String>,
}

/// The state of one order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Account {
    /// The server span of its request; `None` if it was not sampled, or belongs to another process.
    pub(crate) request: Option<SpanRef>,
    /// `true` once the broker has confirmed the order.
    pub(crate) accepted: bool,
    pub(crate) attempts: u32,
    pub(crate) fulfilled: bool,
    pub(crate) notified: bool,
    pub(crate) dead_lettered: bool,
}

impl Account {
    /// Returns `true` if the order was accepted, and neither delivered nor dead-lettered.
    pub(crate) fn is_open(&self) -> bool {
        self.accepted && !self.dead_lettered && !(self.fulfilled && self.notified)
    }
}

impl Ledger {
    /// Opens an account for the order of a request; returns `false` if there is one already.
    pub(crate) fn open(&self, order: &str, request: &SpanContext) -> bool {
        let span_id = SpanId::new(u64::from_be_bytes(request.span_id().to_bytes()));
        let request = request.is_sampled().then(|| SpanRef { trace_id: trace_id(request), span_id });
        self.0.send_if_modified(|books| {
            let is_new = !books.accounts.contains_key(order);
            if is_new {
                books.accounts.insert(order.to_owned(), Account { request, ..Account::default() });
            }
            is_new
        })
    }

    /// Changes the account of an order. An order that another process accepted gets one here.
    pub(crate) fn note(&self, order: &str, change: impl FnOnce(&mut Account)) {
        self.update(|books| change(books.accounts.entry(order.to_owned()).or_default()));
    }

    /// Changes the books.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Books)) {
        self.0.send_modify(change);
    }

    /// Keeps an error that belongs to no order, to be shown at the end.
    pub(crate) fn trouble(&self, what: impl fmt::Display) {
        self.update(|books| books.troubles.push(what.to_string()));
    }

    /// Returns a receiver that sees every change.
    pub(crate) fn watch(&self) -> watch::Receiver<Books> {
        self.0.subscribe()
    }

    /// Returns a copy of the current books.
    pub(crate) fn books(&self) -> Books {
        self.0.borrow().clone()
    }
}

impl Books {
    /// Counts the accounts with this property.
    pub(crate) fn count(&self, property: impl Fn(&Account) -> bool) -> usize {
        self.accounts.values().filter(|account| property(account)).count()
    }

    /// Lists the accepted orders that are open, with their state.
    pub(crate) fn unaccounted(&self) -> Vec<String> {
        let open = self.accounts.iter().filter(|(_, account)| account.is_open());
        open.map(|(id, account)| match account {
            Account { fulfilled: true, .. } => format!("order {id}: fulfilled, but its customer was not notified"),
            Account { attempts: 0, .. } => format!("order {id}: accepted, but never fulfilled"),
            _ => format!("order {id}: tried, but neither fulfilled nor dead-lettered"),
        })
        .collect()
    }
}

/// Returns the trace of a span, in the type of the verification.
pub(crate) fn trace_id(span: &SpanContext) -> TraceId {
    TraceId::new(u128::from_be_bytes(span.trace_id().to_bytes()))
}
