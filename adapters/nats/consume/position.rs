//! Moves the position of a group.

use std::sync::Arc;

use futures_util::future::join_all;

use crate::driver::Topology;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Start;

use super::super::config::Config;
use super::super::connection::info::StreamInfo;
use super::super::connection::link::Link;
use super::super::topology::{self, Begin, Wanted};
use super::Sessions;
use super::attempts::AllAttempts;
use super::session::Session;
use super::window::Unsettled;
use crate::adapters::nats::connection::api;
use crate::adapters::nats::topology::names;

/// Level of the JetStream API from which a consumer can be moved in one step: that of server 2.14.
const MOVES: u64 = 4;

/// Moves the position of a group. A missing group is created if that is allowed.
pub(crate) async fn set(
    link: &Link,
    config: &Config,
    sessions: &Sessions,
    attempts: &AllAttempts,
    topic: &str,
    name: &str,
    start: Start,
) -> Result<()> {
    let subject = names::subject(topic);
    let Some(stream) = topology::find_stream(link, &subject).await? else {
        return Err(Error::new(ErrorKind::NotFound, "no stream takes this topic").with_context("subject", &subject));
    };
    let begin = Begin::Start(start);
    let wanted = Wanted { stream: &stream, topic, name, durable: true, may_exist: true, begin };
    topology::consumer(link, config, &wanted).await?;
    let mut held = Held::hold(sessions.of(&stream.name, name)).await;
    if config.level >= MOVES {
        let sequence = sequence(link, config, &stream, topic, start).await?;
        match api::reset_consumer(link, &stream.name, name, sequence).await {
            Ok(()) => {
                attempts.forget(link, &stream.name, name).await;
                return held.has_moved();
            }
            // The server does not move a group back beyond the position where it was created.
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            Err(error) => return Err(error.with_context("consumer", name)),
        }
    }
    recreate(link, config, &stream, name, start).await?;
    attempts.forget(link, &stream.name, name).await;
    held.has_moved()
}

/// Returns the sequence in the stream at which a position begins.
async fn sequence(link: &Link, config: &Config, stream: &StreamInfo, topic: &str, start: Start) -> Result<u64> {
    Ok(match start {
        Start::Earliest => stream.first_sequence.max(1),
        Start::Latest => stream.last_sequence.saturating_add(1),
        Start::Offset(sequence) => sequence.max(1),
        Start::Time(_) => {
            // Only a consumer that begins at this time tells its sequence.
            let name = format!("time-{}", link.unique());
            let begin = Begin::Start(start);
            let probe = Wanted { stream, topic, name: &name, durable: false, may_exist: false, begin };
            let info = topology::consumer(link, config, &probe).await?;
            api::forget_consumer(link, &stream.name, &name);
            info.ack_floor.saturating_add(1)
        }
    })
}

/// Deletes the consumer and creates it at its new position.
async fn recreate(link: &Link, config: &Config, stream: &StreamInfo, name: &str, start: Start) -> Result<()> {
    let conflict = |message| Error::new(ErrorKind::Conflict, message).with_context("consumer", name);
    let stream = &stream.name;
    let info = api::consumer(link, stream, name).await?;
    if config.topology == Topology::Check {
        return Err(conflict("the group must be recreated to be moved there, and topology=check forbids that"));
    }
    if info.waiting > 0 {
        // The requests of the other members would end with the consumer, and they would create it
        // again at the old position.
        return Err(conflict("the group must be recreated to be moved there, but has other members: end them first"));
    }
    let mut wanted = info.config;
    topology::begin_at(&mut wanted, start);
    api::delete_consumer(link, stream, name).await?;
    api::create_consumer(link, stream, wanted).await.map(drop).map_err(|error| match error.kind() {
        ErrorKind::Conflict => conflict("a member that joined meanwhile has recreated the group at its old position"),
        _ => error.with_context("consumer", name),
    })
}

/// The members in this process, which continue to read when this is dropped.
struct Held {
    members: Vec<(Arc<Session>, Vec<Unsettled>)>,
    moved: bool,
}

impl Held {
    /// Stops the members, so that they deliver no more messages from before the move.
    async fn hold(members: Vec<Arc<Session>>) -> Self {
        let unsettled = members.iter().map(|session| session.suspend()).collect::<Vec<_>>();
        let held = Self { members: members.into_iter().zip(unsettled).collect(), moved: false };
        join_all(held.members.iter().map(|(session, _)| session.arrive())).await;
        held
    }

    fn has_moved(&mut self) -> Result<()> {
        self.moved = true;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for (session, unsettled) in self.members.drain(..) {
            // After a move the server does not know the earlier deliveries.
            session.release(if self.moved { Vec::new() } else { unsettled });
        }
    }
}
