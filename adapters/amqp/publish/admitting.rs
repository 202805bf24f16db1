//! The way of messages to topics that were refused: each is tried out on a channel of its own, so
//! that another refusal does not end the channel of all.

use std::sync::Arc;

use super::super::connection::pending;
use super::Publisher;
use super::channel::{Fate, Publication, PublishChannel};
use super::refusals::Admission;
use super::stranded::Parcel;
use crate::driver::Topology;
use crate::error::Result;

impl Publisher {
    /// Returns the action at a publish that ends the channel.
    pub(super) fn refused(&self) -> impl FnOnce(&lapin::Error) + Send + use<> {
        let (refusals, routes) = (Arc::clone(&self.refusals), Arc::clone(&self.routes));
        let may_create = self.settings.topology == Topology::Create;
        move |error| {
            if let Some(topic) = refusals.note(error, may_create) {
                routes.deleted(&topic);
            }
        }
    }

    /// Publishes the message on a channel of its own. If the broker takes it, further messages go
    /// over the shared one again.
    pub(super) fn try_out(
        self: &Arc<Self>,
        shared: &Arc<PublishChannel>,
        publication: Publication,
        Parcel { topic, message, confirmer }: Parcel,
    ) {
        let (publisher, shared) = (Arc::clone(self), Arc::clone(shared));
        let tried = pending::begin(async move {
            let channel = publisher.admitted(shared, Admission::Own).await?;
            let answer = channel.enqueue(&topic, publication, publisher.refused()).await;
            let answer = publisher.parked(&channel, &topic, &message, answer).await;
            publisher.conclude(&channel, Admission::Own, &topic);
            answer.and_then(Fate::or_error)
        });
        tried.pass_to(confirmer);
    }

    /// Returns the shared channel, or a new one of the same connection.
    pub(super) async fn admitted(
        &self,
        shared: Arc<PublishChannel>,
        admission: Admission,
    ) -> Result<Arc<PublishChannel>> {
        match admission {
            Admission::Shared => Ok(shared),
            Admission::Own => PublishChannel::open(&shared.live()?, &self.settings, &self.routes).await.map(Arc::new),
        }
    }

    /// Looks at the channel of a message that is answered. If it was its own, and the broker has
    /// not ended it, the topic is refused no longer.
    pub(super) fn conclude(&self, channel: &PublishChannel, admission: Admission, topic: &str) {
        if admission == Admission::Own && channel.is_open() {
            self.refusals.forget(topic);
        }
    }
}
