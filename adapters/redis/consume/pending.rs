//! Pending entries that a member takes: its own after a lost connection, those that were given
//! back, and those of members that are gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{Pipeline, Value};
use tokio::time::Instant;

use crate::error::{Error, Result};

use super::super::config::{Config, ROUNDS};
use super::super::connection::commands::{Member, PAGE};
use super::super::connection::entry::{Entries, Entry, EntryId, Pending};
use super::super::connection::{Connection, answered};
use super::super::consume::{CONSUMER_PREFIX, TIDY_AFTER};
use super::super::error::{command_failed, unexpected_reply};
use super::super::topology::{position, tidy};
use super::attempts::{Counts, Scan, counts_of};
use super::channel::EntryChannel;
use super::delivery::Membership;
use super::trim::Trimmer;

/// Maximum time between two looks for entries that were given back.
const LOOK: Duration = Duration::from_secs(1);

/// The pending entries that a member may take, over one connection.
pub(super) struct PendingEntries<'a> {
    config: &'a Config,
    member: &'a Member,
    channel: &'a EntryChannel,
    membership: &'a Arc<Membership>,
    claim_idle: Duration,
    trimmer: Trimmer,
    /// The entry after which this member's own ones are still to be read again.
    own: Option<EntryId>,
    next_look: Instant,
    next_claim: Instant,
    next_tidy: Instant,
    scan: Scan,
}

impl<'a> PendingEntries<'a> {
    pub(super) fn new(
        config: &'a Config,
        member: &'a Member,
        channel: &'a EntryChannel,
        membership: &'a Arc<Membership>,
    ) -> Self {
        let (now, claim_idle) = (Instant::now(), config.claim_idle);
        let (next_look, next_claim, next_tidy) = (now, now, now + claim_idle * TIDY_AFTER);
        let (own, scan) = (Some(EntryId::ZERO), Scan::default());
        let trimmer = Trimmer::new(config);
        Self { config, member, channel, membership, claim_idle, trimmer, own, next_look, next_claim, next_tidy, scan }
    }

    /// Returns the time at which to take entries again.
    pub(super) fn next(&self) -> Instant {
        self.next_look.min(self.next_claim).min(self.trimmer.due())
    }

    /// Takes what there is to take now, as far as there is room.
    pub(super) async fn take(&mut self, connection: &mut Connection) -> Result<()> {
        while let Some(after) = self.own.filter(|_| self.room() > 0) {
            self.own = self.read_own(connection, after).await?;
        }
        let round = self.claim_idle / ROUNDS;
        let now = Instant::now();
        if now >= self.next_look {
            self.next_look = now + LOOK.min(round);
            let room = self.room();
            if room > 0 {
                let listed = self.list(connection, self.member.list_returned(room)).await?;
                self.claim(connection, &listed).await?;
            }
        }
        if now >= self.next_claim {
            let due = std::mem::replace(&mut self.next_claim, now + round);
            self.claim_abandoned(connection, due).await?;
            if let Some(position) = position(connection, self.member).await? {
                self.membership.see(position);
            }
            self.tidy(connection, now).await?;
        }
        self.trimmer.trim(connection, self.config, self.member).await
    }

    fn room(&self) -> usize {
        let window = self.channel.window();
        window.room().min(window.most_read()).min(PAGE)
    }

    async fn list(&self, connection: &mut Connection, command: ::redis::Cmd) -> Result<Vec<Pending>> {
        let listed = connection.call(&command).await;
        Pending::of_answer(listed.map_err(|error| command_failed("list what is pending", error))?)
    }

    /// Reads again entries after `after` that the server counts as this member's and that never
    /// reached it, because the connection was lost. Their hand-out is not counted twice. Returns
    /// the entry after which to continue, if there may be more.
    async fn read_own(&self, connection: &mut Connection, after: EntryId) -> Result<Option<EntryId>> {
        let listed = self.list(connection, self.member.list_own(after)).await?;
        let end = listed.last().filter(|_| listed.len() == PAGE).map(|last| last.id);
        let (room, holdings) = (self.room(), &self.membership.holdings);
        let mut unknown: Vec<Pending> = listed.into_iter().filter(|pending| !holdings.has(pending.id)).collect();
        let more = unknown.len() > room;
        unknown.truncate(room);
        let mut commands = Pipeline::new();
        for run in unknown.chunk_by(|one, next| one.deliveries == next.deliveries) {
            let ids: Vec<EntryId> = run.iter().map(|pending| pending.id).collect();
            commands.add_command(self.member.read_again(&ids, run[0].deliveries.max(1)));
        }
        let last = unknown.last().map(|last| last.id).filter(|_| more);
        self.receive(connection, commands, &unknown, 0).await?;
        Ok(last.or(end))
    }

    /// Takes over entries about which a member was silent for too long. If the answer comes long
    /// after the look was `due`, this process or the server stood still, and so may other members
    /// have: they renew first.
    async fn claim_abandoned(&self, connection: &mut Connection, mut due: Instant) -> Result<()> {
        loop {
            let room = self.room();
            if room == 0 {
                return Ok(());
            }
            let mut listed = self.list(connection, self.member.list_idle(self.claim_idle, room)).await?;
            if due.elapsed() > self.claim_idle / 2 {
                let (stream, group) = (&self.member.stream, &self.member.group);
                tracing::debug!(stream, group, "the server or this process stood still");
                return Ok(());
            }
            due = Instant::now();
            let is_last = listed.len() < room;
            // Its own may be late as well; they are renewed.
            listed.retain(|pending| !self.membership.holdings.has(pending.id));
            if listed.is_empty() {
                return Ok(());
            }
            self.claim(connection, &listed).await?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Claims listed entries that are still idle, and hands them over.
    async fn claim(&self, connection: &mut Connection, listed: &[Pending]) -> Result<()> {
        let ids: Vec<EntryId> = listed.iter().map(|pending| pending.id).collect();
        let mut commands = Pipeline::new();
        if !ids.is_empty() {
            commands.add_command(self.member.claim(&ids, self.claim_idle));
        }
        self.receive(connection, commands, listed, 1).await
    }

    /// Sends commands that read listed entries, and hands these over: with their failed attempts
    /// and trials, and with so many `more` hand-outs than listed.
    async fn receive(
        &self,
        connection: &mut Connection,
        mut commands: Pipeline,
        listed: &[Pending],
        more: u32,
    ) -> Result<()> {
        if listed.is_empty() {
            return Ok(());
        }
        let ids: Vec<EntryId> = listed.iter().map(|pending| pending.id).collect();
        commands.add_command(self.member.read_attempts(&ids));
        let failed = |error| command_failed("take over what is pending", error);
        let mut answers = connection.call_all(&commands).await.map_err(failed)?;
        let counts = counts_of(&ids, answers.pop().unwrap_or(Value::Nil));
        let mut entries: Vec<Entry> = Vec::with_capacity(ids.len());
        for answer in answers {
            entries.extend(Entries::of_list(answered(answer).map_err(failed)?)?.present);
        }
        let facts: HashMap<EntryId, &Pending> = listed.iter().map(|pending| (pending.id, pending)).collect();
        for entry in &mut entries {
            let before = facts.get(&entry.id).map_or(0, |pending| pending.deliveries);
            entry.deliveries = before.saturating_add(more).max(1);
            let Counts { failed, trials } = counts.get(&entry.id).copied().unwrap_or_default();
            (entry.failed, entry.trials) = (failed, trials);
        }
        let came: Vec<EntryId> = entries.iter().map(|entry| entry.id).collect();
        let absent = ids.into_iter().filter(|id| !came.contains(id)).collect();
        report_missing(connection, self.member, self.channel, absent).await?;
        self.channel.hand_over(Some(self.membership), entries).await;
        Ok(())
    }

    async fn tidy(&mut self, connection: &mut Connection, now: Instant) -> Result<()> {
        if now < self.next_tidy {
            return Ok(());
        }
        let silent = self.claim_idle * TIDY_AFTER;
        self.next_tidy = now + silent;
        tidy(connection, self.member, CONSUMER_PREFIX, silent).await?;
        self.scan.next(connection, self.member).await
    }
}

/// Reports those of the entries, which the server did not transfer, that are no longer in the
/// stream: they can no longer be handled.
pub(super) async fn report_missing(
    connection: &mut Connection,
    member: &Member,
    channel: &EntryChannel,
    absent: Vec<EntryId>,
) -> Result<()> {
    if absent.is_empty() {
        return Ok(());
    }
    let failed = |error| command_failed("look for what was trimmed", error);
    let mut commands = Pipeline::with_capacity(absent.len());
    for id in &absent {
        commands.add_command(member.find(*id));
    }
    let answers = connection.call_all(&commands).await.map_err(failed)?;
    let mut missing = Vec::new();
    for (id, answer) in absent.into_iter().zip(answers) {
        match answered(answer).map_err(failed)? {
            Value::Array(found) if found.is_empty() => missing.push(id),
            Value::Array(_) => {}
            _ => return Err(unexpected_reply("look for what was trimmed")),
        }
    }
    channel.report_missing(&missing);
    Ok(())
}

/// Lists the entries that the server counts as this member's.
pub(super) async fn list_own(connection: &mut Connection, member: &Member) -> Result<Vec<Pending>> {
    let failed = |error| command_failed("renew what is pending", error);
    let mut own = Vec::new();
    let mut after = EntryId::ZERO;
    loop {
        let page = connection.call(&member.list_own(after)).await.map_err(failed)?;
        let page = Pending::of_answer(page)?;
        own.extend_from_slice(&page);
        match page.last() {
            Some(last) if page.len() == PAGE => after = last.id,
            _ => return Ok(own),
        }
    }
}

/// Sends commands, none of which may be refused.
pub(super) async fn carry_out(
    connection: &mut Connection,
    what: &'static str,
    commands: &Pipeline,
) -> Result<Vec<Value>> {
    let failed = |error| -> Error { command_failed(what, error) };
    let answers = connection.call_all(commands).await.map_err(failed)?;
    answers.into_iter().map(|answer| answered(answer).map_err(failed)).collect()
}

/// Ends a membership: its entries go to other members at once, and the consumer is removed.
pub(super) async fn leave(connection: &mut Connection, member: &Member, claim_idle: Duration) -> Result<()> {
    let own: Vec<EntryId> = list_own(connection, member).await?.iter().map(|pending| pending.id).collect();
    let mut commands = Pipeline::new();
    for page in own.chunks(PAGE) {
        commands.add_command(member.give_back(page, claim_idle, None));
    }
    if !own.is_empty() {
        carry_out(connection, "give back what is pending", &commands).await?;
    }
    tidy(connection, member, &member.consumer, Duration::ZERO).await
}
