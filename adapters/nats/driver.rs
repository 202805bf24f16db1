//! The driver: each operation goes to the part that carries it out.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::future::join_all;

use crate::driver::capability::{Capabilities, REPOSITIONING, unsupported};
use crate::driver::{Confirmer, Destination, Driver, Identity, Outbound, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Receipt, Start, Subscription, Topic};
use crate::names::attribute;

use super::Nats;
use super::config::Mode;
use super::consume::reader::Reader;
use super::consume::{self, Deliveries};
use super::headers::Schedule;
use super::publish::{self, Publish};
use super::{error, topology};
use crate::adapters::nats::topology::names;

impl Nats {
    fn store(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        let schedule = match message.deliver_at.map(|time| self.schedule(topic, time)).transpose() {
            Ok(schedule) => schedule,
            Err(error) => return confirmer.confirm(Err(error)),
        };
        let is_shared = message.id.is_some() && self.shared.has(topic);
        publish::stored(&self.link, Publish { topic: topic.clone(), message, is_shared, schedule, confirmer });
    }

    fn schedule(&self, topic: &Topic, time: SystemTime) -> Result<Schedule> {
        if !self.capabilities.delayed_publish {
            return Err(Error::new(ErrorKind::Unsupported, publish::delay::UNSUPPORTED));
        }
        self.oddities.schedule(topic, time)
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.is_cancelled() { Err(error::closed()) } else { Ok(()) }
    }

    async fn read(&self, subscription: &Subscription) -> Result<Source> {
        let (config, link, attempts) = (Arc::clone(&self.config), Arc::clone(&self.link), Arc::clone(&self.attempts));
        let reader = Reader::new(config, self.dial.clone(), link, attempts, subscription);
        let session = reader.open().await?;
        let consumer = (session.consumer.stream.clone(), session.consumer.name.clone());
        let destination = Destination::new()
            .with_attribute(attribute::NATS_STREAM, consumer.0.as_str())
            .with_attribute(attribute::NATS_CONSUMER, consumer.1.as_str());
        if subscription.group_name().is_some() {
            self.groups.lock().insert(consumer);
        }
        let sessions = Arc::clone(&self.sessions);
        let deliveries = Deliveries::new(Arc::new(reader), session, sessions, &self.closed);
        let stop = deliveries.stopper();
        Ok(Source::new(destination, deliveries).on_stop(stop))
    }

    async fn listen(&self, subscription: &Subscription) -> Result<Source> {
        consume::core::check(subscription)?;
        let subject = names::subject(subscription.topic());
        let group = subscription.group_name().map(str::to_owned);
        let closed = self.closed.clone();
        let listener = consume::core::Listener::open(&self.config, &self.dial, subject, group, closed).await?;
        Ok(Source::new(Destination::new(), listener.into_stream()))
    }
}

#[async_trait]
impl Driver for Nats {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        self.check_open()?;
        match self.config.mode {
            Mode::Core => Ok(Destination::new()),
            Mode::JetStream => {
                let stream = topology::stream(&self.link, &self.config, topic).await?;
                self.shared.learn(topic, &stream);
                if self.capabilities.delayed_publish {
                    self.oddities.learn(&self.link, topic, &stream).await?;
                }
                Ok(Destination::new().with_attribute(attribute::NATS_STREAM, stream.name.as_str()))
            }
        }
    }

    fn publish(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        if let Err(error) = self.check_open() {
            return confirmer.confirm(Err(error));
        }
        let message = self.config.header_names.spell(message);
        match (self.config.mode, message.deliver_at) {
            (Mode::Core, None) => publish::unconfirmed(&self.link, topic, message, confirmer),
            (Mode::JetStream, _) | (Mode::Core, Some(_)) => self.store(topic, message, confirmer),
        }
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        self.check_open()?;
        match self.config.mode {
            Mode::JetStream => self.read(subscription).await,
            Mode::Core => self.listen(subscription).await,
        }
    }

    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()> {
        self.check_open()?;
        match (self.config.mode, subscription.group_name().map(names::object)) {
            (Mode::JetStream, Some(group)) => {
                let (sessions, topic) = (&self.sessions, subscription.topic());
                let attempts = &self.attempts;
                consume::position::set(&self.link, &self.config, sessions, attempts, topic, &group, start).await
            }
            _ => Err(unsupported("move the position of a group", REPOSITIONING)),
        }
    }

    async fn ping(&self) -> Result<()> {
        self.check_open()?;
        self.link.round_trip().await
    }

    async fn close(&self) -> Result<()> {
        if self.closed.is_cancelled() {
            return Ok(());
        }
        self.closed.cancel();
        let sessions = self.sessions.take_all();
        join_all(sessions.iter().map(|session| session.leave())).await;
        for session in &sessions {
            session.end();
        }
        join_all(sessions.iter().map(|session| session.arrive())).await;
        self.link.recorded(self.config.confirm_timeout).await;
        let groups: Vec<_> = self.groups.lock().drain().collect();
        self.link.bring_home(groups).await
    }
}
