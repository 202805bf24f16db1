//! The way of a message for a topic to the shared channel, and to the next one if that ends.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::runtime::Handle;

use super::super::config::Unroutable;
use super::super::headers::outgoing::Envelope;
use super::channel::{Fate, Publication, PublishChannel};
use super::refusals::Admission;
use super::stranded::Parcel;
use super::{Publisher, original};
use crate::driver::Outbound;
use crate::error::Result;
use crate::message::Topic;

impl Publisher {
    /// Enqueues a message on this channel, in call order.
    pub(super) fn publish_on(self: &Arc<Self>, channel: &Arc<PublishChannel>, parcel: Parcel) {
        match self.prepare(channel, &parcel.topic, &parcel.message) {
            Ok((publication, Admission::Shared)) => self.send(channel, publication, parcel),
            Ok((publication, Admission::Own)) => self.try_out(channel, publication, parcel),
            Err(error) => parcel.confirmer.confirm(Err(error)),
        }
    }

    fn prepare(&self, channel: &PublishChannel, topic: &Topic, message: &Outbound) -> Result<(Publication, Admission)> {
        // A message that is parked if no queue takes it has to be told apart from one that was
        // taken.
        let is_mandatory =
            message.is_mandatory || self.settings.unroutable == Unroutable::Reject || self.parking(topic).is_some();
        let publication = self.publication(channel, message, is_mandatory)?;
        Ok((publication, self.refusals.check(topic)?))
    }

    /// Encodes a message, and takes a place for it.
    pub(super) fn publication(
        &self,
        channel: &PublishChannel,
        message: &Outbound,
        is_mandatory: bool,
    ) -> Result<Publication> {
        let payload = self.check(message.payload.as_ref())?;
        let place = self.places.take()?;
        let number = channel.number();
        let (headers, key, id) = (&message.headers, message.key.as_ref(), message.id.as_deref());
        let original = original(message.native.as_ref());
        let envelope = Envelope { headers, key, id, original, number: Some(number), wait: None };
        let (properties, routing_key) = envelope.encode(self.settings.routing_key, channel.frame_max)?;
        Ok(Publication { routing_key, properties, payload, number, is_mandatory, place })
    }

    /// Sends the message on the shared channel. It is kept until it is answered: if the channel
    /// ends because of a message before it, the next channel gets it.
    fn send(self: &Arc<Self>, channel: &Arc<PublishChannel>, publication: Publication, parcel: Parcel) {
        let mut answer = channel.enqueue(&parcel.topic, publication, self.refused());
        match ((&mut answer).now_or_never(), Handle::try_current()) {
            // The broker may have answered already, also that no queue takes the message.
            (Some(answer), _) if !self.is_to_park(&parcel.topic, &answer) => conclude(channel, answer, parcel),
            (answered, Ok(runtime)) => {
                let (publisher, channel) = (Arc::clone(self), Arc::clone(channel));
                let counted = channel.strand.on_the_way();
                runtime.spawn(async move {
                    let answer = match answered {
                        Some(answer) => answer,
                        None => answer.await,
                    };
                    let answer = publisher.parked(&channel, &parcel.topic, &parcel.message, answer).await;
                    conclude(&channel, answer, parcel);
                    drop(counted);
                });
            }
            (Some(answer), Err(_)) => conclude(channel, answer, parcel),
            // Unknown, which a confirmer says that is dropped.
            (None, Err(_)) => drop(parcel),
        }
    }
}

fn conclude(channel: &PublishChannel, answer: Result<Fate>, parcel: Parcel) {
    match answer {
        Ok(Fate::Taken(receipt)) => parcel.confirmer.confirm(Ok(receipt)),
        Ok(Fate::Stranded(number, error)) => channel.strand.keep(number, parcel, error),
        Err(error) => parcel.confirmer.confirm(Err(error)),
    }
}
