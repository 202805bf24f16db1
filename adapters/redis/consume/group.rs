//! A member of a consumer group: reads, hands out, keeps what is unsettled, and takes over what others left.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{Value, cmd};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};

use super::super::commands::Member;
use super::super::config::Config;
use super::super::connection::Connection;
use super::super::entry::{Entries, EntryId};
use super::super::error::{command_failed, unexpected_reply};
use super::super::topology::ensure_group;
use super::delivery::Generation;
use super::outlet::{Outage, Outlet};
use super::pending::{Keeper, leave};
use super::settle::Settler;
use super::{LONGEST_WAIT, window::Window};

/// In one `claim_idle`, a member renews what it holds and looks for what others left that many times.
const ROUNDS: u32 = 4;

/// How long to wait for a read that the server was asked to end.
const UNBLOCK_AGAIN: Duration = Duration::from_millis(50);

/// Reads for one subscription until it ends.
pub(super) struct GroupTask {
    config: Arc<Config>,
    outlet: Outlet,
    member: Member,
    start: EntryId,
}

/// The two connections of a generation: reads wait on one of them, and acknowledgements must not wait behind.
pub(super) struct Links {
    reader: Connection,
    settler: Connection,
    /// The server's number for the reader's connection.
    reader_id: i64,
}

/// What reading tells settling.
#[derive(Default)]
pub(super) struct Signals {
    /// The reader is to be woken up.
    pub(super) unblock: Notify,
    /// Nothing more is read.
    pub(super) done: CancellationToken,
}

impl GroupTask {
    pub(super) fn new(config: Arc<Config>, outlet: Outlet, member: Member, start: EntryId) -> Self {
        Self { config, outlet, member, start }
    }

    /// The connections of a generation, one of which is there.
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

    /// One generation: from its connections until they are lost or the subscription ends.
    async fn serve(&self, links: Links) -> Result<()> {
        let Links { mut reader, mut settler, reader_id } = links;
        let window = self.outlet.window();
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
            keeper: Keeper::new(&self.member, &self.outlet, &generation, self.config.claim_idle),
            generation: &generation,
            signals: &signals,
        };
        tokio::try_join!(receiving.run(&mut reader), settling.run(requests))?;
        leave(&mut settler, &self.member, self.config.claim_idle).await
    }

    async fn restore(&self, outage: &mut Outage, mut error: Error) -> Option<Links> {
        while outage.pause(&self.outlet, error).await {
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

/// The reading half of a generation.
struct Receiver<'a> {
    task: &'a GroupTask,
    keeper: Keeper<'a>,
    generation: &'a Arc<Generation>,
    signals: &'a Signals,
}

impl Receiver<'_> {
    async fn run(mut self, reader: &mut Connection) -> Result<()> {
        let round = self.task.config.claim_idle / ROUNDS;
        let mut next_round = Instant::now();
        // What this member was handed out over earlier connections comes first.
        let mut own = Some(EntryId::ZERO);
        while !self.is_over() {
            if Instant::now() >= next_round {
                self.keeper.renew(reader, round).await?;
                if own.is_none() && !self.outlet().is_abandoned() {
                    self.keeper.claim(reader).await?;
                }
                next_round = Instant::now() + round;
            }
            let room = if self.outlet().is_abandoned() { 0 } else { self.window().worth_reading() };
            if room == 0 {
                self.wait(next_round).await;
                continue;
            }
            let entries = match own {
                None => self.read_new(reader, room, next_round).await?,
                Some(after) => {
                    let (entries, last) = self.keeper.read_own(reader, room, after).await?;
                    own = last;
                    if own.is_none() {
                        next_round = Instant::now();
                    }
                    entries
                }
            };
            self.outlet().hand_over(self.generation, entries.present).await;
        }
        self.signals.done.cancel();
        Ok(())
    }

    fn outlet(&self) -> &Outlet {
        &self.task.outlet
    }

    fn window(&self) -> &Window {
        self.task.outlet.window()
    }

    /// Whether nothing is left to do: the broker is closed, or nobody reads and nothing is unsettled.
    fn is_over(&self) -> bool {
        self.outlet().is_closing() || (self.outlet().is_abandoned() && self.window().is_idle())
    }

    /// Waits until there may be room, or the round is over, or the subscription ends.
    async fn wait(&self, until: Instant) {
        let outlet = self.outlet();
        let changed = self.window().changed();
        if outlet.is_abandoned() {
            tokio::select! {
                () = changed => {}
                () = outlet.closed() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        } else {
            tokio::select! {
                () = changed => {}
                () = outlet.stopped() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// Reads what nobody was handed out yet. The read is never given up, for its entries would be pending and not here: when
    /// the subscription ends, the server is asked to end it.
    async fn read_new(&self, reader: &mut Connection, count: usize, until: Instant) -> Result<Entries> {
        let wait = until.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
        let command = self.task.member.read_new(count, wait, false);
        let mut answer = pin!(reader.read(&command));
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            () = self.outlet().stopped() => loop {
                self.signals.unblock.notify_one();
                // Once more if need be: the first time it may come to the server before the read itself does.
                if let Ok(answer) = tokio::time::timeout(UNBLOCK_AGAIN, &mut answer).await {
                    break answer;
                }
            },
        };
        answer.map_err(|error| command_failed("read the stream", error))
    }
}
