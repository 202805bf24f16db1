//! A driver over the embedded broker with one fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use traced_broker::adapters::memory::Memory;
use traced_broker::driver::{
    AttributeValue, Confirmation, Confirmer, DeliveryHandle, Destination, Disposition, Driver, DriverExt, Identity,
    Inbound, Outbound, Source,
};
use traced_broker::{Capabilities, Error, ErrorKind, Headers, Receipt, Result, Start, Subscription, Topic};

use crate::fault::Fault;

/// State that all connections to one faulty broker share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    topics: Mutex<BTreeSet<String>>,
    /// The groups of each topic.
    groups: Mutex<BTreeMap<String, BTreeSet<String>>>,
    /// The first of the open connections that have a member in each group.
    homes: Mutex<BTreeMap<String, usize>>,
    subscriptions: Mutex<BTreeMap<String, usize>>,
}

/// A connection to the faulty broker.
pub(crate) struct Faulty {
    fault: Fault,
    memory: Arc<Memory>,
    /// A connection that stays open when this one is closed.
    behind: Arc<Memory>,
    shared: Arc<Shared>,
    secret: String,
    id: usize,
    published: AtomicUsize,
    closed: Arc<AtomicBool>,
    /// Messages that are confirmed and not stored yet.
    waiting: Arc<Mutex<Vec<(Topic, Outbound)>>>,
    /// Number of messages published with each key.
    keys: Mutex<BTreeMap<Bytes, usize>>,
    out: Out,
}

type Handle = Arc<Mutex<Option<Box<dyn DeliveryHandle>>>>;

/// Unsettled deliveries, with their offset in the topic.
type Out = Arc<Mutex<Vec<(i64, Handle)>>>;

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = if self.fault == Fault::ShowsTheSecretInDebug { &self.secret } else { "hidden" };
        f.debug_struct("Faulty").field("password", &shown).finish_non_exhaustive()
    }
}

impl Faulty {
    pub(crate) fn new(
        fault: Fault,
        memory: Arc<Memory>,
        behind: Arc<Memory>,
        shared: Arc<Shared>,
        secret: &str,
    ) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Self {
            fault,
            memory,
            behind,
            shared,
            secret: secret.to_owned(),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            published: AtomicUsize::new(0),
            closed: Arc::default(),
            waiting: Arc::default(),
            keys: Mutex::default(),
            out: Arc::default(),
        }
    }

    /// Confirms a message now and stores it later.
    fn wait(&self, topic: &Topic, message: Outbound) -> Confirmation<Receipt> {
        self.waiting.lock().push((topic.clone(), message));
        Confirmation::ready(Ok(Receipt::confirmed()))
    }

    fn store_waiting(&self) {
        store_all(&mut self.waiting.lock(), &self.memory);
    }

    /// Stores one message, which is the connection's `number`th.
    fn store(&self, topic: &Topic, message: Outbound, number: usize) -> Confirmation<Receipt> {
        match self.fault {
            Fault::LosesOneInFiveThousand if number % 5_000 == 4_999 => {
                return Confirmation::ready(Ok(Receipt::confirmed()));
            }
            Fault::ConfirmsBeforeStoring if number >= 590 => return self.buffer(topic, message),
            Fault::StoresLargeMessagesTwice
                if message.payload.as_ref().is_some_and(|payload| payload.len() > 65_536) =>
            {
                drop(self.memory.enqueue(topic, message.clone()));
            }
            Fault::ReordersUnderLoad if number == 1_500 => return self.wait(topic, message),
            Fault::ReordersUnderLoad if number == 1_501 => {
                let stored = self.memory.enqueue(topic, message);
                self.store_waiting();
                return stored;
            }
            Fault::ReordersWithinAKey => return self.store_by_key(topic, message),
            Fault::SwapsHeaders if number == 40 => return self.wait(topic, message),
            Fault::SwapsHeaders if number == 41 => {
                let mut second = message;
                let first = self.waiting.lock().pop();
                if let Some((topic, mut first)) = first {
                    std::mem::swap(&mut first.headers, &mut second.headers);
                    drop(self.memory.enqueue(&topic, first));
                }
                return self.memory.enqueue(topic, second);
            }
            Fault::MixesTopicsThatBeginAlike => {
                for other in &*self.shared.topics.lock() {
                    let more = other.strip_prefix(topic.as_str()).unwrap_or_default();
                    if !more.is_empty() && more.bytes().all(|byte| byte.is_ascii_digit()) {
                        drop(self.memory.enqueue(&Topic::new(other).unwrap(), message.clone()));
                    }
                }
            }
            Fault::PublishesAfterClose if self.closed.load(Ordering::Relaxed) => {
                return self.behind.enqueue(topic, message);
            }
            _ => {}
        }
        self.memory.enqueue(topic, message)
    }

    /// Confirms a message, and stores it with the next one or after a while.
    fn buffer(&self, topic: &Topic, message: Outbound) -> Confirmation<Receipt> {
        self.store_waiting();
        let (waiting, memory, closed) = (Arc::clone(&self.waiting), Arc::clone(&self.memory), Arc::clone(&self.closed));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let mut waiting = waiting.lock();
            if !closed.load(Ordering::Relaxed) {
                store_all(&mut waiting, &memory);
            }
        });
        self.wait(topic, message)
    }

    /// Stores the fiftieth message of a key after the one that follows it.
    fn store_by_key(&self, topic: &Topic, message: Outbound) -> Confirmation<Receipt> {
        let key = message.key.clone().unwrap_or_default();
        let mut keys = self.keys.lock();
        let count = keys.entry(key).or_default();
        *count += 1;
        let (count, many_keys) = (*count, keys.len() > 10);
        drop(keys);
        if many_keys && count == 50 && self.waiting.lock().is_empty() {
            return self.wait(topic, message);
        }
        let follows = self.waiting.lock().first().is_some_and(|(_, waiting)| waiting.key == message.key);
        let stored = self.memory.enqueue(topic, message);
        if follows {
            self.store_waiting();
        }
        stored
    }

    /// Applies the fault to a message before it is stored.
    fn spoil(&self, mut message: Outbound) -> Outbound {
        match self.fault {
            Fault::CutsLargePayloads => {
                message.payload = message.payload.map(|payload| payload.slice(..payload.len().min(100_000)));
            }
            Fault::MakesTombstonesEmpty => message.payload = Some(message.payload.unwrap_or_default()),
            Fault::DeliversBeforeTheDelay => {
                message.deliver_at = message.deliver_at.map(|time| time - Duration::from_millis(500));
            }
            _ => message.headers = self.spoil_headers(&message.headers),
        }
        message
    }

    fn spoil_headers(&self, headers: &Headers) -> Headers {
        let mut spoilt = Headers::new();
        for (index, (name, value)) in headers.iter().enumerate() {
            match self.fault {
                Fault::RenamesHeaders => spoilt.append(&name.replace('_', "-"), value),
                Fault::LowerCasesNames => spoilt.append(&name.to_ascii_lowercase(), value),
                Fault::LowerCasesValues => spoilt.append(name, value.to_ascii_lowercase()),
                Fault::DropsEmptyHeaders if value.is_empty() => {}
                Fault::KeepsAHundredHeaders if index >= 100 => {}
                Fault::KeepsOneHeaderOfAName if spoilt.contains(name) => {}
                Fault::CutsLongHeaders => spoilt.append(name, &value[..value.len().min(4096)]),
                Fault::PanicsAtANul if name.contains('\0') => panic!("a NUL byte in a name"),
                _ => spoilt.append(name, value),
            }
        }
        if self.fault == Fault::AddsAHeader {
            spoilt.append("x-library", "faulty");
        }
        spoilt
    }

    /// Returns the subscription that replaces the requested one.
    fn misunderstand(&self, subscription: &Subscription) -> Result<Subscription> {
        let topic = subscription.topic().to_owned();
        let asked = subscription.clone();
        let Some(group) = asked.group_name().map(str::to_owned) else {
            let mut subscriptions = self.shared.subscriptions.lock();
            let count = subscriptions.entry(topic).or_default();
            *count += 1;
            return match (self.fault, asked.start_position()) {
                (Fault::ServesNoMoreThanForty, _) if *count > 40 => {
                    Err(Error::new(ErrorKind::Unavailable, "there are too many subscriptions"))
                }
                (Fault::BeginsReadersAtTheEarliest, Start::Latest) | (Fault::IgnoresTheTime, Start::Time(_)) => {
                    Ok(asked.start(Start::Earliest))
                }
                _ => Ok(asked),
            };
        };
        self.shared.groups.lock().entry(topic).or_default().insert(group.clone());
        Ok(match (self.fault, asked.start_position()) {
            (Fault::IgnoresTheOffset, Start::Offset(_)) => asked.start(Start::Earliest),
            (Fault::HandsOutOneTooMany, _) if asked.prefetch_limit() > 1 => {
                let allowed = asked.prefetch_limit();
                asked.prefetch(allowed + 1)
            }
            (Fault::CopiesToOtherConnections, _) => {
                let home = *self.shared.homes.lock().entry(group.clone()).or_insert(self.id);
                if home == self.id { asked } else { asked.group(format!("{group}.{}", self.id)) }
            }
            _ => asked,
        })
    }

    fn tamper(&self, mut inbound: Inbound, gone: &Arc<AtomicBool>) -> Inbound {
        if self.fault == Fault::CountsAttemptsWrong {
            inbound.attempt = inbound.attempt.min(3);
        }
        // Kept, because another delivery may settle this one.
        let mut attributes = Vec::new();
        inbound.handle.attributes(&mut |name, value| attributes.push((name, value)));
        let handle: Handle = Arc::new(Mutex::new(Some(inbound.handle)));
        let offset = inbound.offset.unwrap_or_default();
        if matches!(self.fault, Fault::CommitsPastTheGap | Fault::AcknowledgesWhatIsOutWhenClosed) {
            self.out.lock().push((offset, Arc::clone(&handle)));
        }
        let out = Arc::clone(&self.out);
        inbound.handle =
            Box::new(FaultyHandle { fault: self.fault, offset, handle, attributes, out, gone: Arc::clone(gone) });
        inbound
    }
}

#[async_trait]
impl Driver for Faulty {
    fn identity(&self) -> &Identity {
        self.memory.identity()
    }

    fn capabilities(&self) -> &Capabilities {
        self.memory.capabilities()
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        self.shared.topics.lock().insert(topic.to_string());
        let destination = self.memory.declare(topic).await?;
        let misspells = self.fault == Fault::MisspellsAnAttribute && topic.starts_with("b19_the_receiver_continues");
        Ok(if misspells { destination.with_attribute("messaging.memory.squence", 1_i64) } else { destination })
    }

    fn publish(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        let number = self.published.fetch_add(1, Ordering::Relaxed);
        let message = self.spoil(message);
        self.store(topic, message, number).pass_to(confirmer);
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        let source = self.memory.subscribe(&self.misunderstand(subscription)?).await?;
        // Set when the source is dropped.
        let gone = Arc::new(AtomicBool::new(false));
        let guard = Gone(Arc::clone(&gone));
        let connection =
            Self::new(self.fault, Arc::clone(&self.memory), Arc::clone(&self.behind), Arc::clone(&self.shared), "none");
        let connection = Self { out: Arc::clone(&self.out), ..connection };
        Ok(source.map(move |inbound| {
            let _held = &guard;
            connection.tamper(inbound, &gone)
        }))
    }

    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()> {
        if self.fault == Fault::MovesEveryGroup {
            let groups = self.shared.groups.lock().get(subscription.topic()).cloned().unwrap_or_default();
            for group in groups {
                let other = Subscription::new(subscription.topic()).group(group);
                let _ = self.memory.reposition(&other, start).await;
            }
        }
        self.memory.reposition(subscription, start).await
    }

    async fn ping(&self) -> Result<()> {
        if self.fault == Fault::AnswersPingsAfterClose { self.behind.ping().await } else { self.memory.ping().await }
    }

    async fn close(&self) -> Result<()> {
        let again = self.closed.swap(true, Ordering::Relaxed);
        if again && self.fault == Fault::FailsASecondClose {
            return Err(Error::new(ErrorKind::Closed, "it is closed already"));
        }
        self.shared.homes.lock().retain(|_, home| *home != self.id);
        match self.fault {
            Fault::ConfirmsBeforeStoring => self.waiting.lock().clear(),
            _ => self.store_waiting(),
        }
        if self.fault == Fault::AcknowledgesWhatIsOutWhenClosed {
            for (_, handle) in std::mem::take(&mut *self.out.lock()) {
                let settled = handle.lock().take().map(|handle| handle.settle(Disposition::Ack));
                drop(settled);
            }
        }
        self.memory.close().await
    }
}

/// Stores the waiting messages. The caller holds the lock, so that no other message is stored in
/// between.
fn store_all(waiting: &mut Vec<(Topic, Outbound)>, memory: &Memory) {
    for (topic, message) in waiting.drain(..) {
        drop(memory.enqueue(&topic, message));
    }
}

/// Sets its flag when it is dropped with a source.
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct FaultyHandle {
    fault: Fault,
    offset: i64,
    handle: Handle,
    attributes: Vec<(&'static str, AttributeValue)>,
    out: Out,
    gone: Arc<AtomicBool>,
}

impl fmt::Debug for FaultyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyHandle")
    }
}

impl DeliveryHandle for FaultyHandle {
    fn settle(self: Box<Self>, disposition: Disposition) -> Confirmation<()> {
        let handle = self.handle.lock().take();
        self.out.lock().retain(|(_, other)| !Arc::ptr_eq(other, &self.handle));
        let Some(handle) = handle else { return Confirmation::ready(Ok(())) };
        let disposition = match (self.fault, disposition) {
            (Fault::RetriesTooEarly, Disposition::Retry(delay)) => Disposition::Retry(delay / 2),
            (Fault::BringsBackWhatWasDiscarded, Disposition::Discard) => Disposition::Retry(Duration::from_millis(100)),
            (Fault::ForgetsWhatADroppedSubscriptionHad, _) if self.gone.load(Ordering::Relaxed) => Disposition::Ack,
            (Fault::CommitsPastTheGap, Disposition::Ack) => {
                self.settle_earlier();
                Disposition::Ack
            }
            (_, disposition) => disposition,
        };
        if self.fault == Fault::SettlesOnlyWhenAwaited && disposition == Disposition::Ack {
            return Confirmation::running(async move {
                tokio::task::yield_now().await;
                handle.settle(disposition).await
            });
        }
        let settled = handle.settle(disposition);
        match self.fault {
            Fault::SettlesAfterClose => Confirmation::ready(Ok(())),
            _ => settled,
        }
    }

    fn failed(&self, attempts: u32) {
        if let Some(handle) = &*self.handle.lock() {
            handle.failed(attempts);
        }
    }

    fn set_aside(&self) -> bool {
        self.handle.lock().as_ref().is_some_and(|handle| handle.set_aside())
    }

    fn attributes(&self, visit: &mut dyn FnMut(&'static str, AttributeValue)) {
        self.attributes.iter().for_each(|(name, value)| visit(name, value.clone()));
    }
}

impl FaultyHandle {
    fn settle_earlier(&self) {
        let earlier: Vec<Handle> = {
            let out = self.out.lock();
            out.iter().filter(|(offset, _)| *offset < self.offset).map(|(_, handle)| Arc::clone(handle)).collect()
        };
        for handle in earlier {
            let handle = handle.lock().take();
            if let Some(handle) = handle {
                drop(handle.settle(Disposition::Ack));
            }
        }
    }
}
