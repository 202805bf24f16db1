//! The topics that are declared at the broker, and the publishes that wait for a declaration.
//!
//! The first publish to a topic starts its declaration, in a task. Publishes that follow wait in a
//! line, as jobs that the task runs in order. So a publish that comes later never goes ahead of
//! them, and nothing depends on a caller that polls.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::RwLock;

use crate::driver::{Destination, Identity};
use crate::error::Result;
use crate::message::Topic;
use crate::telemetry::span::{Operation, SpanTemplate};

/// Maximum number of topics that are remembered as declared. Beyond it, one of them is forgotten,
/// and declared again when it is next used.
const MAX_CHANNELS: usize = 4096;

/// A topic that is declared at the broker, with the templates of its spans.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) topic: Topic,
    create: SpanTemplate,
    send: SpanTemplate,
    transfer: SpanTemplate,
}

/// One template of a channel.
#[derive(Debug, Clone)]
pub(super) struct Route {
    channel: Arc<Channel>,
    operation: Operation,
}

/// The channels of one driver.
#[derive(Default)]
pub(super) struct Channels(RwLock<HashMap<Box<str>, Entry>>);

enum Entry {
    Open(Arc<Channel>),
    /// Being declared, with the publishes that wait.
    Opening(Line),
}

/// The publishes that wait for a topic, in the order of their first polls. Each belongs to a
/// future, and leaves with it.
#[derive(Default)]
struct Line {
    jobs: BTreeMap<u64, Job>,
    next: u64,
}

impl Line {
    fn push(&mut self, job: Job) -> u64 {
        let number = self.next;
        self.next += 1;
        self.jobs.insert(number, job);
        number
    }
}

/// A publish that waits for its topic. Called with the channel, or with the error of the
/// declaration.
pub(super) type Job = Box<dyn FnOnce(Result<&Arc<Channel>>) + Send + Sync>;

impl Channel {
    pub(super) fn new(topic: &Topic, identity: &Identity, destination: &Destination) -> Self {
        let template = |operation| SpanTemplate::new(operation, identity, &topic.to_shared(), destination, None);
        Self {
            create: template(Operation::Create),
            send: template(Operation::Send),
            transfer: template(Operation::Transfer),
            topic: topic.clone(),
        }
    }

    pub(super) fn route(self: &Arc<Self>, operation: Operation) -> Route {
        Route { channel: Arc::clone(self), operation }
    }
}

impl AsRef<SpanTemplate> for Route {
    fn as_ref(&self) -> &SpanTemplate {
        match self.operation {
            Operation::Create => &self.channel.create,
            Operation::Transfer => &self.channel.transfer,
            _ => &self.channel.send,
        }
    }
}

impl Route {
    pub(super) fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }
}

impl Channels {
    /// Returns the channel of a topic that is declared and that no publish waits for.
    pub(super) fn open(&self, topic: &str) -> Option<Arc<Channel>> {
        match self.0.read().get(topic) {
            Some(Entry::Open(channel)) => Some(Arc::clone(channel)),
            _ => None,
        }
    }

    /// Puts a job into the line of a topic, or runs it if the topic was opened meanwhile. Returns
    /// the place in the line, and the opening, which has to be run, if this one begins it.
    pub(super) fn enqueue(self: &Arc<Self>, topic: &str, job: Job) -> (Option<InLine>, Option<Opening>) {
        let mut channels = self.0.write();
        let place = |number| Some(InLine { channels: Arc::clone(self), topic: topic.into(), number });
        match channels.get_mut(topic) {
            Some(Entry::Opening(line)) => (place(line.push(job)), None),
            Some(Entry::Open(channel)) => {
                let channel = Arc::clone(channel);
                drop(channels);
                job(Ok(&channel));
                (None, None)
            }
            None => {
                if channels.len() >= MAX_CHANNELS {
                    evict(&mut channels);
                }
                let mut line = Line::default();
                let number = line.push(job);
                channels.insert(topic.into(), Entry::Opening(line));
                let opening = Opening { channels: Arc::clone(self), topic: topic.into(), is_over: false };
                (place(number), Some(opening))
            }
        }
    }

    /// Forgets a channel whose topic was deleted at the broker, unless it was replaced already.
    pub(super) fn forget(&self, channel: &Arc<Channel>) {
        let mut channels = self.0.write();
        if let Some(Entry::Open(current)) = channels.get(&*channel.topic)
            && Arc::ptr_eq(current, channel)
        {
            channels.remove(&*channel.topic);
        }
    }
}

/// Removes one open channel at random: any fixed choice would be the worst one for some order in
/// which topics are used.
fn evict(channels: &mut HashMap<Box<str>, Entry>) {
    let open = || channels.iter().filter(|(_, entry)| matches!(entry, Entry::Open(_)));
    let any = fastrand::usize(..channels.len());
    let evicted = open().nth(any).or_else(|| open().next()).map(|(topic, _)| topic.clone());
    if let Some(topic) = evicted {
        channels.remove(&topic);
    }
}

/// The place of a job in the line of a topic. Dropping it leaves the line.
pub(super) struct InLine {
    channels: Arc<Channels>,
    topic: Box<str>,
    number: u64,
}

impl Drop for InLine {
    fn drop(&mut self) {
        let job = match self.channels.0.write().get_mut(&self.topic) {
            Some(Entry::Opening(line)) => line.jobs.remove(&self.number),
            _ => None,
        };
        drop(job);
    }
}

/// A topic that is being declared. If it is dropped early, its line is dropped with it.
pub(super) struct Opening {
    channels: Arc<Channels>,
    pub(super) topic: Box<str>,
    is_over: bool,
}

impl Opening {
    /// Ends the declaration, and runs the line: after a success until no job waits any more, so
    /// that later publishes stay behind them.
    pub(super) fn end(mut self, declared: Result<Channel>) {
        match declared {
            Ok(channel) => {
                let channel = Arc::new(channel);
                while let Some(line) = self.next(&channel) {
                    line.into_values().for_each(|job| job(Ok(&channel)));
                }
            }
            Err(error) => {
                let again = error.without_source();
                let mut first = Some(error);
                for job in self.take().into_values() {
                    job(Err(first.take().unwrap_or_else(|| again.without_source())));
                }
            }
        }
        self.is_over = true;
    }

    /// Returns the jobs that wait; opens the channel if there are none.
    fn next(&self, channel: &Arc<Channel>) -> Option<BTreeMap<u64, Job>> {
        let mut channels = self.channels.0.write();
        let entry = channels.get_mut(&self.topic)?;
        match entry {
            Entry::Opening(line) if !line.jobs.is_empty() => Some(std::mem::take(&mut line.jobs)),
            _ => {
                *entry = Entry::Open(Arc::clone(channel));
                None
            }
        }
    }

    fn take(&self) -> BTreeMap<u64, Job> {
        match self.channels.0.write().remove(&self.topic) {
            Some(Entry::Opening(line)) => line.jobs,
            _ => BTreeMap::new(),
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !self.is_over {
            drop(self.take());
        }
    }
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channels").field("topics", &self.0.read().len()).finish()
    }
}
