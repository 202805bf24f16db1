//! A subscription across connections: opens a session, and another one whenever the last is lost.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Subscriber};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::driver::Topology;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Start, Subscription};

use super::super::config::{Acknowledge, Config};
use super::super::connection::dial::{Dial, Notices, Queues, pause};
use super::super::connection::health::Health;
use super::super::connection::info::{ConsumerInfo, StreamInfo};
use super::super::connection::link::Link;
use super::super::topology::{Begin, Wanted};
use super::attempts::{AllAttempts, Attempts};
use super::consumer::Consumer;
use super::line::Line;
use super::place::Place;
use super::session::{Opening, Session};
use super::state::Lost;
use crate::adapters::nats::connection::api;
use crate::adapters::nats::consume::keeper;
use crate::adapters::nats::topology::names;
use crate::adapters::nats::{error, topology};

/// Duration from which a session counts as good: the next one is opened without a pause.
const GOOD: Duration = Duration::from_secs(5);
/// Bound of a reading client's outgoing queue: it writes requests for messages and little else.
const OUTGOING: usize = 256;
/// Room for the server's notices, which come on the same subscription as the messages.
const NOTICES: usize = 1024;
/// Number of connections over which to tell the server that a line is over. Its client may have
/// ended, and can tell no more.
const HANG_UPS: usize = 10;
/// Interval of the checks for a restored connection.
const LOOK: Duration = Duration::from_millis(20);

/// The part of a subscription that stays when its connection is lost.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) config: Arc<Config>,
    pub(crate) dial: Dial,
    pub(crate) link: Arc<Link>,
    /// The reports of the reading client.
    notices: Arc<Notices>,
    pub(crate) topic: String,
    pub(crate) name: String,
    pub(crate) durable: bool,
    pub(crate) limit: usize,
    all_attempts: Arc<AllAttempts>,
    /// The attempts of a reader without a group.
    own_attempts: Arc<Attempts>,
    state: Mutex<ReadState>,
}

#[derive(Debug)]
struct ReadState {
    client: Option<Client>,
    /// The session that was lost, until its deliveries have been given back.
    last: Option<Arc<Session>>,
    /// The position at which to begin if the server no longer knows.
    begin: Begin,
    /// The creation time of the stream in which `begin` is valid.
    stream_created: Option<String>,
    stream: Option<String>,
    attempt: usize,
}

impl Reader {
    pub(crate) fn new(
        config: Arc<Config>,
        dial: Dial,
        link: Arc<Link>,
        all_attempts: Arc<AllAttempts>,
        subscription: &Subscription,
    ) -> Self {
        let group = subscription.group_name().map(names::object);
        let unique = || format!("reader-{}", link.unique());
        let begin = Begin::Start(subscription.start_position());
        let state = ReadState { client: None, last: None, begin, stream_created: None, stream: None, attempt: 0 };
        Self {
            topic: subscription.topic().to_owned(),
            durable: group.is_some(),
            name: group.unwrap_or_else(unique),
            limit: subscription.prefetch_limit(),
            config,
            dial,
            link,
            notices: Arc::default(),
            all_attempts,
            own_attempts: Arc::new(Attempts::new(None)),
            state: Mutex::new(state),
        }
    }

    /// Opens the first session.
    pub(crate) async fn open(&self) -> Result<Arc<Session>> {
        self.open_session(false).await
    }

    /// Opens the next session, after a pause if the last attempts failed.
    pub(crate) async fn reopen(self: Arc<Self>) -> Result<Arc<Session>> {
        let attempt = self.count_attempt();
        sleep(pause(attempt)).await;
        self.open_session(true).await
    }

    /// Records the loss of a session, or of its line. Returns an error to report.
    pub(crate) fn lose(&self, session: Arc<Session>, lost: Lost) -> Option<Error> {
        let mut state = self.state.lock();
        if session.was_good(GOOD) {
            state.attempt = 0;
        }
        let error = match lost {
            Lost::Connection | Lost::Moved => None,
            Lost::Client => {
                state.client = None;
                None
            }
            Lost::Deleted => {
                session.lose_consumer();
                Some(deleted(&session))
            }
            Lost::Ended(error) => Some(error),
        };
        state.last = Some(session);
        error
    }

    fn count_attempt(&self) -> usize {
        let mut state = self.state.lock();
        state.attempt = state.attempt.saturating_add(1);
        state.attempt
    }

    async fn open_session(&self, again: bool) -> Result<Arc<Session>> {
        self.connected_client().await?;
        self.wait_for(self.link.health(), || self.link.disconnected()).await?;
        let last = self.last().await?;
        let client = self.connected_client().await?;
        let line = Line::new(client, &self.link);
        let (info, attempts) = self.consumer(again).await?;
        if let Some(last) = last {
            if last.knows(&info) {
                let info = last.forgotten(info).await?;
                return self.resume(last, line, &info).await;
            }
            if last.consumer.created != info.created {
                self.state.lock().last = None;
                last.forget();
                return Err(deleted(&last));
            }
            self.end_last();
            // The server has forgotten some of what it handed out. It must not take what goes back
            // for what it hands out anew.
            last.arrive().await;
            self.link.processed(&info.stream, &info.name).await?;
        }
        let subscriber = self.listen(&line).await?;
        let session = Session::open(Opening {
            link: Arc::clone(&self.link),
            line,
            subscriber,
            consumer: Consumer::from(&info),
            deliveries: info.deliveries,
            limit: self.limit,
            confirm: self.config.acknowledge == Acknowledge::Confirm,
            attempts,
        });
        session.begin(&info);
        keeper::start(&session);
        Ok(session)
    }

    async fn listen(&self, line: &Line) -> Result<Subscriber> {
        let (client, inbox) = line.ends();
        client.subscribe(inbox).await.map_err(|ended| {
            self.state.lock().client = None;
            error::subscribe(ended)
        })
    }

    /// Returns the session that lost its line, if it can go on. Another one is ended.
    async fn last(&self) -> Result<Option<Arc<Session>>> {
        let Some(last) = self.state.lock().last.clone() else { return Ok(None) };
        if last.is_over() {
            self.end_last();
            return Ok(None);
        }
        for _ in 0..HANG_UPS {
            if last.hang_up().await {
                break;
            }
            self.connected_client().await?;
        }
        if let Some(first) = last.first_unsettled() {
            self.state.lock().begin = Begin::Sequence(first);
        }
        Ok(Some(last))
    }

    /// Continues a session over another line. What was on its way over the last one comes first, so
    /// that the order is kept.
    async fn resume(&self, last: Arc<Session>, line: Line, info: &ConsumerInfo) -> Result<Arc<Session>> {
        let found = last.unreadable(&names::subject(&self.topic), info, self.dial.is_shared()).await?;
        last.call_back(info, &found).await?;
        let subscriber = self.listen(&line).await?;
        last.resume(line, subscriber, info.deliveries, found);
        last.learn(info);
        self.state.lock().last = None;
        Ok(last)
    }

    /// Returns the consumer, created again at its position if it is gone.
    async fn consumer(&self, again: bool) -> Result<(ConsumerInfo, Arc<Attempts>)> {
        let stream = topology::stream(&self.link, &self.config, &self.topic).await?;
        if !self.durable && stream.retention == "workqueue" {
            let message =
                "the stream is a work queue, where a message goes to one reader and is gone: join a group to take some";
            return Err(Error::new(ErrorKind::Unsupported, message).with_context("stream", stream.name));
        }
        let begin = {
            let mut state = self.state.lock();
            if state.stream_created.as_ref().is_some_and(|created| *created != stream.created) {
                // Another stream of the same name: all its messages came after the subscription
                // began.
                state.begin = Begin::Start(Start::Earliest);
            }
            state.stream_created = Some(stream.created.clone());
            state.stream = Some(stream.name.clone());
            state.begin
        };
        let (topic, name, durable) = (&self.topic, &self.name, self.durable);
        let wanted = Wanted { stream: &stream, topic, name, durable, may_exist: durable || again, begin };
        let info = topology::consumer(&self.link, &self.config, &wanted).await?;
        self.state.lock().begin = Begin::Sequence(info.ack_floor.saturating_add(1));
        let attempts = self.attempts(&stream, &info);
        Ok((info, attempts))
    }

    fn attempts(&self, stream: &StreamInfo, consumer: &ConsumerInfo) -> Arc<Attempts> {
        let may_create = self.config.topology == Topology::Create;
        let place = || Place::new(&stream.name, &consumer.name, stream.replicas, may_create);
        let attempts = match self.durable {
            true => self.all_attempts.of(&stream.name, &consumer.name, place),
            false => Arc::clone(&self.own_attempts),
        };
        attempts.begin(&consumer.created);
        attempts
    }

    fn end_last(&self) {
        let last = self.state.lock().last.take();
        if let Some(last) = last {
            if let Some(first) = last.first_unsettled() {
                self.state.lock().begin = Begin::Sequence(first);
            }
            last.end();
        }
    }

    async fn connected_client(&self) -> Result<Client> {
        let known = self.state.lock().client.clone();
        let client = match known {
            Some(client) => client,
            None => {
                let queues = Queues { outgoing: OUTGOING, incoming: self.limit + NOTICES };
                let client = self.dial.client(queues, &self.notices).await?;
                self.state.lock().client = Some(client.clone());
                client
            }
        };
        self.wait_for(&Health::of(client.clone()), || self.notices.disconnected()).await?;
        Ok(client)
    }

    /// Waits until the client has restored its connection, which it does by itself.
    async fn wait_for(&self, health: &Health, error: impl FnOnce() -> Error) -> Result<()> {
        let deadline = Instant::now() + self.config.connect_timeout;
        while !health.is_connected() {
            if Instant::now() > deadline {
                return Err(error().with_context("server", self.config.shown_hosts()));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }
}

fn deleted(session: &Session) -> Error {
    let message = "the consumer of the group was deleted; the subscription is opened again";
    Error::new(ErrorKind::Unavailable, message).with_context("consumer", &session.consumer.name)
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(last) = self.state.get_mut().last.take().filter(|last| last.is_over()) {
            last.end();
        }
        if !self.durable
            && let Some(stream) = self.state.get_mut().stream.take()
        {
            api::forget_consumer(&self.link, &stream, &self.name);
        }
    }
}
