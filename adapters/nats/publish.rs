//! The way out: messages with their header blocks, and the server's confirmations.

use async_nats::message::OutboundMessage;
use async_nats::{Message, StatusCode};
use serde::Deserialize;

use crate::address::Topic;
use crate::driver::{Confirmation, Outbound};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Receipt;

use super::delay::Schedule;
use super::error::{self, Refusal};
use super::link::{Link, send};
use super::replies::Awaiting;
use super::{delay, headers, names};

/// After how many unconfirmed publishes to wait until the client has written them: the only back-pressure there is.
const FLUSH_EVERY: u64 = 512;

/// Publishes to a stream; the answer tells where in it the message is stored.
pub(super) fn stored(link: &Link, topic: &Topic, message: Outbound) -> Confirmation<Receipt> {
    match prepare(link, topic, message, None) {
        Ok(message) => {
            let (confirmer, confirmation) = Confirmation::pending();
            link.ask(message, Awaiting::Publish(confirmer));
            confirmation
        }
        Err(error) => Confirmation::ready(Err(error)),
    }
}

/// Has the stream keep a message until it is due; the answer tells that it does.
pub(super) fn kept(link: &Link, topic: &Topic, message: Outbound, schedule: &Schedule) -> Confirmation<Receipt> {
    match prepare(link, topic, message, Some(schedule)) {
        Ok(message) => {
            let (confirmer, confirmation) = Confirmation::pending();
            link.ask(message, Awaiting::Keep(confirmer));
            confirmation
        }
        Err(error) => Confirmation::ready(Err(error)),
    }
}

/// Publishes to whoever listens. Nothing is confirmed; the confirmation is ready when there is room for more.
pub(super) fn unconfirmed(link: &Link, topic: &Topic, message: Outbound) -> Confirmation<Receipt> {
    let sent = prepare(link, topic, message, None).and_then(|message| {
        if !link.health().is_connected() {
            return Err(error::disconnected());
        }
        send(link.client(), message)
    });
    match sent {
        Err(error) => Confirmation::ready(Err(error)),
        Ok(()) if link.count_unconfirmed() % FLUSH_EVERY == FLUSH_EVERY - 1 => {
            let client = link.client().clone();
            Confirmation::running(async move {
                // The message is in the queue whatever becomes of the wait: there is nothing else to report.
                let _ = client.flush().await;
                Ok(Receipt::unconfirmed())
            })
        }
        Ok(()) => Confirmation::ready(Ok(Receipt::unconfirmed())),
    }
}

fn prepare(link: &Link, topic: &Topic, message: Outbound, schedule: Option<&Schedule>) -> Result<OutboundMessage> {
    let mut block = headers::write(&message)?;
    let mut subject = names::subject(topic);
    if let Some(schedule) = schedule {
        block.keep(schedule, &subject)?;
        subject = delay::subject(topic, &link.unique());
    }
    let Some(payload) = message.payload else {
        return Err(Error::new(ErrorKind::Unsupported, "NATS has no messages without a payload"));
    };
    let (size, limit) = (block.wire_len + payload.len(), link.client().max_payload());
    if size > limit {
        return Err(Error::new(ErrorKind::TooLarge, "the message with its headers is larger than the server takes")
            .with_context("size", size)
            .with_context("limit", limit));
    }
    Ok(OutboundMessage { subject, payload, reply: None, headers: block.headers })
}

#[derive(Debug, Deserialize)]
struct Acknowledgement {
    #[serde(default)]
    seq: u64,
    error: Option<Refusal>,
}

/// Reads the server's answer to a publish.
pub(super) fn receipt(answer: &Message) -> Result<Receipt> {
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        let message = "no stream takes this topic: it was deleted, or its cluster is electing a leader";
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    let acknowledgement: Acknowledgement =
        serde_json::from_slice(&answer.payload).map_err(|error| error::unreadable(error).with_unknown_outcome())?;
    match acknowledgement.error {
        Some(refusal) => Err(refusal.into()),
        None => Ok(Receipt::confirmed().with_offset(i64::try_from(acknowledgement.seq).unwrap_or(i64::MAX))),
    }
}
