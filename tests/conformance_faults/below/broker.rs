//! A broker that can be killed: the embedded one, whose connections end together.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;
use traced_broker::adapters::memory::Memory;
use traced_broker::conformance::{Harness, Killable};
use traced_broker::driver::{DeliveryHandle, Disposition, Driver};
use traced_broker::{Error, ErrorKind, Result};

use super::{Connection, DriverFault};

/// The handle of a delivery, which another delivery may settle.
pub(super) type Shared = Arc<Mutex<Option<Box<dyn DeliveryHandle>>>>;

/// A group and an offset in its topic.
pub(super) type Message = (String, i64);

/// The broker, which keeps its messages and groups over its deaths.
pub(super) struct Mortal {
    pub(super) fault: DriverFault,
    url: String,
    /// The number of this life; `None` while it is dead.
    pub(super) life: watch::Sender<Option<u64>>,
    deaths: Mutex<u64>,
    open: Mutex<Vec<Weak<Memory>>>,
    /// The newest delivery of each message.
    pub(super) newest: Mutex<BTreeMap<Message, (u64, Shared)>>,
    /// Messages that wait for a retry.
    pub(super) waiting: Mutex<Vec<Shared>>,
    /// The members of each group, oldest first: the number of messages that they may still take.
    pub(super) members: Mutex<BTreeMap<String, Vec<Weak<AtomicUsize>>>>,
    /// Keeps the messages.
    _anchor: Memory,
}

impl Mortal {
    pub(super) fn new(fault: DriverFault) -> Arc<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let url = format!("memory://below{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let _anchor = Memory::connect(&url.parse().unwrap()).unwrap();
        Arc::new(Self {
            fault,
            url,
            life: watch::Sender::new(Some(0)),
            deaths: Mutex::default(),
            open: Mutex::default(),
            newest: Mutex::default(),
            waiting: Mutex::default(),
            members: Mutex::default(),
            _anchor,
        })
    }

    /// Opens a connection that lasts for this life at most.
    pub(super) fn open(&self) -> Result<(u64, Arc<Memory>)> {
        // Locked before the look at the life: a kill closes every connection that was opened in it.
        let mut open = self.open.lock();
        let life = *self.life.borrow();
        let life = life.ok_or_else(|| Error::new(ErrorKind::Unavailable, "the broker is away"))?;
        let memory = Arc::new(Memory::connect(&self.url.parse()?)?);
        open.push(Arc::downgrade(&memory));
        Ok((life, memory))
    }
}

/// Access to a mortal broker for the kit.
pub(crate) struct MortalHarness(Arc<Mortal>);

impl MortalHarness {
    pub(super) fn new(fault: DriverFault) -> Self {
        Self(Mortal::new(fault))
    }
}

#[async_trait]
impl Harness for MortalHarness {
    fn name(&self) -> &str {
        "below"
    }

    async fn connect(&self) -> Result<Arc<dyn Driver>> {
        Ok(Arc::new(Connection::open(&self.0)?))
    }

    async fn start_mortal(&self) -> Result<Option<Arc<dyn Killable>>> {
        Ok(Some(Arc::new(OwnBroker(Mortal::new(self.0.fault)))))
    }

    fn many(&self) -> usize {
        2_000
    }
}

/// A broker that one case kills.
struct OwnBroker(Arc<Mortal>);

#[async_trait]
impl Killable for OwnBroker {
    async fn connect(&self) -> Result<Arc<dyn Driver>> {
        Ok(Arc::new(Connection::open(&self.0)?))
    }

    async fn kill(&self) -> Result<()> {
        self.0.life.send_replace(None);
        if self.0.fault == DriverFault::ForgetsDelays {
            for waiting in std::mem::take(&mut *self.0.waiting.lock()) {
                let handle = waiting.lock().take();
                drop(handle.map(|handle| handle.settle(Disposition::Retry(Duration::ZERO))));
            }
        }
        let open = std::mem::take(&mut *self.0.open.lock());
        for memory in open.iter().filter_map(Weak::upgrade) {
            memory.close().await?;
        }
        Ok(())
    }

    async fn restart(&self) -> Result<()> {
        let life = {
            let mut deaths = self.0.deaths.lock();
            *deaths += 1;
            *deaths
        };
        self.0.life.send_replace(Some(life));
        Ok(())
    }
}
