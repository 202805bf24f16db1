//! Publishing: messages with their header blocks, and the server's confirmations.

pub(crate) mod delay;
pub(crate) mod election;
pub(crate) mod shared;

use async_nats::message::OutboundMessage;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::driver::{Confirmer, Outbound};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Receipt, Topic};

pub(super) use super::connection::elections::Publish;
use super::connection::link::{Link, send};
use super::connection::replies::Awaiting;
use super::headers::Schedule;
use crate::adapters::nats::headers;
use crate::adapters::nats::topology::names;

/// Number of unconfirmed publishes after which to wait until the client has written them. This is
/// their only back-pressure.
const FLUSH_EVERY: u64 = 512;

/// Publishes to a stream; the answer contains the sequence of the message in it. With a schedule,
/// the stream keeps the message until it is due, and the answer confirms that.
pub(super) fn stored(link: &Link, publish: Publish) {
    if let Some(publish) = link.elections().hold(publish) {
        let _ = send_now(link, publish);
    }
}

/// Sends a message, and returns the number of the request.
fn send_now(link: &Link, publish: Publish) -> Option<u64> {
    match prepare(link, &publish) {
        Ok(prepared) => Some(link.ask(prepared, Awaiting::Publish(Box::new(publish)))),
        Err(error) => {
            publish.confirmer.confirm(Err(error));
            None
        }
    }
}

/// Publishes to the subscribers of the moment, without a confirmation from the server. The answer
/// is given when there is room for more.
pub(super) fn unconfirmed(link: &Link, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
    let sent = write(link, topic, &message, None, None).and_then(|message| {
        if !link.health().is_connected() {
            return Err(link.disconnected());
        }
        send(link.client(), message)
    });
    match sent {
        Err(error) => confirmer.confirm(Err(error)),
        Ok(()) if link.count_unconfirmed() % FLUSH_EVERY == FLUSH_EVERY - 1 => {
            let (client, patience) = (link.client().clone(), link.patience());
            let flushed = async move {
                // The message is in the queue, whatever the result of the wait.
                let _ = timeout(patience, client.flush()).await;
                confirmer.confirm(Ok(Receipt::unconfirmed()));
            };
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn(flushed);
            }
        }
        Ok(()) => confirmer.confirm(Ok(Receipt::unconfirmed())),
    }
}

fn prepare(link: &Link, publish: &Publish) -> Result<OutboundMessage> {
    let Publish { topic, message, schedule, is_shared, .. } = publish;
    write(link, topic, message, schedule.as_ref(), is_shared.then_some(topic))
}

/// Writes a message; `scope` is the topic for which alone its id is to count.
fn write(
    link: &Link,
    topic: &Topic,
    message: &Outbound,
    schedule: Option<&Schedule>,
    scope: Option<&Topic>,
) -> Result<OutboundMessage> {
    let mut block = headers::write(message, scope.map(Topic::as_str))?;
    let mut subject = names::subject(topic);
    if let Some(schedule) = schedule {
        block.keep(schedule, &subject)?;
        subject = names::delayed_subject(topic, &link.unique());
    }
    let Some(payload) = message.payload.clone() else {
        return Err(Error::new(ErrorKind::Unsupported, "NATS has no messages without a payload"));
    };
    let (size, limit) = (block.wire_len + payload.len(), link.client().max_payload());
    if size > limit {
        return Err(Error::new(ErrorKind::TooLarge, "the message with its headers is larger than the server accepts")
            .with_context("size", size)
            .with_context("limit", limit));
    }
    Ok(OutboundMessage { subject, payload, reply: None, headers: block.headers })
}
