//! Keeps a channel open, and replaces one on which the broker refuses messages.
//!
//! RabbitMQ remembers for each channel who leads a queue. A channel that first publishes to a
//! quorum queue while it has no leader, in the moment after its server died, refuses every message
//! for that queue until that server is back, although the queue has a new leader long before
//! (`rabbit_fifo_client` of RabbitMQ 3.10). A new channel asks again. The client cannot tell this
//! from a queue that is full, so it pauses longer each time.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::time::{Instant, timeout};

use super::super::connection::Live;
use super::super::connection::link::{Link, Pauses};
use super::Publisher;
use super::channel::PublishChannel;
use crate::driver::Topology;
use crate::error::{ErrorKind, Result};

/// Interval of looks at messages that wait for a channel.
const EXPIRY: Duration = Duration::from_millis(100);
/// Interval of checks of the channel while the connection reports no event.
const LOOK: Duration = Duration::from_secs(1);
/// Maximum time for which messages are held until all confirms of the old channel are there.
const HOLD: Duration = Duration::from_secs(1);
/// The shortest and the longest time between two replacements.
const REPLACEMENTS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The times of replacements: twice as far apart each time, until none was needed for twice the
/// longest pause.
struct Pace {
    last: Option<Instant>,
    pause: Duration,
}

impl Pace {
    /// Returns `true` if the channel may be replaced now.
    fn allows(&mut self, now: Instant) -> bool {
        let (shortest, longest) = REPLACEMENTS;
        let since = self.last.map(|last| now.duration_since(last));
        self.pause = match since {
            Some(since) if since < self.pause => return false,
            Some(since) if since < 2 * longest => longest.min(2 * self.pause),
            _ => shortest,
        };
        self.last = Some(now);
        true
    }
}

enum Event {
    Ended,
    Refused,
}

impl Publisher {
    pub(super) async fn keep_open(self: Arc<Self>, link: Arc<Link>, live: Arc<Live>, channel: Arc<PublishChannel>) {
        let mut current = (live, channel);
        let mut pace = Pace { last: None, pause: REPLACEMENTS.0 };
        loop {
            match self.next_event(&current.0, &current.1).await {
                Event::Refused if !pace.allows(Instant::now()) => {}
                Event::Refused => {
                    if let Some(new) = self.replace(&current.0, &current.1).await {
                        current.1 = new;
                    }
                }
                Event::Ended => {
                    if !self.current.lost() {
                        return;
                    }
                    self.current.hold_first(current.1.strand.take().await);
                    let Ok(opened) = self.reopen(&link).await else { return };
                    opened.1.waits.inherit(&current.1.waits);
                    current = opened;
                    if !self.release(&current.1) {
                        return;
                    }
                }
            }
        }
    }

    /// Changes to a new channel of the same connection. The old one ends with its last confirm.
    async fn replace(self: &Arc<Self>, live: &Arc<Live>, old: &Arc<PublishChannel>) -> Option<Arc<PublishChannel>> {
        tracing::debug!("the broker refuses messages, publishing goes on over another channel");
        let new = match PublishChannel::open(live, &self.settings, &self.routes).await {
            Ok(new) => Arc::new(new.knowing(old)),
            Err(error) => {
                tracing::warn!(%error, "no other channel to publish on");
                return None;
            }
        };
        self.current.hold();
        // The order of messages is worth more than a new channel.
        let is_quiet = timeout(HOLD, self.places.all_free()).await.is_ok();
        if is_quiet {
            // If it has ended meanwhile.
            self.current.hold_first(old.strand.take().await);
        }
        let next = if is_quiet { new } else { Arc::clone(old) };
        self.release(&next);
        is_quiet.then_some(next)
    }

    fn release(self: &Arc<Self>, channel: &Arc<PublishChannel>) -> bool {
        self.current.release(channel, |parcel| self.publish_on(channel, parcel))
    }

    /// Opens a channel again. Meanwhile, gives up messages that have waited for it too long.
    async fn reopen(&self, link: &Link) -> Result<(Arc<Live>, Arc<PublishChannel>)> {
        let opened = async {
            let mut pauses = Pauses::default();
            loop {
                let live = link.restored().await?;
                match PublishChannel::open(&live, &self.settings, &self.routes).await {
                    Ok(channel) => return Ok((live, Arc::new(channel))),
                    Err(error) => tracing::warn!(%error, "no channel to publish on"),
                }
                pauses.next().await;
            }
        };
        let mut opened = pin!(opened);
        loop {
            if let Ok(opened) = timeout(EXPIRY, &mut opened).await {
                return opened;
            }
            self.current.expire(link.current().map_or_else(|error| error.kind(), |_| ErrorKind::Unavailable));
        }
    }

    /// Waits until the channel has ended or the broker has refused a message on it.
    async fn next_event(&self, live: &Arc<Live>, channel: &PublishChannel) -> Event {
        loop {
            let changed = live.changed.notified();
            if !channel.is_open() {
                return Event::Ended;
            }
            self.restore_waits(live, channel);
            select! {
                biased;
                () = channel.refused.notified() => return Event::Refused,
                _ = timeout(LOOK, changed) => {}
            }
        }
    }

    /// Binds the targets again for which messages wait. If an operator deletes one, its binding is
    /// gone when another program makes it again.
    fn restore_waits(&self, live: &Arc<Live>, channel: &PublishChannel) {
        let topology = self.settings.topology;
        if topology == Topology::Create && channel.waits.are_due() {
            let (engine, live, waits) = (Arc::clone(&live.engine), Arc::clone(live), Arc::clone(&channel.waits));
            engine.spawn(async move { waits.restore_due(&live, topology).await });
        }
    }
}
