//! Request and reply over topics, with the trace through both hops.
//!
//! A [`Requester`] reads a topic of replies. Its requests carry the name of that topic and a number
//! in two headers, and the handler of a request [replies](crate::TracedBrokerExt::reply) to it.
//! Both are ordinary messages, so this works on every broker. The reply continues the trace:
//! request sent → request processed → reply sent → reply processed.
//!
//! The answering side publishes only to topics that are meant for replies, because a request may
//! come from an untrusted peer: [`ReplyTopics`] are those with the word `replies` in their name,
//! unless the program allows others.
//!
//! A name such as `prices.replies.7f3a`, one for each process, is temporary. Spans and metrics then
//! show `prices.replies.*`, so that their number stays small.

use crate::names::header;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::broker::{Deliveries, TracedBroker};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{HandlerError, Message, Received, Subscription, Topic, is_marked_for_replies};

/// Maximum number of requests of one [`Requester`] that may wait for their replies.
pub const MAX_WAITING: usize = 4096;

/// The topics to which a program replies. The default are those whose names have the word
/// `replies`, set apart by dots, dashes or underscores: `replies`, `prices.replies`,
/// `prices-replies.7f3a`.
///
/// A request names its reply topic in a header, which a stranger can write. Without a rule, it
/// could make the answering side publish to any topic, and create new ones.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use futures_util::StreamExt;
/// use traced_broker::names::header;
/// use traced_broker::request::ReplyTopics;
/// use traced_broker::{ErrorKind, Message, Subscription};
/// use traced_broker::{TracedBroker, TracedBrokerExt, connect};
///
/// let broker = connect("memory://").await?;
/// let mut prices = broker.subscribe(Subscription::new("prices").group("price-desk")).await?;
/// let request = Message::new("A-1").header(header::CORRELATION_ID, "1");
/// broker.publish("prices", request.header(header::REPLY_TO, "partner.answers")).await?;
/// let delivery = prices.next().await.expect("the broker is open")?;
///
/// let error = broker.reply(delivery.message(), Message::new("42 EUR")).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::PermissionDenied);
///
/// let allowed = ReplyTopics::default().allow("partner.answers");
/// broker.reply_within(&allowed, delivery.message(), Message::new("42 EUR")).await?;
/// delivery.ack().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ReplyTopics {
    are_marked: bool,
    names: Vec<String>,
    prefixes: Vec<String>,
}

impl Default for ReplyTopics {
    fn default() -> Self {
        Self { are_marked: true, names: Vec::new(), prefixes: Vec::new() }
    }
}

impl ReplyTopics {
    /// Creates a rule that allows no topic yet.
    pub fn none() -> Self {
        Self { are_marked: false, ..Self::default() }
    }

    /// Allows this topic as well.
    pub fn allow(mut self, topic: impl Into<String>) -> Self {
        self.names.push(topic.into());
        self
    }

    /// Allows all topics whose names begin so as well.
    ///
    /// ```
    /// use traced_broker::request::ReplyTopics;
    ///
    /// let rule = ReplyTopics::none().allow_prefix("partner.answers.");
    /// assert!(rule.allows("partner.answers.7f3a"));
    /// assert!(!rule.allows("partner.orders") && !rule.allows("prices.replies"));
    /// ```
    pub fn allow_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefixes.push(prefix.into());
        self
    }

    /// Returns `true` if the rule allows the topic.
    pub fn allows(&self, topic: &str) -> bool {
        (self.are_marked && is_marked_for_replies(topic))
            || self.names.iter().any(|name| name == topic)
            || self.prefixes.iter().any(|prefix| topic.starts_with(prefix.as_str()))
    }
}

/// A sender of requests, which waits for their replies on a topic of replies.
///
/// Several requesters, even of several processes, may share one topic of replies: each takes the
/// replies to its own requests. Dropping a requester ends its reading.
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

    /// Publishes a request and waits for its reply, for at most `limit` in total.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use std::time::Duration;
    /// use traced_broker::{ErrorKind, Message, TracedBrokerExt, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let requester = broker.requester("prices.replies").await?;
    /// let limit = Duration::from_millis(50);
    /// let error = requester.request("prices", Message::new("A-1"), limit).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Timeout); // No consumer answers.
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The errors of [`publish`](TracedBroker::publish); [`ErrorKind::Timeout`] if no reply came in
    /// time, after which the request may still be handled and its reply is dropped;
    /// [`ErrorKind::Busy`] if [`MAX_WAITING`] requests are already waiting; [`ErrorKind::Closed`]
    /// if the subscription to the replies has ended.
    pub async fn request(&self, topic: &str, mut message: Message, limit: Duration) -> Result<Received> {
        let (pending, reply) = PendingReply::take(&self.waiting)?;
        message.headers_mut().insert(header::REPLY_TO, self.reply_to.as_str());
        message.headers_mut().insert(header::CORRELATION_ID, &pending.id);
        let answered = async {
            self.broker.publish(topic, message).await?;
            reply.await.map_err(|_| Error::new(ErrorKind::Closed, "the subscription to the replies has ended"))
        };
        let answered = timeout(limit, answered).await;
        answered.unwrap_or_else(|_| Err(no_reply(limit))).map_err(|error| {
            error.with_system(self.broker.system()).with_operation("request").with_context("topic", topic)
        })
    }

    /// Returns the topic on which replies are awaited.
    pub fn reply_topic(&self) -> &Topic {
        &self.reply_to
    }
}

/// Returns the topic to which a request asks to be answered; `None` if it names none, or an invalid
/// one.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use futures_util::StreamExt;
/// use traced_broker::names::header;
/// use traced_broker::request::reply_topic;
/// use traced_broker::{Message, Subscription, TracedBroker, connect};
///
/// let broker = connect("memory://").await?;
/// let mut prices = broker.subscribe(Subscription::new("prices").group("price-desk")).await?;
/// let request = Message::new("A-1").header(header::REPLY_TO, "prices.replies");
/// broker.publish("prices", request).await?;
///
/// let delivery = prices.next().await.expect("the broker is open")?;
/// let topic = reply_topic(delivery.message()).expect("a request");
/// assert!(topic.starts_with("prices.")); // not any topic of this broker
/// delivery.ack().await?;
/// # Ok(()) }
/// ```
pub fn reply_topic(request: &Received) -> Option<Topic> {
    Topic::new(request.headers().get_str(header::REPLY_TO)?).ok()
}

/// Returns the topic of the reply to a request, and the reply with its headers.
///
/// # Errors
/// [`ErrorKind::InvalidMessage`] if the message is not a request,
/// [`ErrorKind::PermissionDenied`] if `allowed` does not allow its topic.
pub(crate) fn address_reply(allowed: &ReplyTopics, request: &Received, mut reply: Message) -> Result<(Topic, Message)> {
    let id = request.headers().get(header::CORRELATION_ID);
    let (Some(topic), Some(id)) = (reply_topic(request), id) else {
        let message = "the message is not a request: it has no reply topic or no correlation id";
        return Err(Error::new(ErrorKind::InvalidMessage, message).with_operation("reply"));
    };
    if !allowed.allows(&topic) {
        let message = "the request names a reply topic that is not allowed: see request::ReplyTopics";
        return Err(Error::new(ErrorKind::PermissionDenied, message)
            .with_operation("reply")
            .with_context("topic", topic));
    }
    reply.headers_mut().insert(header::CORRELATION_ID, id);
    Ok((topic, reply))
}

/// A pending among the waiting requests, which is free again when it is dropped.
struct PendingReply<'a> {
    id: String,
    waiting: &'a Waiting,
}

impl<'a> PendingReply<'a> {
    fn take(waiting: &'a Waiting) -> Result<(Self, oneshot::Receiver<Received>)> {
        let (sender, receiver) = oneshot::channel();
        let mut replies = waiting.0.lock();
        if replies.len() >= MAX_WAITING {
            return Err(Error::new(ErrorKind::Busy, "too many requests wait for their replies; try again later")
                .with_operation("request")
                .with_context("waiting", replies.len()));
        }
        let id = format!("{:032x}", fastrand::u128(..));
        replies.insert(id.clone(), sender);
        Ok((Self { id, waiting }, receiver))
    }
}

impl Drop for PendingReply<'_> {
    fn drop(&mut self) {
        self.waiting.0.lock().remove(&self.id);
    }
}

/// Hands replies to the requests that wait for them.
async fn read(mut replies: Deliveries, waiting: Arc<Waiting>) {
    while let Some(reply) = replies.next().await {
        let delivery = match reply {
            Ok(delivery) => delivery,
            Err(error) => {
                tracing::warn!(%error, "the subscription to replies reported an error and continues");
                continue;
            }
        };
        let id = delivery.message().headers().get_str(header::CORRELATION_ID);
        // No request waits for it: a reply to another requester, or one that came too late. It is
        // not processed and gets no span.
        let Some(asker) = id.and_then(|id| waiting.0.lock().remove(id)) else { continue };
        let handing_over = delivery.process(async |reply: Received| {
            let _ = asker.send(reply);
            Ok::<_, HandlerError>(())
        });
        if let Err(error) = handing_over.await {
            tracing::warn!(%error, "a reply was not settled");
        }
    }
    // No more replies will come; the waiting requests fail at once.
    waiting.0.lock().clear();
}

fn no_reply(limit: Duration) -> Error {
    Error::new(ErrorKind::Timeout, format!("no reply came within {limit:?}"))
}
