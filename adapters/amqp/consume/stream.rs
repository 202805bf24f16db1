//! The stream of one subscription, across connections.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::super::SYSTEM;
use super::super::config::RoutingKey;
use super::super::connection::link::Pauses;
use super::super::headers::copy::Original;
use super::super::headers::incoming::Decoded;
use super::super::trials::{Log, LookUp, Suspect};
use super::Plan;
use super::delivery::Handle;
use super::held::Arrival;
use super::intake::{Fetched, Intake};
use super::retry::{Arrived, Counted};
use crate::driver::{Inbound, Native};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Guarantee;
use crate::names::header;

/// Maximum number of messages that are held for one look-up.
const MAX_HELD: usize = 256;

/// The stream of one subscription.
pub(crate) struct Deliveries {
    plan: Arc<Plan>,
    state: State,
    /// `true` while messages are held because a suspect is among them.
    is_holding: bool,
    /// Their look-up, until it is answered.
    looking: Option<LookUp>,
    /// The log of their trials, once there is one.
    log: OnceLock<Arc<Log>>,
}

enum State {
    Reading(Arc<Intake>),
    Resuming(BoxFuture<'static, Result<(Result<Arc<Intake>>, Pauses)>>),
    Ended,
}

impl Deliveries {
    pub(in super::super) fn new(plan: Arc<Plan>, intake: Arc<Intake>) -> Self {
        Self { plan, state: State::Reading(intake), is_holding: false, looking: None, log: OnceLock::new() }
    }

    fn resume(&mut self, pauses: Pauses) {
        // On the engine, so that it begins and ends although the stream is not polled any more.
        let (plan, engine) = (Arc::clone(&self.plan), Arc::clone(&self.plan.engine));
        let resumed = async move { engine.run(async move { Ok(plan.resume(pauses).await) }).await };
        self.state = State::Resuming(resumed.boxed());
    }

    /// Returns the message, unless a copy takes its place.
    fn inbound(&self, intake: &Arc<Intake>, Fetched { at, delivery }: Fetched) -> Option<Arrival> {
        let (settler, retry_target) = (Arc::clone(&intake.settler), Arc::clone(&intake.retry_target));
        let tag = delivery.delivery_tag;
        let Arrived { mut decoded, original, deliveries, is_worn_out, is_suspect } = retry_target.read(delivery);
        let at_most_once = self.plan.subscription.guarantee() == Guarantee::AtMostOnce;
        let tenure = settler.deliver(tag, at, original.is_last);
        if at_most_once {
            // If the channel has just ended, this fails and the broker redelivers the message.
            let _ = settler.ack(tag);
        } else if is_worn_out {
            retry_target.put_back(&settler, tag, Duration::ZERO, original, Counted::Nothing);
            return None;
        }
        let suspect = if is_suspect && !at_most_once { self.suspect(intake, &original) } else { None };
        let routed = self.routed(&mut decoded, original.routing_key.as_str());
        let native = Some(Native::shared(SYSTEM, original.properties.clone()));
        let inbound = Inbound {
            payload: Some(original.payload.clone()),
            key: decoded.key.or(routed),
            id: decoded.id,
            headers: decoded.headers,
            unreadable_headers: decoded.unreadable,
            attempt: original.attempt,
            deliveries,
            lost_trials: None,
            timestamp: decoded.timestamp,
            partition: None,
            offset: None,
            native,
            tenure,
            handle: Box::new(Handle {
                intake: Arc::downgrade(intake),
                settler,
                tag,
                at_most_once,
                retry_target,
                original,
                suspect: suspect.clone(),
            }),
        };
        Some(Arrival { inbound, suspect })
    }

    /// Returns the message as a suspect, unless its trials cannot be noted now.
    fn suspect(&self, intake: &Intake, original: &Original) -> Option<Arc<Suspect>> {
        let log = self.log.get_or_init(|| self.plan.logs.of(intake.queue()));
        (!log.rests()).then(|| Suspect::new(Arc::clone(log), original))
    }

    /// Holds a suspect and the messages that have come behind it, until its lost trials are known.
    fn hold(&mut self, intake: &Arc<Intake>, suspect: Arrival, cx: &mut Context<'_>) {
        let mut arrivals = VecDeque::from([suspect]);
        while arrivals.len() < MAX_HELD
            && let Poll::Ready(Some(fetched)) = intake.poll_next(cx)
        {
            arrivals.extend(self.inbound(intake, fetched));
        }
        self.looking = self.plan.held.hold(arrivals);
        self.is_holding = true;
    }

    /// Returns the next message that was held.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Option<Inbound>> {
        if let Some(looking) = &mut self.looking {
            let lost = ready!(looking.poll_unpin(cx));
            self.looking = None;
            self.plan.held.answer(lost);
        }
        let next = self.plan.held.next();
        self.is_holding = next.is_some();
        Poll::Ready(next)
    }

    /// Returns the routing key if it is the message's key. Otherwise, it becomes a header.
    fn routed(&self, decoded: &mut Decoded, routing_key: &str) -> Option<Bytes> {
        if routing_key.is_empty() {
            return None;
        }
        if self.plan.settings.routing_key == RoutingKey::Key {
            return Some(Bytes::copy_from_slice(routing_key.as_bytes()));
        }
        if !decoded.headers.contains(header::AMQP_ROUTING_KEY) {
            decoded.headers.append(header::AMQP_ROUTING_KEY, routing_key);
        }
        None
    }
}

/// The queue of a reader without a group is gone with its connection, or when it is deleted.
fn gap() -> Error {
    let message = "the queue of this reader was lost and is made anew: messages published meanwhile may be missing, \
                   which only a group receives";
    Error::new(ErrorKind::Unavailable, message)
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        if self.is_holding {
            self.plan.stop();
        }
    }
}

impl Stream for Deliveries {
    type Item = Result<Inbound>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.is_holding
                && let Some(inbound) = ready!(self.poll_held(cx))
            {
                return Poll::Ready(Some(Ok(inbound)));
            }
            match &mut self.state {
                State::Reading(intake) => match ready!(intake.poll_next(cx)) {
                    Some(fetched) => {
                        let State::Reading(intake) = &self.state else { return Poll::Ready(None) };
                        match self.inbound(intake, fetched) {
                            Some(Arrival { inbound, suspect: None }) => return Poll::Ready(Some(Ok(inbound))),
                            Some(suspect) => {
                                let intake = Arc::clone(intake);
                                self.hold(&intake, suspect, cx);
                            }
                            None => {}
                        }
                    }
                    None => {
                        intake.settler.abandon();
                        self.resume(Pauses::default());
                    }
                },
                State::Resuming(resumed) => match ready!(resumed.poll_unpin(cx)) {
                    Ok((Ok(intake), _)) => {
                        self.state = State::Reading(intake);
                        if self.plan.subscription.group_name().is_none() {
                            return Poll::Ready(Some(Err(gap())));
                        }
                    }
                    Ok((Err(error), _)) if error.kind() == ErrorKind::Closed => self.state = State::Ended,
                    Ok((Err(error), pauses)) => {
                        self.resume(pauses);
                        return Poll::Ready(Some(Err(error)));
                    }
                    Err(error) => {
                        self.resume(Pauses::default());
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                State::Ended => return Poll::Ready(None),
            }
        }
    }
}
