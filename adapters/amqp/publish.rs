//! Publishing over whichever connection there is now.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::timeout;

use super::config::Settings;
use super::connection::Live;
use super::lane::{Lane, Publication};
use super::link::{Link, Pauses, disconnected};
use super::outgoing::Envelope;
use super::places::Places;
use super::refusals::Refusals;
use crate::address::Topic;
use crate::driver::{Confirmation, Outbound};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Receipt;

/// How often the channel is looked at when the connection reports nothing.
const LOOK: Duration = Duration::from_secs(1);

/// Publishes on the current [`Lane`] and replaces it when it ends.
#[derive(Debug)]
pub(super) struct Publisher {
    settings: Arc<Settings>,
    /// The channel, or why there is none.
    lane: Mutex<Result<Arc<Lane>, ErrorKind>>,
    places: Arc<Places>,
    refusals: Arc<Refusals>,
}

impl Publisher {
    /// Opens the channel, and keeps one open until `link` is closed.
    pub(super) async fn start(settings: &Arc<Settings>, link: Arc<Link>) -> Result<Arc<Self>> {
        let live = link.current()?;
        let lane = Arc::new(Lane::open(&live, settings).await?);
        let publisher = Arc::new(Self {
            settings: Arc::clone(settings),
            lane: Mutex::new(Ok(Arc::clone(&lane))),
            places: Places::new(settings.max_in_flight),
            refusals: Arc::default(),
        });
        let closed = link.closed().clone();
        let keep_open = Arc::clone(&publisher).keep_open(link, live, lane);
        tokio::spawn(async move { closed.run_until_cancelled(keep_open).await });
        Ok(publisher)
    }

    /// Enqueues a message; nothing of it was sent if this fails.
    pub(super) fn publish(&self, topic: &Topic, message: Outbound) -> Result<Confirmation<Receipt>> {
        let Some(payload) = message.payload else {
            return Err(Error::new(ErrorKind::Unsupported, "RabbitMQ has no messages without a payload"));
        };
        if payload.len() > self.settings.max_payload {
            return Err(Error::new(
                ErrorKind::TooLarge,
                "the payload is larger than the broker takes: see max_payload",
            )
            .with_context("size", payload.len())
            .with_context("limit", self.settings.max_payload));
        }
        let lane = self.lane.lock().clone().map_err(disconnected)?;
        self.refusals.check(topic)?;
        let place = self.places.take()?;
        let number = lane.number();
        let envelope = Envelope { headers: &message.headers, key: message.key.as_ref(), id: message.id, number };
        let (properties, routing_key) = envelope.encode(self.settings.routing_key, lane.frame_max)?;
        let refusals = Arc::clone(&self.refusals);
        let publication = Publication { routing_key, properties, payload, number, place };
        lane.enqueue(topic, publication, move |error| refusals.note(error))
    }

    /// Takes no more messages and waits for the confirms of those taken.
    pub(super) async fn finish(&self, patience: Duration) -> Result<()> {
        *self.lane.lock() = Err(ErrorKind::Closed);
        let message = "messages were unconfirmed when the broker was closed";
        let all = timeout(patience, self.places.all_free()).await;
        all.map_err(|_| Error::new(ErrorKind::Timeout, message))
    }

    async fn keep_open(self: Arc<Self>, link: Arc<Link>, live: Arc<Live>, lane: Arc<Lane>) {
        let mut current = (live, lane);
        loop {
            let (live, lane) = &current;
            loop {
                let changed = live.changed.notified();
                if !lane.is_open() {
                    break;
                }
                let _ = timeout(LOOK, changed).await;
            }
            if !self.set_lane(Err(ErrorKind::Unavailable)) {
                return;
            }
            let Ok(opened) = self.reopen(&link).await else { return };
            current = opened;
            if !self.set_lane(Ok(Arc::clone(&current.1))) {
                return;
            }
        }
    }

    /// Replaces the lane unless the publisher was closed.
    fn set_lane(&self, new: Result<Arc<Lane>, ErrorKind>) -> bool {
        let mut lane = self.lane.lock();
        let open = !matches!(*lane, Err(ErrorKind::Closed));
        if open {
            *lane = new;
        }
        open
    }

    async fn reopen(&self, link: &Link) -> Result<(Arc<Live>, Arc<Lane>)> {
        let mut pauses = Pauses::default();
        loop {
            let live = link.restored().await?;
            match Lane::open(&live, &self.settings).await {
                Ok(lane) => return Ok((live, Arc::new(lane))),
                Err(error) => tracing::warn!(%error, "no channel to publish on"),
            }
            pauses.next().await;
        }
    }
}
