//! A broker that is a directory, as an adapter for [`traced_broker`] that stands outside of it.
//!
//! # URLs
//! `files:///var/lib/shop` is the directory `/var/lib/shop`, created if it is missing; [`Files::open`] takes any path. There is
//! neither host nor credentials.
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `sync` | `true`: a confirmed message is on the disk; `false`: with the operating system | `true` |
//! | `topology` | `create` missing topics, or only `check` | `create` |
//!
//! All connections of a process to one directory share it. One process at a time can have it open: another is refused with
//! [`ErrorKind::Conflict`], until a moment after the last connection is closed. Each directory has a thread of its own, which writes and
//! reads all its files.
//!
//! # Delivery semantics
//! A confirmed message survives the death of the process in any case. A crash of the machine, or a loss of power, it survives with
//! `sync=true`, as far as the disk tells the truth. What is settled is written and never synced: after a crash of the machine, but not of
//! the process, some of it may come again, or a group that was new be forgotten. What a crash cut off at the end of a file was
//! not confirmed; it is moved to a file `*.torn` beside when the topic is opened, and so is what follows a damaged record.
//!
//! Every group gets every message at least once, members share; a new group starts at the oldest message. Order is that of
//! publishing; a message that is retried comes again after its delay while later ones pass it. The number of attempts is written down
//! and outlives the process; the delay of a retry does not. A group runs at most 65,536 messages ahead of its oldest unsettled one.
//! A topic keeps all its messages: to remove them, remove its folder while no process has the directory open. A topic is read
//! from its beginning once it is opened, and to find a time or an offset.
//!
//! When a file cannot be written, all is closed and opened again: what was under way fails with an unknown outcome, streams go on. A reader
//! without a group goes on behind the last message that it was handed.
//!
//! # Headers
//! Names and values are carried as they are.
//!
//! # Escape hatch
//! [`offline`] takes a directory out of use, to copy or to restore its files.

mod connection;
mod frame;
mod group;
mod journal;
mod queue;
mod record;
mod registry;
mod source;
mod store;
mod topic;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use traced_broker::capability::{Attempts, Confirm, HeaderValues, Order, Retry, TimestampSource};
use traced_broker::driver::{Confirmation, Destination, Driver, Identity, Outbound, Source};
use traced_broker::{BrokerUrl, Capabilities, Error, ErrorKind, Receipt, Result, Start, Subscription, Topic, Topology};

use connection::{Connection, Place};
use queue::Command;
use source::Reading;
use topic::GroupKey;

/// The largest payload in bytes.
pub const MAX_PAYLOAD: usize = 16 << 20;

/// A connection to a directory; see the [crate](self).
#[derive(Debug)]
pub struct Files {
    identity: Identity,
    capabilities: Capabilities,
    connection: Arc<Connection>,
}

impl Files {
    /// Connects to the directory of the URL.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for another scheme, a host, credentials, or an unknown or invalid option; and as [`Files::open`].
    pub async fn connect(url: &BrokerUrl) -> Result<Self> {
        if url.scheme() != "files" || url.name().is_some() || url.username().is_some() {
            let message = "the URL of a directory is files:///path, without a host and without credentials";
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let mut options = url.options();
        let sync = options.take("sync")?.unwrap_or(true);
        let create = options.take("topology")?.unwrap_or(Topology::Create) == Topology::Create;
        options.finish()?;
        Self::over(Place { directory: Path::new("/").join(url.path()), sync, create }).await
    }

    /// Connects to a directory, created if it is missing. With `sync`, what is confirmed is on the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when it cannot be written, [`ErrorKind::Conflict`] when another process has it open, or this one with
    /// another value of `sync`.
    pub async fn open(directory: impl Into<PathBuf>, sync: bool) -> Result<Self> {
        Self::over(Place { directory: directory.into(), sync, create: true }).await
    }

    async fn over(place: Place) -> Result<Self> {
        let connection = Connection::open(place).await.map_err(|error| error.with_operation("connect"))?;
        Ok(Self { identity: Identity::new("files"), capabilities: capabilities(), connection })
    }
}

fn capabilities() -> Capabilities {
    let mut can = Capabilities::new();
    can.confirm = Confirm::Broker;
    can.groups = true;
    can.at_least_once = true;
    can.backlog = true;
    can.retry = Retry::NativeDelayed;
    can.attempts = Attempts::Broker;
    can.order = Order::Stream;
    can.native_key = true;
    can.timestamp = Some(TimestampSource::Broker);
    can.header_values = HeaderValues::Bytes;
    can.tombstones = true;
    can.delayed_publish = false;
    can.start_at_time = true;
    can.start_at_offset = true;
    can.reposition = true;
    can.max_payload = Some(MAX_PAYLOAD);
    can
}

/// Closes the directory in this process as a kill would, does some work on its files, and lets connections open it again.
///
/// What was under way ends with an unknown outcome, what is unsettled comes again. Blocks until the work is done.
///
/// # Errors
/// When the directory cannot be found.
pub fn offline<T>(directory: impl AsRef<Path>, work: impl FnOnce() -> T) -> io::Result<T> {
    registry::offline(directory.as_ref(), work)
}

#[async_trait]
impl Driver for Files {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        let (topic, create) = (topic.clone(), self.connection.place.create);
        self.connection.ask(|reply| Command::Declare { topic, create, reply }).await?;
        Ok(Destination::new())
    }

    fn publish(&self, topic: &Topic, message: Outbound) -> Confirmation<Receipt> {
        let (key, id) = (message.key.as_deref().unwrap_or_default(), message.id.as_deref().unwrap_or_default());
        let headers = message.headers.byte_len() + 8 * message.headers.len();
        let payload = message.payload.as_deref().unwrap_or_default();
        if payload.len().max(key.len() + id.len() + headers) > MAX_PAYLOAD {
            let message = "the payload, or key, id and headers together, are larger than a record may be";
            return Confirmation::ready(Err(
                Error::new(ErrorKind::TooLarge, message).with_context("limit", MAX_PAYLOAD)
            ));
        }
        self.connection.publish(topic, message)
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        let reading = Reading::begin(Arc::clone(&self.connection), subscription).await?;
        Ok(Source::new(Destination::new(), reading.into_stream()))
    }

    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()> {
        let Some(group) = subscription.group_name().map(|name| GroupKey::Named(name.into())) else {
            return Err(Error::new(ErrorKind::InvalidConfig, "a reader without a group has no position to move"));
        };
        let topic = Topic::new(subscription.topic())?;
        self.connection.ask(|reply| Command::Reposition { topic, group, start, reply }).await
    }

    async fn ping(&self) -> Result<()> {
        self.connection.ask(Command::Ping).await
    }

    async fn close(&self) -> Result<()> {
        match self.connection.close() {
            Some(answer) => answer.await.unwrap_or(Ok(())),
            None => Ok(()),
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        drop(self.connection.close());
    }
}
