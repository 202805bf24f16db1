//! The messages of a run, each made from the seed, its producer and its number, and the comparison
//! with a received one.
//!
//! A receiver makes the message again instead of trusting what arrived. The payload also carries
//! its own copy of the trace context, so that a context that belongs to another message is noticed
//! even if all else is right.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use fastrand::Rng;
use opentelemetry::Context;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use traced_broker::{Headers, Message, w3c};

/// The number of keys that all producers share.
const KEYS: u64 = 64;
/// The header of an application, beside those of the context.
const HEADER: &str = "chaos-note";
/// The largest payload, except for one message in [`LARGE_ONE_IN`].
const SMALL: usize = 1_500;
const LARGE_ONE_IN: u32 = 500;
const LARGE: std::ops::Range<usize> = 100_000..200_000;

/// The identity of a message: its producer, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Id(pub(crate) u32, pub(crate) u32);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// A trace context in its three headers; absent ones are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trace {
    pub(crate) traceparent: String,
    pub(crate) tracestate: String,
    pub(crate) baggage: String,
}

impl Trace {
    /// Writes the headers of a context.
    pub(crate) fn of(context: &Context) -> Self {
        let mut trace = Self::default();
        w3c::encode_context(context, |name, value| {
            let text = String::from_utf8_lossy(value).into_owned();
            match name {
                "traceparent" => trace.traceparent = text,
                "tracestate" => trace.tracestate = text,
                _ => trace.baggage = text,
            }
        });
        trace
    }

    /// Reads the context from these headers.
    pub(crate) fn context(&self) -> Context {
        let given = |text: &'_ str| (!text.is_empty()).then(|| text.as_bytes().to_vec());
        let (parent, state, baggage) = (given(&self.traceparent), given(&self.tracestate), given(&self.baggage));
        w3c::decode(parent.as_deref(), state.as_deref(), baggage.as_deref(), &Context::new()).context
    }

    /// Returns the trace id as it stands in the `traceparent`.
    pub(crate) fn trace_id(&self) -> &str {
        self.traceparent.split('-').nth(1).unwrap_or_default()
    }
}

/// The beginning of a payload: one line of JSON, which the filler follows.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Head {
    run: u64,
    id: Id,
    key: String,
    trace: Trace,
    filler: usize,
    /// The hash of everything else.
    hash: String,
}

/// A message as it has to arrive.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recipe {
    pub(crate) id: Id,
    pub(crate) key: String,
    pub(crate) note: String,
    pub(crate) trace: Trace,
    pub(crate) payload: Vec<u8>,
}

impl Recipe {
    /// Makes the message of this number.
    pub(crate) fn of(seed: u64, id: Id) -> Self {
        let mut chance = chance(&(seed, id, "message"));
        let key = format!("key-{}", chance.u64(0..KEYS));
        let note: String = (0..chance.usize(1..40)).map(|_| chance.alphanumeric()).collect();
        let trace = Trace {
            traceparent: format!(
                "00-{:032x}-{:016x}-0{}",
                chance.u128(1..),
                chance.u64(1..),
                u8::from(chance.bool()) // sampled, or not
            ),
            tracestate: format!("chaos=p{}x{},other={:x}", id.0, id.1, chance.u32(..)),
            baggage: format!("message={id},tenant=t{}", chance.u32(0..1000)),
        };
        let size = if chance.u32(0..LARGE_ONE_IN) == 0 { chance.usize(LARGE) } else { chance.usize(0..=SMALL) };
        let mut filler = vec![0; size];
        chance.fill(&mut filler);
        let mut head =
            Head { run: seed, id, key: key.clone(), trace: trace.clone(), filler: size, hash: String::new() };
        head.hash = hash(&head, &filler);
        let mut payload = serde_json::to_vec(&head).expect("plain data");
        payload.push(b'\n');
        payload.extend_from_slice(&filler);
        Self { id, key, note, trace, payload }
    }

    /// Returns the message to publish.
    pub(crate) fn message(&self) -> Message {
        self.without_context().context(self.trace.context())
    }

    /// Returns the message for a publisher whose current context is that of the message.
    pub(crate) fn without_context(&self) -> Message {
        Message::new(self.payload.clone()).key(&self.key).header(HEADER, &self.note)
    }
}

/// A difference between a received message and the one that was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Flaw {
    Payload,
    Key,
    Header,
    /// The context is not the one in the payload; it is this one.
    Context(String),
}

/// The parts of a received message.
pub(crate) struct Seen<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) headers: &'a Headers,
    pub(crate) trace: Trace,
}

/// Compares a received message with the one that its payload claims to be. Returns no identity for
/// a payload that is damaged or of another run.
pub(crate) fn inspect(seed: u64, seen: &Seen<'_>) -> (Option<Id>, Vec<Flaw>) {
    let Some(head) = read(seen.payload).filter(|head| head.run == seed) else {
        return (None, vec![Flaw::Payload]);
    };
    let wanted = Recipe::of(seed, head.id);
    let mut flaws = Vec::new();
    if wanted.payload != seen.payload {
        flaws.push(Flaw::Payload);
    }
    if seen.key != Some(wanted.key.as_bytes()) {
        flaws.push(Flaw::Key);
    }
    if seen.headers.get_all(HEADER).collect::<Vec<_>>() != [wanted.note.as_bytes()] {
        flaws.push(Flaw::Header);
    }
    // Compared with the payload that it came with.
    if seen.trace != head.trace {
        flaws.push(Flaw::Context(format!("{:?}", seen.trace)));
    }
    (Some(head.id), flaws)
}

/// Reads the beginning of a payload and checks its hash.
fn read(payload: &[u8]) -> Option<Head> {
    let end = payload.iter().position(|byte| *byte == b'\n')?;
    let (head, filler) = (&payload[..end], &payload[end + 1..]);
    let mut head: Head = serde_json::from_slice(head).ok()?;
    let given = std::mem::take(&mut head.hash);
    (filler.len() == head.filler && hash(&head, filler) == given).then_some(head)
}

fn hash(head: &Head, filler: &[u8]) -> String {
    let mut digest = Sha256::new();
    digest.update(serde_json::to_vec(head).expect("plain data"));
    digest.update(filler);
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The treatment of a message by one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Ack,
    /// Its first two attempts fail.
    FailTwice,
    Reject,
    /// Its first delivery is dropped unsettled, if the group settles by hand.
    Drop,
}

/// Returns the treatment of a message by a group.
pub(crate) fn fate(seed: u64, id: Id, group: &str) -> Fate {
    match chance(&(seed, id, group, "fate")).u32(0..1000) {
        0..20 => Fate::FailTwice,
        20..25 => Fate::Reject,
        25..28 => Fate::Drop,
        _ => Fate::Ack,
    }
}

/// Returns the duration of a handler.
pub(crate) fn work(seed: u64, id: Id, group: &str) -> Duration {
    let mut chance = chance(&(seed, id, group, "work"));
    let milliseconds = if chance.u32(0..100) == 0 { 50 } else { chance.u64(0..5) };
    Duration::from_millis(milliseconds)
}

/// Returns the randomness for one purpose, which is the same in every run and process.
pub(crate) fn chance(purpose: &impl Hash) -> Rng {
    // `DefaultHasher::new` has fixed keys, unlike the state of a `HashMap`.
    let mut hasher = DefaultHasher::new();
    purpose.hash(&mut hasher);
    Rng::with_seed(hasher.finish())
}

/// Returns the context that a payload carries.
pub(crate) fn carried(payload: &[u8]) -> Option<Trace> {
    read(payload).map(|head| head.trace)
}
