//! Pending entries: read again, renewed, claimed, and given back at the end.

use std::sync::Arc;
use std::time::Duration;

use ::redis::Pipeline;
use tokio::time::Instant;

use crate::error::Result;

use super::super::connection::commands::{Member, PAGE};
use super::super::connection::entry::{Entries, EntryId, Pending};
use super::super::connection::{Connection, answered};
use super::super::consume::{CONSUMER_PREFIX, TIDY_AFTER};
use super::super::error::{command_failed, unexpected_reply};
use super::super::topology::tidy;
use super::channel::EntryChannel;
use super::delivery::Generation;

/// The pending_entries of the pending entries of one generation.
pub(super) struct PendingEntries<'a> {
    member: &'a Member,
    channel: &'a EntryChannel,
    generation: &'a Arc<Generation>,
    claim_idle: Duration,
    next_tidy: Instant,
}

impl<'a> PendingEntries<'a> {
    pub(super) fn new(
        member: &'a Member,
        channel: &'a EntryChannel,
        generation: &'a Arc<Generation>,
        claim_idle: Duration,
    ) -> Self {
        let next_tidy = Instant::now() + claim_idle * TIDY_AFTER;
        Self { member, channel, generation, claim_idle, next_tidy }
    }

    /// Reads again this member's pending entries after `after`. Also returns the entry after which
    /// to continue, if there may be more.
    pub(super) async fn read_own(
        &self,
        connection: &mut Connection,
        count: usize,
        after: EntryId,
    ) -> Result<(Entries, Option<EntryId>)> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(self.member.read_own(count, after));
        // Asked second, so that it includes this delivery.
        pipeline.add_command(self.member.list_own(Duration::ZERO, after, None, count));
        let answers = connection.call_all(&pipeline).await;
        let [read, listed] = answers
            .and_then(|answers| answers.into_iter().map(answered).collect::<Result<Vec<_>, _>>())
            .map_err(|error| command_failed("read what is pending", error))?
            .try_into()
            .map_err(|_| unexpected_reply("read what is pending"))?;
        let mut entries = Entries::of_read(read)?;
        entries.count_attempts(&Pending::of_answer(listed)?);
        let last = entries.present.iter().map(|entry| entry.id).chain(entries.missing.iter().copied()).max();
        self.forget(connection, &entries.missing).await?;
        Ok((entries, last))
    }

    /// Tells the server that this member still works on its entries, as far as they were idle for
    /// `idle`.
    pub(super) async fn renew(&self, connection: &mut Connection, idle: Duration) -> Result<()> {
        let is_held = |id: EntryId| !self.generation.is_abandoned(id);
        set_idle_of_own(connection, self.member, idle, Duration::ZERO, is_held).await
    }

    /// Takes over entries about which a member was silent for too long, as far as there is room.
    pub(super) async fn claim(&mut self, connection: &mut Connection) -> Result<()> {
        if Instant::now() >= self.next_tidy {
            let silent = self.claim_idle * TIDY_AFTER;
            tidy(connection, self.member, CONSUMER_PREFIX, silent).await?;
            self.next_tidy = Instant::now() + silent;
        }
        let mut cursor = EntryId::ZERO;
        loop {
            let room = self.channel.window().room().min(PAGE);
            if room == 0 {
                return Ok(());
            }
            let claim = self.member.claim(self.claim_idle, cursor, room);
            let answer = connection.call(&claim).await;
            let (next, mut entries) =
                Entries::of_claim(answer.map_err(|error| command_failed("claim what is pending", error))?)?;
            self.count_claimed(connection, &mut entries).await?;
            self.channel.report_missing(&entries.missing);
            for entry in &entries.present {
                self.generation.reclaim(entry.id);
            }
            self.channel.hand_over(self.generation, entries.present).await;
            if next == EntryId::ZERO {
                return Ok(());
            }
            cursor = next;
        }
    }

    async fn count_claimed(&self, connection: &mut Connection, entries: &mut Entries) -> Result<()> {
        if entries.present.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::with_capacity(entries.present.len());
        for entry in &entries.present {
            pipeline.add_command(self.member.look_up(entry.id));
        }
        let answers = connection.call_all(&pipeline).await;
        let answers = answers.map_err(|error| command_failed("count deliveries", error))?;
        let mut pending = Vec::with_capacity(answers.len());
        for answer in answers {
            let answer = answered(answer).map_err(|error| command_failed("count deliveries", error))?;
            pending.extend(Pending::of_answer(answer)?);
        }
        entries.count_attempts(&pending);
        Ok(())
    }

    /// Reports entries that are pending but no longer in the stream, and acknowledges them.
    async fn forget(&self, connection: &mut Connection, missing: &[EntryId]) -> Result<()> {
        if missing.is_empty() {
            return Ok(());
        }
        self.channel.report_missing(missing);
        let acknowledged = connection.call(&self.member.acknowledge(missing.iter().copied())).await;
        acknowledged.map(drop).map_err(|error| command_failed("forget what was trimmed", error))
    }
}

/// Ends a membership: others may claim its pending entries at once, and the consumer is removed if
/// it has none.
pub(super) async fn leave(connection: &mut Connection, member: &Member, claim_idle: Duration) -> Result<()> {
    set_idle_of_own(connection, member, Duration::ZERO, claim_idle, |_| true).await?;
    tidy(connection, member, &member.consumer, Duration::ZERO).await
}

/// Sets the idle time of this member's pending entries that were idle for `at_least` and are
/// `chosen`.
async fn set_idle_of_own(
    connection: &mut Connection,
    member: &Member,
    at_least: Duration,
    idle: Duration,
    chosen: impl Fn(EntryId) -> bool,
) -> Result<()> {
    let failed = |error| command_failed("renew what is pending", error);
    let mut after = EntryId::ZERO;
    loop {
        let listed = connection.call(&member.list_own(at_least, after, None, PAGE)).await.map_err(failed)?;
        let listed = Pending::of_answer(listed)?;
        let ids: Vec<EntryId> = listed.iter().map(|pending| pending.id).filter(|id| chosen(*id)).collect();
        if !ids.is_empty() {
            connection.call(&member.set_idle(&ids, idle)).await.map_err(failed)?;
        }
        match listed.last() {
            Some(last) if listed.len() == PAGE => after = last.id,
            _ => return Ok(()),
        }
    }
}
