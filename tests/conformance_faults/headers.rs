//! Drivers over the embedded broker that damage trace headers, each in one way.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use traced_broker::names::header;

use async_trait::async_trait;
use parking_lot::Mutex;
use traced_broker::adapters::memory::Memory;
use traced_broker::driver::{Confirmer, Destination, Driver, Identity, Inbound, Outbound, Source};
use traced_broker::w3c::TraceParent;
use traced_broker::{Capabilities, Error, ErrorKind, Headers, Receipt, Result, Start, Subscription, Topic};

/// The fault of a driver in carrying contexts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// No fault: the wrapper itself changes no result.
    None,
    /// Drops the context of every hundredth message of a connection.
    DropsOneContextInAHundred,
    /// Changes a digit of the span id in every hundredth message of a connection, so that the
    /// parent is a span that is never exported.
    GarblesOneSpanIdInAHundred,
    /// Writes the context a second time, unchanged.
    DoublesContexts,
    /// Writes the context of a dead letter a second time.
    DoublesContextsOfDeadLetters,
    UpperCasesNames,
    /// Renames the header as some servers do, with an X in place of its first letter.
    RenamesContexts,
    ReversesTraceStates,
    StripsTraceStates,
    StripsBaggage,
    ForcesTheSampledFlag,
    /// Gives all messages of one key of a topic the context of the first.
    KeepsOneContextForAKey,
    /// Gives every three-hundredth message the context of the one before.
    MixesContextsUnderLoad,
    LosesContextsOnRedelivery,
    LosesContextsOfDeadLetters,
    LosesContextsOfDelayedMessages,
    /// Drops the headers that mark a message as delayed, scheduled or bridged.
    LosesHops,
    /// Drops the headers with the sender's policy for the context.
    LosesPolicies,
    /// Adds a made-up context to messages without one.
    MakesContextsUp,
    /// Removes invalid contexts from messages.
    CleansContexts,
    /// Drops messages with an invalid context.
    LosesMessagesWithGarbage,
    RefusesDoubledContexts,
    /// Reports that it stamps messages, and does not.
    ForgetsTheTime,
}

impl HeaderFault {
    /// Number of faults.
    pub(crate) const COUNT: usize = Self::ForgetsTheTime as usize + 1;
}

/// A topic and a key.
type Key = (String, Vec<u8>);

/// A connection to the faulty broker.
pub(crate) struct Spoiling {
    fault: HeaderFault,
    memory: Memory,
    published: AtomicUsize,
    last: Mutex<Vec<u8>>,
    /// The first context of each key of each topic.
    firsts: Mutex<HashMap<Key, Vec<u8>>>,
}

impl fmt::Debug for Spoiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Spoiling").field(&self.fault).finish()
    }
}

impl Spoiling {
    pub(crate) fn new(fault: HeaderFault, memory: Memory) -> Self {
        Self { fault, memory, published: AtomicUsize::new(0), last: Mutex::default(), firsts: Mutex::default() }
    }

    fn spoil(&self, topic: &Topic, message: &mut Outbound) {
        let number = self.published.fetch_add(1, Ordering::Relaxed);
        let parent = message.headers.get(header::TRACEPARENT).map(<[u8]>::to_vec);
        let is_hundredth = number % 100 == 99;
        let is_dead = message.headers.contains(header::DEAD_LETTER_TOPIC);
        let headers = &mut message.headers;
        match (self.fault, parent) {
            (HeaderFault::LosesHops, _) => drop(headers.remove(header::TRACE_HOP)),
            (HeaderFault::LosesPolicies, _) => drop(headers.remove(header::TRACE_POLICY)),
            (HeaderFault::StripsTraceStates, _) => drop(headers.remove(header::TRACESTATE)),
            (HeaderFault::StripsBaggage, _) => drop(headers.remove(header::BAGGAGE)),
            (HeaderFault::ReversesTraceStates, _) => reverse_states(headers),
            (HeaderFault::MakesContextsUp, None) => {
                headers.append(header::TRACEPARENT, "00-0000000000000000000000000000abcd-000000000000abcd-01");
            }
            (_, None) => {}
            (HeaderFault::DropsOneContextInAHundred, _) if is_hundredth => _ = headers.remove(header::TRACEPARENT),
            (HeaderFault::GarblesOneSpanIdInAHundred, Some(parent)) if is_hundredth => {
                replace(headers, parent, 51, b"0123456789abcdef");
            }
            (HeaderFault::ForcesTheSampledFlag, Some(parent)) => replace(headers, parent, 54, b"01"),
            (HeaderFault::DoublesContexts, Some(parent)) => headers.append(header::TRACEPARENT, parent),
            (HeaderFault::DoublesContextsOfDeadLetters, Some(parent)) if is_dead => {
                headers.append(header::TRACEPARENT, parent)
            }
            (HeaderFault::LosesContextsOfDeadLetters, _) if is_dead => _ = headers.remove(header::TRACEPARENT),
            (HeaderFault::LosesContextsOfDelayedMessages, _) if message.deliver_at.is_some() => {
                headers.remove(header::TRACEPARENT);
            }
            (HeaderFault::UpperCasesNames, _) => rename(headers, str::to_ascii_uppercase),
            (HeaderFault::RenamesContexts, _) => rename(headers, |name| format!("X{}", &name[1..])),
            (HeaderFault::CleansContexts, Some(parent)) if !is_valid(&parent) => {
                _ = headers.remove(header::TRACEPARENT)
            }
            (HeaderFault::MixesContextsUnderLoad, Some(parent)) => {
                let before = std::mem::replace(&mut *self.last.lock(), parent);
                if number % 300 == 299 {
                    headers.insert(header::TRACEPARENT, before);
                }
            }
            (HeaderFault::KeepsOneContextForAKey, Some(parent)) => {
                let key = message.key.clone().unwrap_or_default().to_vec();
                let mut firsts = self.firsts.lock();
                let first = firsts.entry((topic.to_string(), key)).or_insert(parent);
                headers.insert(header::TRACEPARENT, first);
            }
            _ => {}
        }
    }
}

fn is_valid(parent: &[u8]) -> bool {
    TraceParent::parse(parent).is_ok()
}

/// Replaces the digit at `place` of a valid context by the next of `digits`, cyclically.
fn replace(headers: &mut Headers, mut parent: Vec<u8>, place: usize, digits: &[u8]) {
    if is_valid(&parent) && parent.len() > place {
        let found = digits.iter().position(|digit| *digit == parent[place]).unwrap_or(0);
        parent[place] = if digits.len() == 2 { b'1' } else { digits[(found + 1) % digits.len()] };
        headers.insert(header::TRACEPARENT, parent);
    }
}

fn reverse_states(headers: &mut Headers) {
    if let Some(state) = headers.get_str(header::TRACESTATE) {
        let members: Vec<&str> = state.split(',').rev().collect();
        let reversed = members.join(",");
        headers.insert(header::TRACESTATE, reversed);
    }
}

fn rename(headers: &mut Headers, new_name: impl Fn(&str) -> String) {
    let renamed: Headers = Headers::new();
    let before = std::mem::replace(headers, renamed);
    for (name, value) in before.iter() {
        if name == header::TRACEPARENT {
            headers.append(&new_name(name), value);
        } else {
            headers.append(name, value);
        }
    }
}

#[async_trait]
impl Driver for Spoiling {
    fn identity(&self) -> &Identity {
        self.memory.identity()
    }

    fn capabilities(&self) -> &Capabilities {
        self.memory.capabilities()
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        self.memory.declare(topic).await
    }

    fn publish(&self, topic: &Topic, mut message: Outbound, confirmer: Confirmer<Receipt>) {
        let contexts: Vec<&[u8]> = message.headers.get_all(header::TRACEPARENT).collect();
        match self.fault {
            HeaderFault::RefusesDoubledContexts if contexts.len() > 1 => {
                return confirmer.confirm(Err(Error::new(ErrorKind::Rejected, "two contexts")));
            }
            HeaderFault::LosesMessagesWithGarbage if contexts.iter().any(|context| !is_valid(context)) => {
                return confirmer.confirm(Ok(Receipt::confirmed()));
            }
            _ => {}
        }
        self.spoil(topic, &mut message);
        self.memory.publish(topic, message, confirmer);
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        let fault = self.fault;
        let source = self.memory.subscribe(subscription).await?;
        Ok(source.map(move |inbound| tamper(fault, inbound)))
    }

    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()> {
        self.memory.reposition(subscription, start).await
    }

    async fn ping(&self) -> Result<()> {
        self.memory.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.memory.close().await
    }
}

fn tamper(fault: HeaderFault, mut inbound: Inbound) -> Inbound {
    match fault {
        HeaderFault::LosesContextsOnRedelivery if inbound.attempt > 1 => {
            _ = inbound.headers.remove(header::TRACEPARENT)
        }
        HeaderFault::ForgetsTheTime => inbound.timestamp = None,
        _ => {}
    }
    inbound
}
