//! A broker that is a directory: an adapter for [`traced_broker`] in a separate package.
//!
//! # URLs
//! `files:///var/lib/shop` is the directory `/var/lib/shop`, created if it is missing;
//! [`Files::open`] takes any path. There is no host, and there are no credentials.
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `sync` | `true`: a confirmed message is on the disk; `false`: with the operating system | `true` |
//! | `topology` | `create` missing topics, or only `check` | `create` |
//!
//! All connections of a process to one directory share it. One process at a time can have it open:
//! another one is refused with [`ErrorKind::Conflict`], until a moment after the last connection is
//! closed. Each directory has its own thread, which writes and reads all its files.
//!
//! # Delivery semantics
//! A confirmed message survives the death of the process. With `sync=true` it also survives a crash
//! of the machine or a loss of power, as far as the disk tells the truth. Settlements are written
//! but never synced: after a crash of the machine, but not of the process, some messages may be
//! redelivered, and a new group may be forgotten. A record that a crash cut off at the end of a
//! file was not confirmed. It is moved to a file `*.torn` when the topic is opened, and so is
//! everything behind a damaged record.
//!
//! Every group gets every message at least once; members share them. A new group starts at the
//! oldest message. Order is that of publishing; a retried message is redelivered after its delay,
//! and later messages pass it. The numbers of attempts and hand-outs, and the time of a retry, are
//! written to the file of the group and outlive the process. A group runs at most 65,536 messages
//! ahead of its oldest unsettled one.
//!
//! All files only grow: a topic keeps all its messages, and a group all its events. To remove them,
//! remove the folder of the topic while no process has the directory open. A topic is read from its
//! beginning when it is opened, and to find a time or an offset; a group is read from its beginning
//! when it is opened.
//!
//! If a file cannot be written, everything is closed and reopened: operations in progress fail with
//! an unknown outcome, and streams continue. A reader without a group continues behind the last
//! message that it was handed.
//!
//! # Headers
//! Names and values are carried unchanged.
//!
//! # Escape hatch
//! [`offline`] and [`Offline`] take a directory out of use, to copy or to restore its files.

mod connection;
mod group;
mod inbox;
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
use traced_broker::capability::{Attempts, Confirm, HeaderValues, Order, Redelivery, TimestampSource};
use traced_broker::driver::{Confirmer, Destination, Driver, Identity, Outbound, Source};
use traced_broker::{BrokerUrl, Capabilities, Error, ErrorKind, Receipt, Result, Start, Subscription, Topic, Topology};

use connection::{Connection, Location};
use queue::Command;
use source::Reading;
use topic::GroupKey;

pub use registry::Offline;

/// Maximum length of a payload in bytes.
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
    /// [`ErrorKind::InvalidConfig`] for another scheme, a host, credentials, or an unknown or
    /// invalid option; otherwise as [`Files::open`].
    pub async fn connect(url: &BrokerUrl) -> Result<Self> {
        if url.scheme() != "files" || url.name().is_some() || url.username().is_some() {
            let message = "the URL of a directory is files:///path, without a host and without credentials";
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let mut options = url.options();
        let sync = options.take("sync")?.unwrap_or(true);
        let create = options.take("topology")?.unwrap_or(Topology::Create) == Topology::Create;
        options.finish()?;
        Self::over(Location { directory: Path::new("/").join(url.path()), sync, create }).await
    }

    /// Connects to a directory, created if it is missing. With `sync`, a confirmed message is on
    /// the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written, [`ErrorKind::Conflict`] if another
    /// process has it open, or this one with another value of `sync`.
    pub async fn open(directory: impl Into<PathBuf>, sync: bool) -> Result<Self> {
        Self::over(Location { directory: directory.into(), sync, create: true }).await
    }

    async fn over(location: Location) -> Result<Self> {
        let connection = Connection::open(location).await.map_err(|error| error.with_operation("connect"))?;
        Ok(Self { identity: Identity::new("files"), capabilities: capabilities(), connection })
    }
}

fn capabilities() -> Capabilities {
    let mut can = Capabilities::new();
    can.confirm = Confirm::Broker;
    can.groups = true;
    can.at_least_once = true;
    can.backlog = true;
    can.retry = Redelivery::NativeDelayed;
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
    can.reader_resumes = true;
    can.confirms_settlements = true;
    can.max_payload = Some(MAX_PAYLOAD);
    can
}

/// Closes the directory in this process as a kill does, does some work on its files, and lets
/// connections reopen it.
///
/// Operations in progress end with an unknown outcome, and unsettled messages are redelivered.
/// Blocks until the work is done.
///
/// # Errors
/// If the directory cannot be found.
pub fn offline<T>(directory: impl AsRef<Path>, work: impl FnOnce() -> T) -> io::Result<T> {
    let _offline = Offline::take(directory)?;
    Ok(work())
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
        let (topic, create) = (topic.clone(), self.connection.location.create);
        self.connection.ask(|reply| Command::Declare { topic, create, reply }).await?;
        Ok(Destination::new())
    }

    fn publish(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        let (key, id) = (message.key.as_deref().unwrap_or_default(), message.id.as_deref().unwrap_or_default());
        let headers = message.headers.byte_len() + 8 * message.headers.len();
        let payload = message.payload.as_deref().unwrap_or_default();
        if payload.len().max(key.len() + id.len() + headers) > MAX_PAYLOAD {
            let message = "the payload, or key, id and headers together, are larger than a record may be";
            let error = Error::new(ErrorKind::TooLarge, message).with_context("limit", MAX_PAYLOAD);
            return confirmer.confirm(Err(error));
        }
        self.connection.publish(topic, message, confirmer);
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        let reading = Reading::begin(Arc::clone(&self.connection), subscription).await?;
        Ok(reading.into_source())
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
