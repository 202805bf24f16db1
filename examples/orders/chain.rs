//! The trace an order must leave behind, span by span.

use traced_broker::verify::{Kind, Span, Trace};

use crate::api::ROUTE;
use crate::ledger::Account;

/// What is missing or wrong in the trace of an accepted order; empty when it is as it must be.
///
/// The rules that hold for any trace are [`verify::check`](traced_broker::verify::check)'s; these are the ones of this system:
///
/// ```text
/// POST /orders                 the root, unless a caller sent its context along
/// └ send orders
///   ├ process orders             once for each attempt
///   └ process orders
///     └ send notifications
///       └ process notifications
/// ```
pub(crate) fn check(trace: &Trace, account: &Account, called: bool) -> Vec<String> {
    let mut chain = Chain { trace, problems: Vec::new() };
    chain.follow(account, called);
    chain.problems
}

struct Chain<'a> {
    trace: &'a Trace,
    problems: Vec<String>,
}

impl<'a> Chain<'a> {
    fn follow(&mut self, account: &Account, called: bool) -> Option<()> {
        let server = self.trace.span(account.span_id).filter(|span| span.kind == Kind::Server);
        self.require(server.is_some(), "no server span of its request");
        let server = server?;
        self.require(server.name == format!("POST {ROUTE}"), "the server span has another name");
        self.require(server.parent.is_none() || called, "the server span is not the root");
        let mut sends = self.named("send orders", Kind::Producer);
        sends.retain(|send| send.parent == Some(server.span_id));
        self.require(sends.len() == 1, &format!("{} spans `send orders` inside the server span, not 1", sends.len()));
        let send = *sends.first()?;

        let attempts = self.deliveries("process orders", send);
        let (seen, made) = (attempts.len(), account.attempts as usize);
        self.require(
            seen >= made.max(1),
            &format!("{made} attempts, but {seen} spans `process orders` that continue `send orders`"),
        );
        if account.fulfilled {
            self.announced(&attempts);
        }
        if account.dead_lettered {
            self.buried(send, &attempts);
        }
        Some(())
    }

    /// The customer was told by the attempt that succeeded.
    fn announced(&mut self, attempts: &[&Span]) -> Option<()> {
        let sends = self.named("send notifications", Kind::Producer);
        let from_attempt = |send: &&Span| attempts.iter().any(|attempt| send.parent == Some(attempt.span_id));
        let send = sends.into_iter().find(from_attempt);
        self.require(send.is_some(), "no `send notifications` inside `process orders`");
        let deliveries = self.deliveries("process notifications", send?);
        self.require(!deliveries.is_empty(), "no `process notifications` that continues `send notifications`");
        Some(())
    }

    /// The dead letter was sent by an attempt, and read with the context that the order was sent with.
    fn buried(&mut self, send: &Span, attempts: &[&Span]) {
        let dead = self.named("send orders.dead", Kind::Client);
        let from_attempt = |dead: &&Span| attempts.iter().any(|attempt| dead.parent == Some(attempt.span_id));
        let links = |dead: &&Span| dead.links.iter().any(|link| link.target == send.reference());
        let sent = dead.into_iter().filter(from_attempt).any(|dead| links(&dead));
        self.require(sent, "no `send orders.dead` inside `process orders` that links `send orders`");
        let deliveries = self.deliveries("process orders.dead", send);
        self.require(!deliveries.is_empty(), "no `process orders.dead` that continues `send orders`");
    }

    /// The process spans of this name that are child of what was sent, and linked to it.
    fn deliveries(&self, name: &str, send: &Span) -> Vec<&'a Span> {
        let mut spans = self.named(name, Kind::Consumer);
        spans.retain(|span| {
            let linked = span.links.iter().any(|link| link.target == send.reference());
            span.parent == Some(send.span_id) && linked
        });
        spans
    }

    fn named(&self, name: &str, kind: Kind) -> Vec<&'a Span> {
        self.trace.spans().iter().filter(|span| span.name == name && span.kind == kind).collect()
    }

    fn require(&mut self, holds: bool, problem: &str) {
        if !holds {
            self.problems.push(problem.to_owned());
        }
    }
}
