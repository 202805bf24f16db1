//! Subscriptions without acknowledgement: readers without a group, and at-most-once members of one.

use std::sync::Arc;
use std::time::Duration;

use ::redis::Cmd;

use crate::error::{Error, Result};

use super::super::config::Config;
use super::super::connection::Connection;
use super::super::connection::commands::{Member, read_after};
use super::super::connection::entry::{Entries, EntryId};
use super::super::error::command_failed;
use super::super::topology::{Begin, ensure_group, tidy};
use super::LONGEST_WAIT;
use super::channel::{EntryChannel, Outage};
use super::trim::Trimmer;

/// The position of a reader.
pub(super) enum Position {
    /// After an entry that the reader remembers, so that no entry between two reads is missed.
    After { stream: String, last: EntryId },
    /// At the position of the group, which the server keeps.
    Group { member: Member, begin: Begin },
}

impl Position {
    pub(super) fn after(stream: &str, last: EntryId) -> Self {
        Self::After { stream: stream.to_owned(), last }
    }

    pub(super) fn of_group(member: Member, start: EntryId) -> Self {
        Self::Group { member, begin: Begin { start, seen: None } }
    }

    fn read(&self, count: usize) -> Cmd {
        match self {
            Self::After { stream, last } => read_after(stream, *last, count, LONGEST_WAIT),
            Self::Group { member, .. } => member.read_new(count, LONGEST_WAIT, true),
        }
    }

    fn advance(&mut self, entries: &Entries) {
        let Some(entry) = entries.present.last() else { return };
        match self {
            Self::After { last, .. } => *last = entry.id,
            Self::Group { begin, .. } => begin.seen = Some(entry.id),
        }
    }
}

/// The task that reads for one subscription until it ends.
pub(super) struct ReaderTask {
    config: Arc<Config>,
    channel: EntryChannel,
    position: Position,
}

impl ReaderTask {
    pub(super) fn new(config: Arc<Config>, channel: EntryChannel, position: Position) -> Self {
        Self { config, channel, position }
    }

    pub(super) async fn run(mut self, mut connection: Connection) {
        let mut outage = Outage::none();
        while let Err(error) = self.read(connection).await {
            match self.restore(&mut outage, error).await {
                Some(restored) => connection = restored,
                None => return,
            }
        }
        if let Err(error) = self.leave().await {
            tracing::debug!(%error, "a consumer was not removed from its group");
        }
    }

    /// Removes the consumer from its group, if it has one. This uses another connection, because a
    /// read may be waiting on the first.
    async fn leave(&self) -> Result<()> {
        let Position::Group { member, .. } = &self.position else { return Ok(()) };
        let mut connection = Connection::open(&self.config, Duration::ZERO).await?;
        tidy(&mut connection, member, &member.consumer, Duration::ZERO).await
    }

    /// Reads until the subscription ends.
    async fn read(&mut self, mut connection: Connection) -> Result<()> {
        let mut trimmer = Trimmer::new(&self.config);
        loop {
            if let Position::Group { member, .. } = &self.position {
                trimmer.trim(&mut connection, &self.config, member).await?;
            }
            let room = self.channel.window().worth_reading();
            if room == 0 {
                tokio::select! {
                    () = self.channel.stopped() => return Ok(()),
                    () = self.channel.window().changed() => continue,
                    // Kept alive meanwhile.
                    lost = connection.landed() => {
                        lost.map_err(|error| command_failed("read the stream", error))?;
                    }
                }
            }
            let command = self.position.read(room);
            // A read that is given up leaves no pending entries that would have to be settled. None
            // is begun for a subscription that has ended.
            let entries = tokio::select! {
                biased;
                () = self.channel.stopped() => return Ok(()),
                entries = connection.read(&command) => self.channel.read(entries)?,
            };
            self.position.advance(&entries);
            self.channel.hand_over(None, entries.present).await;
        }
    }

    async fn restore(&self, outage: &mut Outage, mut error: Error) -> Option<Connection> {
        while outage.pause(&self.channel, error).await {
            match self.reopen().await {
                Ok(connection) => {
                    outage.over();
                    return Some(connection);
                }
                Err(again) => error = again,
            }
        }
        None
    }

    async fn reopen(&self) -> Result<Connection> {
        let mut connection = Connection::open(&self.config, LONGEST_WAIT).await?;
        if let Position::Group { member, begin } = &self.position {
            ensure_group(&mut connection, self.config.topology, member, *begin).await?;
        }
        Ok(connection)
    }
}
