//! Streams and consumer groups: looked up, and created if they are missing and that is allowed.

use std::time::Duration;

use ::redis::{RedisError, Value, cmd};

use crate::driver::Topology;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Start, Topic};

use super::config::Config;
use super::connection::Connection;
use super::connection::commands::{Member, PAGE};
use super::connection::entry::{EntryId, Pending, id, named};
use super::error::{SYSTEM, command_failed, kind_of, unexpected_reply};
use super::publish::Publisher;

/// Checks that the key is a stream, or free to become one with its first message.
pub(super) async fn declare(publisher: &Publisher, topology: Topology, topic: &Topic) -> Result<()> {
    let mut question = cmd("TYPE");
    question.arg(topic.as_str());
    match publisher.command(question).await? {
        Value::SimpleString(kind) if kind == "stream" => Ok(()),
        Value::SimpleString(kind) if kind == "none" => match topology {
            Topology::Create => Ok(()),
            Topology::Check => Err(missing(topic)),
        },
        Value::SimpleString(kind) => {
            let message = "the key of that name holds something other than a stream";
            Err(Error::new(ErrorKind::Conflict, message).with_context("holds", kind))
        }
        _ => Err(unexpected_reply("look up the stream")),
    }
}

/// Returns the entry after which a reader without a position begins.
pub(super) async fn start(
    connection: &mut Connection,
    topology: Topology,
    stream: &str,
    start: Start,
) -> Result<EntryId> {
    let known = known(start)?;
    if let (Some(known), Topology::Create) = (known, topology) {
        return Ok(known);
    }
    let mut question = cmd("XINFO");
    question.arg("STREAM").arg(stream);
    match (connection.call(&question).await, known) {
        (Ok(_), Some(known)) => Ok(known),
        (Ok(answer), None) => {
            named(&answer, "last-generated-id").and_then(id).ok_or_else(|| unexpected_reply("look up the stream"))
        }
        (Err(error), _) if error.detail().is_some_and(|detail| detail.contains("no such key")) => match topology {
            Topology::Create => Ok(EntryId::ZERO),
            Topology::Check => Err(missing(stream)),
        },
        (Err(error), _) => Err(command_failed("look up the stream", error)),
    }
}

/// Moves the position of a group. A missing group is created if that is allowed. Messages that a
/// member holds stay pending. Messages that wait to be claimed do not: they are delivered from the
/// new position, or passed over.
pub(super) async fn reposition(publisher: &Publisher, config: &Config, member: &Member, start: Start) -> Result<()> {
    let after = known(start)?.map_or_else(|| "$".to_owned(), EntryId::to_text);
    let explain = |error: Error| {
        // A missing key yields a generic error; a wrong type and a missing permission have their
        // own codes.
        let is_missing = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Rejected);
        if is_missing { missing(&member.stream).with_context("group", &member.group).with_source(error) } else { error }
    };
    if config.topology == Topology::Create {
        match publisher.command(member.begin_at("CREATE", &after)).await {
            Ok(_) => return Ok(()),
            Err(error) if is_there_already(&error) => {}
            Err(error) => return Err(explain(error)),
        }
    }
    publisher.command(member.begin_at("SETID", &after)).await.map_err(explain)?;
    loop {
        let listed = publisher.command(member.list_idle(config.claim_idle, PAGE)).await?;
        let waiting = Pending::of_answer(listed)?;
        if waiting.is_empty() {
            return Ok(());
        }
        let ids: Vec<EntryId> = waiting.iter().map(|pending| pending.id).collect();
        publisher.command(member.acknowledge(ids.iter().copied())).await?;
        // If the server does not allow it, no attempts were stored either.
        let _ = publisher.command(member.forget_attempts(&ids)).await;
    }
}

/// Returns the entry after which to begin, if that does not depend on the contents of the stream.
pub(super) fn known(start: Start) -> Result<Option<EntryId>> {
    match start {
        Start::Earliest => Ok(Some(EntryId::ZERO)),
        Start::Latest => Ok(None),
        Start::Time(time) => Ok(Some(EntryId::last_before(time))),
        Start::Offset(_) => {
            let message = "Redis Streams have no offsets; begin at a time, which the ids contain";
            Err(Error::new(ErrorKind::Unsupported, message).with_system(SYSTEM))
        }
    }
}

fn is_there_already(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<RedisError>());
    source.is_some_and(|source| source.code() == Some("BUSYGROUP"))
}

/// Makes sure that the group exists.
pub(super) async fn ensure_group(
    connection: &mut Connection,
    topology: Topology,
    member: &Member,
    start: EntryId,
) -> Result<()> {
    let command = match topology {
        Topology::Create => member.create_group(start),
        Topology::Check => member.look_up_group(),
    };
    match connection.call(&command).await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
        Err(error) if kind_of(&error) == ErrorKind::NotFound => {
            Err(missing(&member.stream).with_context("group", &member.group).with_source(error))
        }
        Err(error) => Err(command_failed("look up the consumer group", error)),
    }
}

/// Makes the consumer visible in the group. A server that does not allow that creates it with its
/// first entry.
pub(super) async fn join(connection: &mut Connection, member: &Member) -> Result<()> {
    match connection.call(&member.join()).await {
        Err(error) if error.code().is_none() => Err(command_failed("join the consumer group", error)),
        _ => Ok(()),
    }
}

/// Removes consumers of programs that are gone: all of this library's that were silent for `idle`.
///
/// This is housekeeping: if the server does not allow scripts, they stay, which does no harm.
pub(super) async fn tidy(connection: &mut Connection, member: &Member, names: &str, idle: Duration) -> Result<()> {
    match connection.call(&member.tidy(names, idle)).await {
        Ok(_) => Ok(()),
        Err(error) if error.code().is_some() => {
            tracing::debug!(stream = member.stream, group = member.group, %error, "stale consumers were not removed");
            Ok(())
        }
        Err(error) => Err(command_failed("remove consumers that are gone", error)),
    }
}

fn missing(stream: &str) -> Error {
    let message = "the stream or its consumer group does not exist and topology=check forbids creating it";
    Error::new(ErrorKind::NotFound, message).with_system(SYSTEM).with_context("stream", stream)
}
