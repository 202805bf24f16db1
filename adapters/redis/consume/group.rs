//! A member of a consumer group: reads and delivers, over connections that it restores.

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
use super::super::topology::{Begin, ensure_group, join};
use super::channel::{EntryChannel, Outage};
use super::delivery::{Membership, Memberships};
use super::pending::{PendingEntries, leave};
use super::settle::{Settler, Signals, Unsettled};

/// Time to wait for a read that the server was asked to end, before asking again.
const UNBLOCK_AGAIN: Duration = Duration::from_millis(50);

/// Time to wait, after one connection was lost, for answers over the other.
const LAND_WITHIN: Duration = Duration::from_secs(1);

/// The task that reads for one subscription until it ends.
pub(super) struct GroupTask {
    config: Arc<Config>,
    channel: EntryChannel,
    member: Member,
    start: EntryId,
    memberships: Memberships,
}

/// The two connections of a member: reads wait on one of them, and acknowledgements must not
/// wait behind them.
pub(super) struct Links {
    reader: Connection,
    settler: Connection,
    /// The server's id of the reader's connection.
    reader_id: i64,
}

impl GroupTask {
    pub(super) fn new(
        config: Arc<Config>,
        channel: EntryChannel,
        member: Member,
        start: EntryId,
        memberships: Memberships,
    ) -> Self {
        Self { config, channel, member, start, memberships }
    }

    /// Completes the connections of a member, of which the reader's exists.
    pub(super) async fn complete(&self, mut reader: Connection) -> Result<Links> {
        let mut who = cmd("CLIENT");
        who.arg("ID");
        let answer = reader.call(&who).await.map_err(|error| command_failed("ask for the connection's id", error))?;
        let Value::Int(reader_id) = answer else { return Err(unexpected_reply("ask for the connection's id")) };
        let mut settler = Connection::open(&self.config, Duration::ZERO).await?;
        join(&mut settler, &self.member).await?;
        Ok(Links { reader, settler, reader_id })
    }

    pub(super) async fn run(self, mut links: Links) {
        let (settlements, requests) = mpsc::channel(self.channel.window().most_unsettled());
        let membership = Arc::new(Membership::new(settlements));
        self.memberships.add(&self.member, &membership);
        let mut unsettled = Unsettled::new(requests);
        let _ends = EndsTenure(&membership);
        let mut outage = Outage::none();
        while let Err(error) = self.serve(links, &membership, &mut unsettled).await {
            membership.holdings.forget_waiting();
            match self.restore(&membership, &mut outage, error).await {
                Some(restored) => links = restored,
                None => return,
            }
        }
    }

    /// Serves over a pair of connections, until they are lost or the subscription ends.
    async fn serve(&self, links: Links, membership: &Arc<Membership>, unsettled: &mut Unsettled) -> Result<()> {
        let Links { mut reader, mut settler, reader_id } = links;
        let claim_idle = self.config.claim_idle;
        let signals = Signals::default();
        let mut settling = Settler {
            connection: &mut settler,
            member: &self.member,
            channel: &self.channel,
            membership,
            claim_idle,
            signals: &signals,
            reader_id,
            unsettled,
        };
        settling.begin().await?;
        let receiving = Receiver {
            task: self,
            pending_entries: PendingEntries::new(&self.config, &self.member, &self.channel, membership),
            membership,
            signals: &signals,
        };
        if let Err(lost) = tokio::try_join!(receiving.run(&mut reader), settling.run()) {
            // If only the reader's connection is lost, what was acknowledged is not left unknown.
            let _ = tokio::time::timeout(LAND_WITHIN, settling.land_all()).await;
            return Err(lost);
        }
        membership.holdings.end();
        leave(&mut settler, &self.member, claim_idle).await
    }

    async fn restore(&self, membership: &Membership, outage: &mut Outage, mut error: Error) -> Option<Links> {
        while outage.pause(&self.channel, error).await {
            match self.reopen(membership.seen()).await {
                Ok(links) => {
                    outage.over();
                    return Some(links);
                }
                Err(again) => error = again,
            }
        }
        None
    }

    async fn reopen(&self, seen: Option<EntryId>) -> Result<Links> {
        let mut reader = Connection::open(&self.config, LONGEST_WAIT).await?;
        let begin = Begin { start: self.start, seen };
        ensure_group(&mut reader, self.config.topology, &self.member, begin).await?;
        self.complete(reader).await
    }
}

/// Ends the tenure of a member's deliveries when it is dropped.
struct EndsTenure<'a>(&'a Membership);

impl Drop for EndsTenure<'_> {
    fn drop(&mut self) {
        self.0.holdings.end();
    }
}

/// The reading half of a member, over one connection.
struct Receiver<'a> {
    task: &'a GroupTask,
    pending_entries: PendingEntries<'a>,
    membership: &'a Arc<Membership>,
    signals: &'a Signals,
}

impl Receiver<'_> {
    async fn run(mut self, reader: &mut Connection) -> Result<()> {
        while !self.channel().is_stopped() {
            self.pending_entries.take(reader).await?;
            let until = self.pending_entries.next();
            match self.window().worth_reading() {
                _ if self.channel().is_stopped() => break,
                0 => self.wait(reader, until).await?,
                room => {
                    let entries = self.read_new(reader, room, until).await?;
                    self.channel().hand_over(Some(self.membership), entries.present).await;
                }
            }
        }
        self.membership.holdings.give_back_waiting();
        self.outlast().await;
        self.signals.done.cancel();
        Ok(())
    }

    fn channel(&self) -> &EntryChannel {
        &self.task.channel
    }

    fn window(&self) -> &Window {
        self.task.channel.window()
    }

    /// Waits until there may be room, it is time to take entries, or the subscription stops, and
    /// keeps the connection alive.
    async fn wait(&self, reader: &mut Connection, until: Instant) -> Result<()> {
        tokio::select! {
            () = self.window().changed() => {}
            () = self.channel().stopped() => {}
            () = tokio::time::sleep_until(until) => {}
            lost = reader.landed() => {
                lost.map_err(|error| command_failed("read the stream", error))?;
            }
        }
        Ok(())
    }

    /// Waits until the broker is closed, or the stream is dropped and everything is settled.
    async fn outlast(&self) {
        let settled = async {
            self.channel().abandoned().await;
            self.channel().give_up();
            while !self.window().is_idle() {
                self.window().changed().await;
            }
        };
        tokio::select! {
            () = settled => {}
            () = self.channel().closed() => {}
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
        self.channel().read(answer)
    }
}
