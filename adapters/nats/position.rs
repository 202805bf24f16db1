//! Moving the position of a group.

use std::sync::Arc;

use async_nats::jetstream::{consumer, stream};
use futures_util::future::join_all;

use crate::address::Start;
use crate::broker_url::Topology;
use crate::error::{Error, ErrorKind, Result};

use super::config::Config;
use super::consume::Sessions;
use super::link::Link;
use super::session::Session;
use super::topology::{self, Begin, Wanted};
use super::window::Unsettled;
use super::{api, names};

/// The level of the JetStream API from which a consumer can be moved in one step: that of server 2.14.
const MOVES: u64 = 4;

/// Moves the position of a group, creating the group where it is missing and may be created.
pub(super) async fn set(
    link: &Link,
    config: &Config,
    sessions: &Sessions,
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
    let mut held = Held::hold(sessions.of(&stream.config.name, name)).await;
    if config.level >= MOVES {
        let sequence = sequence(link, config, &stream, topic, start).await?;
        match api::reset_consumer(link, &stream.config.name, name, sequence).await {
            Ok(()) => return held.has_moved(),
            // The server moves a group no further back than where it was created.
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            Err(error) => return Err(error.with_context("consumer", name)),
        }
    }
    recreate(link, config, &stream, name, start).await?;
    held.has_moved()
}

/// The place in the stream where a position begins.
async fn sequence(link: &Link, config: &Config, stream: &stream::Info, topic: &str, start: Start) -> Result<u64> {
    Ok(match start {
        Start::Earliest => stream.state.first_sequence.max(1),
        Start::Latest => stream.state.last_sequence.saturating_add(1),
        Start::Offset(sequence) => sequence.max(1),
        Start::Time(_) => {
            // Only a consumer that begins there says where that is.
            let name = format!("time-{}", link.unique());
            let begin = Begin::Start(start);
            let probe = Wanted { stream, topic, name: &name, durable: false, may_exist: false, begin };
            let info = topology::consumer(link, config, &probe).await?;
            api::forget_consumer(link, &stream.config.name, &name);
            info.ack_floor.stream_sequence.saturating_add(1)
        }
    })
}

/// Deletes the consumer and creates it where it is to begin.
async fn recreate(link: &Link, config: &Config, stream: &stream::Info, name: &str, start: Start) -> Result<()> {
    let conflict = |message| Error::new(ErrorKind::Conflict, message).with_context("consumer", name);
    let stream = &stream.config.name;
    let info = api::consumer(link, stream, name).await?;
    if config.topology == Topology::Check {
        return Err(conflict("the group must be made again to be moved there, and topology=check forbids that"));
    }
    if info.num_waiting > 0 {
        // Their requests would end with the consumer, and they would make it again where it was.
        return Err(conflict("the group must be made again to be moved there, and has other members: end them first"));
    }
    let wanted = consumer::Config { deliver_policy: topology::policy(start), ..info.config };
    api::delete_consumer(link, stream, name).await?;
    api::create_consumer(link, stream, &wanted).await.map(drop).map_err(|error| match error.kind() {
        ErrorKind::Conflict => conflict("a member that came in the meantime has made the group again where it was"),
        _ => error.with_context("consumer", name),
    })
}

/// The members in this process, which read on when this is dropped.
struct Held {
    members: Vec<(Arc<Session>, Vec<Unsettled>)>,
    moved: bool,
}

impl Held {
    /// Has the members stop, so that they hand out nothing more from before the move.
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
            // After a move the server knows nothing of what was out.
            session.release(if self.moved { Vec::new() } else { unsettled });
        }
    }
}
