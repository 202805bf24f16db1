//! A member of a consumer group: reads, delivers, keeps unsettled entries, and takes over entries
//! that other members left.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{Value, cmd};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::error::{Error, Result};

use super::super::config::Config;
use super::super::connection::Connection;
use super::super::connection::commands::Member;
use super::super::connection::entry::{Entries, EntryId};
use super::super::consume::{LONGEST_WAIT, window::Window};
use super::super::error::{command_failed, unexpected_reply};
use super::super::topology::ensure_group;
use super::channel::{EntryChannel, Outage};
use super::delivery::Generation;
use super::pending::{PendingEntries, leave};
use super::settle::{Settler, Signals};

/// Number of times in one `claim_idle` that a member renews its entries and looks for those that
/// other members left.
const ROUNDS: u32 = 4;

/// Time to wait for a read that the server was asked to end, before asking again.
const UNBLOCK_AGAIN: Duration = Duration::from_millis(50);

/// The task that reads for one subscription until it ends.
pub(super) struct GroupTask {
    config: Arc<Config>,
    channel: EntryChannel,
    member: Member,
    start: EntryId,
}

/// The two connections of a generation: reads wait on one of them, and acknowledgements must not
/// wait behind them.
pub(super) struct Links {
    reader: Connection,
    settler: Connection,
    /// The server's id of the reader's connection.
    reader_id: i64,
}

impl GroupTask {
    pub(super) fn new(config: Arc<Config>, channel: EntryChannel, member: Member, start: EntryId) -> Self {
        Self { config, channel, member, start }
    }

    /// Completes the connections of a generation, of which the reader's exists.
    pub(super) async fn complete(&self, mut reader: Connection) -> Result<Links> {
        let mut who = cmd("CLIENT");
        who.arg("ID");
        let answer = reader.call(&who).await.map_err(|error| command_failed("ask for the connection's id", error))?;
        let Value::Int(reader_id) = answer else { return Err(unexpected_reply("ask for the connection's id")) };
        let settler = Connection::open(&self.config, Duration::ZERO).await?;
        Ok(Links { reader, settler, reader_id })
    }

    pub(super) async fn run(self, mut links: Links) {
        let mut outage = Outage::none();
        while let Err(error) = self.serve(links).await {
            match self.restore(&mut outage, error).await {
                Some(restored) => links = restored,
                None => return,
            }
        }
    }

    /// Serves one generation: from its connections until they are lost or the subscription ends.
    async fn serve(&self, links: Links) -> Result<()> {
        let Links { mut reader, mut settler, reader_id } = links;
        let window = self.channel.window();
        let (settlements, requests) = mpsc::channel(window.limit());
        let generation = Arc::new(Generation::new(Arc::clone(window), Some(settlements)));
        let signals = Signals::default();
        let settling = Settler {
            connection: &mut settler,
            member: &self.member,
            claim_idle: self.config.claim_idle,
            signals: &signals,
            reader_id,
            flights: VecDeque::new(),
        };
        let receiving = Receiver {
            task: self,
            pending_entries: PendingEntries::new(&self.member, &self.channel, &generation, self.config.claim_idle),
            generation: &generation,
            signals: &signals,
        };
        let _ends = EndsTenure(&generation);
        tokio::try_join!(receiving.run(&mut reader), settling.run(requests))?;
        leave(&mut settler, &self.member, self.config.claim_idle).await
    }

    async fn restore(&self, outage: &mut Outage, mut error: Error) -> Option<Links> {
        while outage.pause(&self.channel, error).await {
            match self.reopen().await {
                Ok(links) => {
                    outage.over();
                    return Some(links);
                }
                Err(again) => error = again,
            }
        }
        None
    }

    async fn reopen(&self) -> Result<Links> {
        let mut reader = Connection::open(&self.config, LONGEST_WAIT).await?;
        ensure_group(&mut reader, self.config.topology, &self.member, self.start).await?;
        self.complete(reader).await
    }
}

/// Ends the tenure of a generation's deliveries when it is dropped.
struct EndsTenure<'a>(&'a Generation);

impl Drop for EndsTenure<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The reading half of a generation.
struct Receiver<'a> {
    task: &'a GroupTask,
    pending_entries: PendingEntries<'a>,
    generation: &'a Arc<Generation>,
    signals: &'a Signals,
}

impl Receiver<'_> {
    async fn run(mut self, reader: &mut Connection) -> Result<()> {
        let round = self.task.config.claim_idle / ROUNDS;
        let mut next_round = Instant::now();
        // Entries that were delivered to this member over earlier connections come first.
        let mut own = Some(EntryId::ZERO);
        while !self.is_over() {
            if Instant::now() >= next_round {
                self.pending_entries.renew(reader, round).await?;
                if own.is_none() && !self.channel().is_abandoned() {
                    self.pending_entries.claim(reader).await?;
                }
                next_round = Instant::now() + round;
            }
            let room = if self.channel().is_abandoned() { 0 } else { self.window().worth_reading() };
            if room == 0 {
                self.wait(next_round).await;
                continue;
            }
            let entries = match own {
                None => self.read_new(reader, room, next_round).await?,
                Some(after) => {
                    let (entries, last) = self.pending_entries.read_own(reader, room, after).await?;
                    own = last;
                    if own.is_none() {
                        next_round = Instant::now();
                    }
                    entries
                }
            };
            self.channel().hand_over(self.generation, entries.present).await;
        }
        self.signals.done.cancel();
        Ok(())
    }

    fn channel(&self) -> &EntryChannel {
        &self.task.channel
    }

    fn window(&self) -> &Window {
        self.task.channel.window()
    }

    /// Returns `true` if no work is left: the broker is closed, or the stream is dropped and
    /// everything is settled.
    fn is_over(&self) -> bool {
        self.channel().is_closing() || (self.channel().is_abandoned() && self.window().is_idle())
    }

    /// Waits until there may be room, the round is over, or the subscription ends.
    async fn wait(&self, until: Instant) {
        let channel = self.channel();
        let changed = self.window().changed();
        if channel.is_abandoned() {
            tokio::select! {
                () = changed => {}
                () = channel.closed() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        } else {
            tokio::select! {
                () = changed => {}
                () = channel.stopped() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// Reads entries that were not delivered to any member yet. The read is never given up, because
    /// its entries would be pending but unknown here. When the subscription ends, the server is
    /// asked to end the read.
    async fn read_new(&self, reader: &mut Connection, count: usize, until: Instant) -> Result<Entries> {
        let wait = until.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
        let command = self.task.member.read_new(count, wait, false);
        let mut answer = pin!(reader.read(&command));
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            () = self.channel().stopped() => loop {
                self.signals.unblock.notify_one();
                // Repeated if necessary: the first request may reach the server before the read
                // does.
                if let Ok(answer) = tokio::time::timeout(UNBLOCK_AGAIN, &mut answer).await {
                    break answer;
                }
            },
        };
        answer.map_err(|error| command_failed("read the stream", error))
    }
}
