//! Streams and consumer groups: looked up, and created if they are missing and that is allowed.

use std::time::Duration;

use ::redis::{Pipeline, RedisError, Value, cmd};

use crate::driver::Topology;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Start, Topic};

use super::config::Config;
use super::connection::Connection;
use super::connection::commands::{Member, PAGE, look_up_stream, mark_created};
use super::connection::entry::{EntryId, Pending, id, named};
use super::error::{SYSTEM, command_failed, kind_of, unexpected_reply};
use super::publish::Publisher;

/// Checks that the key is a stream, or free to become one with its first message.
pub(super) async fn declare(publisher: &Publisher, config: &Config, topic: &Topic) -> Result<()> {
    let mut question = cmd("TYPE");
    question.arg(topic.as_str());
    match publisher.command(question).await? {
        Value::SimpleString(kind) if kind == "stream" => Ok(()),
        Value::SimpleString(kind) if kind == "none" => match config.topology {
            Topology::Create => {
                // Without the permission, the stream is not trimmed, which the members say.
                let marked = publisher.command(mark_created(topic)).await;
                marked.map(drop).or_else(|error| if error.kind().is_retryable() { Err(error) } else { Ok(()) })
            }
            Topology::Check => Err(missing(topic)),
        },
        Value::SimpleString(kind) => {
            let message = "the key of that name holds something other than a stream";
            Err(Error::new(ErrorKind::Conflict, message).with_context("holds", kind))
        }
        _ => Err(unexpected_reply("look up the stream")),
    }
}

/// Warns of a server that evicts whole streams, with their groups, when it is full. A server that
/// does not tell is not known to.
pub(super) async fn warn_of_eviction(connection: &mut Connection, config: &Config) -> Result<()> {
    let mut question = cmd("INFO");
    question.arg("memory");
    let told = match connection.call(&question).await {
        Ok(Value::BulkString(text)) => String::from_utf8_lossy(&text).into_owned(),
        Ok(_) => return Ok(()),
        Err(error) if error.code().is_some() => return Ok(()),
        Err(error) => return Err(command_failed("ask for the server's memory", error)),
    };
    let policy = told.lines().find_map(|line| line.strip_prefix("maxmemory_policy:")).unwrap_or_default();
    if policy.starts_with("allkeys-") {
        let server = config.address();
        tracing::warn!(
            server,
            policy,
            "the server evicts whole streams when it is full: set its maxmemory-policy to noeviction"
        );
    }
    Ok(())
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
    match (last_entry(connection, stream).await?, known, topology) {
        (Some(_), Some(known), _) => Ok(known),
        (Some(last), None, _) => Ok(last),
        (None, _, Topology::Create) => Ok(EntryId::ZERO),
        (None, _, Topology::Check) => Err(missing(stream)),
    }
}

/// Returns the id of the last entry that the stream ever had; `None` if there is no stream.
async fn last_entry(connection: &mut Connection, stream: &str) -> Result<Option<EntryId>> {
    match connection.call(&look_up_stream(stream)).await {
        Ok(answer) => {
            let last = named(&answer, "last-generated-id").and_then(id);
            last.map(Some).ok_or_else(|| unexpected_reply("look up the stream"))
        }
        Err(error) if error.detail().is_some_and(|detail| detail.contains("no such key")) => Ok(None),
        Err(error) => Err(command_failed("look up the stream", error)),
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

/// The position at which a group begins if it is missing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begin {
    /// The position of a new group.
    pub(super) start: EntryId,
    /// The position that the group was seen at before it was lost.
    pub(super) seen: Option<EntryId>,
}

impl Begin {
    /// Returns the position of a group that a stream with this last entry is to have.
    fn after(self, last: EntryId) -> EntryId {
        // A stream that has not come as far was made anew, and may have any ids.
        self.seen.filter(|seen| *seen <= last).unwrap_or(self.start)
    }
}

/// Makes sure that the group exists. One that exists is joined without a write, which a server
/// without memory refuses.
pub(super) async fn ensure_group(
    connection: &mut Connection,
    topology: Topology,
    member: &Member,
    begin: Begin,
) -> Result<()> {
    let failed = |error| command_failed("look up the consumer group", error);
    match connection.call(&member.look_up_group()).await {
        Ok(_) => return Ok(()),
        Err(error) if kind_of(&error) == ErrorKind::NotFound && topology == Topology::Check => {
            return Err(missing(&member.stream).with_context("group", &member.group).with_source(error));
        }
        Err(error) if kind_of(&error) == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let after = match last_entry(connection, &member.stream).await? {
        Some(last) => begin.after(last),
        None => {
            // Without the permission, the stream is not trimmed, which the members say.
            match connection.call(&mark_created(&member.stream)).await {
                Err(error) if error.code().is_none() => return Err(failed(error)),
                _ => begin.start,
            }
        }
    };
    match connection.call(&member.create_group(after)).await {
        Err(error) if error.code() != Some("BUSYGROUP") => Err(failed(error)),
        _ => Ok(()),
    }
}

/// Returns the position at which the group would have to begin if it were lost now: everything
/// before it is settled. `None` if the server does not tell, or it is lost.
pub(super) async fn position(connection: &mut Connection, member: &Member) -> Result<Option<EntryId>> {
    let mut commands = Pipeline::with_capacity(2);
    // In this order: what becomes pending in between is behind the position.
    commands.add_command(member.list_groups());
    commands.add_command(member.look_up_group());
    let answers = connection.call_all(&commands).await;
    let answers = answers.map_err(|error| command_failed("look up the consumer group", error))?;
    let [groups, pending] = answers.as_slice() else { return Err(unexpected_reply("look up the consumer group")) };
    Ok(position_in(&member.group, groups, pending))
}

fn position_in(name: &str, groups: &Value, pending: &Value) -> Option<EntryId> {
    let Value::Array(groups) = groups else { return None };
    let is_meant =
        |group: &&Value| matches!(named(group, "name"), Some(Value::BulkString(it)) if it == name.as_bytes());
    let delivered = groups.iter().find(is_meant).and_then(|group| named(group, "last-delivered-id")).and_then(id)?;
    let Value::Array(summary) = pending else { return None };
    let oldest = summary.get(1)?;
    Some(id(oldest).map_or(delivered, |oldest| oldest.before().min(delivered)))
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
