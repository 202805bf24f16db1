//! Request and reply over topics, with the trace through both hops.
//!
//! A [`Requester`] reads a topic of replies; its requests carry that topic's name and a number in two headers, and whoever handles a
//! request [replies](crate::TracedBrokerExt::reply) to it. Both are ordinary messages, so that it works on every broker. The reply
//! continues the trace: request sent → request processed → reply sent → reply processed.
//!
//! The answering side publishes to whatever valid topic a request names. Where requests come from people who are not trusted, check
//! [`reply_topic`] first.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::address::{Subscription, Topic};
use crate::broker::TracedBroker;
use crate::consumer::Deliveries;
use crate::error::{Error, ErrorKind, Result};
use crate::handler::HandlerError;
use crate::message::Message;
use crate::received::Received;

/// Header of a request: the topic on which the reply is awaited.
pub const REPLY_TO: &str = "reply-to";
/// Header of a request and of its reply: which request it is.
pub const CORRELATION_ID: &str = "correlation-id";

/// How many requests of one [`Requester`] may be waiting for their replies.
pub const MAX_WAITING: usize = 4096;

/// Sends requests and waits for their replies, on a topic of replies.
///
/// Several requesters, also of several processes, may share one topic of replies: each takes those to its own requests. Dropping it
/// ends the reading.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use std::time::Duration;
/// use traced_broker::{HandlerError, Message, Received, Subscription, TracedBrokerExt, connect};
///
/// let broker = connect("memory://").await?;
/// let desk = broker.clone();
/// tokio::spawn(async move {
///     let handler = async |request: Received| {
///         desk.reply(&request, Message::new("42 EUR")).await?;
///         Ok::<_, HandlerError>(())
///     };
///     desk.consume(Subscription::new("prices").group("price-desk"), handler).run().await
/// });
///
/// let requester = broker.requester("prices.replies").await?;
/// let reply = requester.request("prices", Message::new("A-1"), Duration::from_secs(5)).await?;
/// assert_eq!(reply.payload(), "42 EUR");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Requester<B> {
    broker: B,
    reply_to: Topic,
    waiting: Arc<Waiting>,
    _reader: AbortOnDropHandle<()>,
}

/// The requests that wait, by their correlation id.
#[derive(Debug, Default)]
struct Waiting(Mutex<HashMap<String, oneshot::Sender<Received>>>);

impl<B: TracedBroker> Requester<B> {
    pub(crate) async fn start(broker: B, reply_topic: &str) -> Result<Self> {
        let reply_to = Topic::new(reply_topic)?;
        let replies = broker.subscribe(Subscription::new(reply_topic).at_most_once()).await?;
        let waiting = Arc::new(Waiting::default());
        let reader = AbortOnDropHandle::new(tokio::spawn(read(replies, Arc::clone(&waiting))));
        Ok(Self { broker, reply_to, waiting, _reader: reader })
    }

    /// Publishes a request and waits for its reply, no longer than `limit` for both together.
    ///
    /// # Errors
    /// What [`publish`](TracedBroker::publish) returns; [`ErrorKind::Timeout`] when no reply came in time, after which the request may
    /// still be handled and its reply is dropped; [`ErrorKind::Busy`] when [`MAX_WAITING`] requests wait already.
    pub async fn request(&self, topic: &str, mut message: Message, limit: Duration) -> Result<Received> {
        let (place, reply) = Place::take(&self.waiting)?;
        message.headers_mut().insert(REPLY_TO, self.reply_to.as_str());
        message.headers_mut().insert(CORRELATION_ID, &place.id);
        let answered = async {
            self.broker.publish(topic, message).await?;
            reply.await.map_err(|_| Error::new(ErrorKind::Closed, "the subscription to the replies has ended"))
        };
        let answered = timeout(limit, answered).await;
        answered.unwrap_or_else(|_| Err(no_reply(limit))).map_err(|error| {
            error.with_system(self.broker.system()).with_operation("request").with_context("topic", topic)
        })
    }

    /// The topic on which replies are awaited.
    pub fn reply_topic(&self) -> &Topic {
        &self.reply_to
    }
}

/// The topic to which a request asks to be answered; `None` when it names none, or none that is valid.
pub fn reply_topic(request: &Received) -> Option<Topic> {
    Topic::new(request.headers().get_str(REPLY_TO)?).ok()
}

/// The reply to a request: where to, and with what headers.
pub(crate) fn address_reply(request: &Received, mut reply: Message) -> Result<(Topic, Message)> {
    let id = request.headers().get(CORRELATION_ID);
    let (Some(topic), Some(id)) = (reply_topic(request), id) else {
        let message = "the message is no request: it names no topic to reply to, or no correlation id";
        return Err(Error::new(ErrorKind::InvalidMessage, message).with_operation("reply"));
    };
    reply.headers_mut().insert(CORRELATION_ID, id);
    Ok((topic, reply))
}

/// A place among the requests that wait, free again when it is dropped.
struct Place<'a> {
    id: String,
    waiting: &'a Waiting,
}

impl<'a> Place<'a> {
    fn take(waiting: &'a Waiting) -> Result<(Self, oneshot::Receiver<Received>)> {
        let (sender, receiver) = oneshot::channel();
        let mut places = waiting.0.lock();
        if places.len() >= MAX_WAITING {
            return Err(Error::new(ErrorKind::Busy, "too many requests wait for their replies; try again later")
                .with_operation("request")
                .with_context("waiting", places.len()));
        }
        let id = format!("{:032x}", fastrand::u128(..));
        places.insert(id.clone(), sender);
        Ok((Self { id, waiting }, receiver))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.0.lock().remove(&self.id);
    }
}

/// Hands replies to those who wait for them.
async fn read(mut replies: Deliveries, waiting: Arc<Waiting>) {
    while let Some(reply) = replies.next().await {
        let delivery = match reply {
            Ok(delivery) => delivery,
            Err(error) => {
                tracing::warn!(%error, "trouble with the subscription to replies, which goes on");
                continue;
            }
        };
        let id = delivery.message().headers().get_str(CORRELATION_ID);
        // Nobody here waits for it: a reply to another requester, or one that came too late. It is no work and gets no span.
        let Some(asker) = id.and_then(|id| waiting.0.lock().remove(id)) else { continue };
        let handing_over = delivery.process(async |reply: Received| {
            let _ = asker.send(reply);
            Ok::<_, HandlerError>(())
        });
        if let Err(error) = handing_over.await {
            tracing::warn!(%error, "a reply was not settled");
        }
    }
    // Nothing more will come: those who wait are told so at once.
    waiting.0.lock().clear();
}

fn no_reply(limit: Duration) -> Error {
    Error::new(ErrorKind::Timeout, format!("no reply came within {limit:?}"))
}
