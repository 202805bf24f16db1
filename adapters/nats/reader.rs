//! A subscription across connections: opens a session, and a new one whenever the last is lost.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::datetime::DateTime;
use async_nats::jetstream::consumer;
use async_nats::jetstream::stream::RetentionPolicy;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::address::{Start, Subscription};
use crate::error::{Error, ErrorKind, Result};

use super::config::{Acknowledge, Config};
use super::dial::{Dial, Notices, Queues, pause};
use super::link::{Health, Link};
use super::session::{Consumer, Opening, Session};
use super::topology::{Begin, Wanted};
use super::{api, error, names, quarantine, topology};

/// A session that lasted this long was a good one: the next is opened without a pause.
const GOOD: Duration = Duration::from_secs(5);
/// Requests for messages and little else is written by a reading client.
const OUTGOING: usize = 256;
/// The server's notices come on the same subscription as the messages.
const NOTICES: usize = 1024;
/// How often to look whether the connection is back.
const LOOK: Duration = Duration::from_millis(20);

/// What stays of a subscription when its connection is lost.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) config: Arc<Config>,
    pub(super) dial: Dial,
    pub(super) link: Arc<Link>,
    pub(super) topic: String,
    pub(super) name: String,
    pub(super) durable: bool,
    pub(super) limit: usize,
    place: Mutex<Place>,
}

#[derive(Debug)]
struct Place {
    client: Option<Client>,
    /// The session that was lost, until what was out in it has been given back.
    last: Option<Arc<Session>>,
    /// Where to begin if the server no longer knows.
    begin: Begin,
    /// When the stream was created in which that holds.
    stream_created: Option<DateTime>,
    stream: Option<String>,
    attempt: usize,
}

impl Reader {
    pub(super) fn new(config: Arc<Config>, dial: Dial, link: Arc<Link>, subscription: &Subscription) -> Self {
        let group = subscription.group_name().map(names::object);
        let unique = || format!("reader-{}", link.unique());
        let begin = Begin::Start(subscription.start_position());
        let place = Place { client: None, last: None, begin, stream_created: None, stream: None, attempt: 0 };
        Self {
            topic: subscription.topic().to_owned(),
            durable: group.is_some(),
            name: group.unwrap_or_else(unique),
            limit: subscription.max_unsettled(),
            config,
            dial,
            link,
            place: Mutex::new(place),
        }
    }

    /// Opens the first session.
    pub(super) async fn open(&self) -> Result<Arc<Session>> {
        self.open_session(false).await
    }

    /// Opens the next session, after a pause if the last attempts came to nothing.
    pub(super) async fn reopen(self: Arc<Self>) -> Result<Arc<Session>> {
        let attempt = self.count_attempt();
        sleep(pause(attempt)).await;
        self.open_session(true).await
    }

    /// The session is over. `ended` tells that its client has given up for good.
    pub(super) fn lose(&self, session: Arc<Session>, ended: bool) {
        let mut place = self.place.lock();
        if session.has_delivered() || session.since.elapsed() > GOOD {
            place.attempt = 0;
        }
        place.last = Some(session);
        if ended {
            place.client = None;
        }
    }

    fn count_attempt(&self) -> usize {
        let mut place = self.place.lock();
        place.attempt = place.attempt.saturating_add(1);
        place.attempt
    }

    async fn open_session(&self, again: bool) -> Result<Arc<Session>> {
        let client = self.connected_client().await?;
        self.wait_for(self.link.health()).await?;
        // What was out goes back before anything new is asked for.
        self.end_last();
        let epoch = Health::of(client.clone()).epoch();
        let info = self.consumer(again).await?;
        let quarantined = match again {
            true => quarantine::find(&self.link, &names::subject(&self.topic), &info).await?,
            false => Vec::new(),
        };
        // A subject of its own for each session: what is still on its way to the last one counts for none.
        let inbox = client.new_inbox();
        let subscriber = client.subscribe(inbox.clone()).await.map_err(|ended| {
            self.place.lock().client = None;
            error::subscribe(ended)
        })?;
        Ok(Session::open(Opening {
            link: Arc::clone(&self.link),
            client,
            epoch,
            subscriber,
            inbox: inbox.into(),
            consumer: Consumer::from(info),
            limit: self.limit,
            confirm: self.config.acknowledge == Acknowledge::Confirm,
            quarantined,
        }))
    }

    /// The consumer, made again where it was if it is gone.
    async fn consumer(&self, again: bool) -> Result<consumer::Info> {
        let stream = topology::stream(&self.link, &self.config, &self.topic).await?;
        if !self.durable && stream.config.retention == RetentionPolicy::WorkQueue {
            let message =
                "the stream is a work queue, where a message goes to one reader and is gone: join a group to take some";
            return Err(Error::new(ErrorKind::Unsupported, message).with_context("stream", stream.config.name));
        }
        let begin = {
            let mut place = self.place.lock();
            if place.stream_created.is_some_and(|created| created != stream.created) {
                // Another stream of the same name: all in it came after the subscription began.
                place.begin = Begin::Start(Start::Earliest);
            }
            place.stream_created = Some(stream.created);
            place.stream = Some(stream.config.name.clone());
            place.begin
        };
        let (topic, name, durable) = (&self.topic, &self.name, self.durable);
        let wanted = Wanted { stream: &stream, topic, name, durable, may_exist: durable || again, begin };
        let info = topology::consumer(&self.link, &self.config, &wanted).await?;
        self.place.lock().begin = Begin::Sequence(info.ack_floor.stream_sequence.saturating_add(1));
        Ok(info)
    }

    fn end_last(&self) {
        let last = self.place.lock().last.take();
        if let Some(next) = last.and_then(|last| last.end()) {
            self.place.lock().begin = Begin::Sequence(next);
        }
    }

    async fn connected_client(&self) -> Result<Client> {
        let known = self.place.lock().client.clone();
        let client = match known {
            Some(client) => client,
            None => {
                let queues = Queues { outgoing: OUTGOING, incoming: self.limit + NOTICES };
                let client = self.dial.client(queues, &Arc::new(Notices::default())).await?;
                self.place.lock().client = Some(client.clone());
                client
            }
        };
        self.wait_for(&Health::of(client.clone())).await?;
        Ok(client)
    }

    /// The client restores its connection by itself; this only looks on.
    async fn wait_for(&self, health: &Health) -> Result<()> {
        let deadline = Instant::now() + self.config.connect_timeout;
        while !health.is_connected() {
            if Instant::now() > deadline {
                return Err(error::disconnected().with_context("server", self.config.shown_hosts()));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(last) = self.place.get_mut().last.take() {
            last.end();
        }
        if !self.durable
            && let Some(stream) = self.place.get_mut().stream.take()
        {
            api::forget_consumer(&self.link, &stream, &self.name);
        }
    }
}

impl From<consumer::Info> for Consumer {
    fn from(info: consumer::Info) -> Self {
        let config = &info.config;
        // With a back-off configured, the first of it takes the place of the time to wait.
        let ack_wait = config.backoff.first().copied().unwrap_or(config.ack_wait);
        Self {
            next: api::next_of(&info.stream_name, &info.name),
            ack_wait,
            max_batch: usize::try_from(config.max_batch).ok().filter(|most| *most > 0),
            max_expires: Some(config.max_expires).filter(|longest| !longest.is_zero()),
            stream: info.stream_name,
            name: info.name,
        }
    }
}
