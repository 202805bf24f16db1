//! Acknowledges, renews and gives back entries, over a connection on which no read waits.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::time::Duration;

use ::redis::{Pipeline, RedisError, Value};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};

use super::super::config::ROUNDS;
use super::super::connection::commands::{Member, PAGE, unblock};
use super::super::connection::entry::{EntryId, Pending, list};
use super::super::connection::{Connection, answered};
use super::super::error::{command_failed, unexpected_reply};
use super::attempts;
use super::channel::EntryChannel;
use super::delivery::{Membership, Settlement, lost};
use super::holdings::{Claim, Return};
use super::pending::{carry_out, list_own, report_missing};
use super::trials::Change;

/// Signals from reading to settling.
#[derive(Default)]
pub(super) struct Signals {
    /// Notified when the reader is to be woken up.
    pub(super) unblock: Notify,
    /// Cancelled when no more entries are read, and none can be settled any more.
    pub(super) done: CancellationToken,
}

/// Maximum number of settlements taken from the queue at a time.
const MAX_BATCH: usize = 512;

/// Maximum number of unanswered pipelines. With two, one is on its way while the server works on
/// the other; more would only make them smaller.
const MAX_FLIGHTS: usize = 2;

/// The settlements of a member that are not answered. They outlive a lost connection, and are sent
/// again over the next one.
pub(super) struct Unsettled {
    requests: mpsc::Receiver<Settlement>,
    /// Those that were taken from the queue and are not sent.
    batch: Vec<Settlement>,
    /// The requests of each pipeline in flight, the oldest first.
    flights: VecDeque<Flight>,
    returns: Vec<Return>,
    /// Trials to note or to withdraw.
    trials: Vec<Change>,
}

impl Unsettled {
    pub(super) fn new(requests: mpsc::Receiver<Settlement>) -> Self {
        Self { requests, batch: Vec::new(), flights: VecDeque::new(), returns: Vec::new(), trials: Vec::new() }
    }
}

/// The requests of a pipeline.
enum Flight {
    Acknowledge(Vec<Settlement>),
    WakeReader,
}

/// The settling half of a member, over one connection.
pub(super) struct Settler<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) member: &'a Member,
    pub(super) channel: &'a EntryChannel,
    pub(super) membership: &'a Membership,
    pub(super) claim_idle: Duration,
    pub(super) signals: &'a Signals,
    pub(super) reader_id: i64,
    pub(super) unsettled: &'a mut Unsettled,
}

impl Settler<'_> {
    /// Settles over a new connection what is left of the one before, and finds out which entries
    /// were lost in the meantime, before any is read.
    pub(super) async fn begin(&mut self) -> Result<()> {
        self.resume().await?;
        self.renew(self.claim_idle / ROUNDS / 2).await?;
        // The server may have carried them out, and other members may have the entries.
        let holdings = &self.membership.holdings;
        self.unsettled.returns.retain(|entry| holdings.holds(entry.claim));
        // A note whose answer was lost may be at the server. It is not written twice.
        self.unsettled.trials.retain(|change| !change.begins);
        self.do_chores().await
    }

    /// Settles until reading is done and the queue is empty.
    pub(super) async fn run(&mut self) -> Result<()> {
        let round = self.claim_idle / ROUNDS;
        let mut next_round = pin!(tokio::time::sleep(round));
        let mut open = true;
        while open || !self.unsettled.flights.is_empty() {
            let Unsettled { requests, batch, flights, .. } = &mut *self.unsettled;
            tokio::select! {
                biased;
                () = self.signals.unblock.notified() => self.wake_reader(),
                () = self.signals.done.cancelled(), if !requests.is_closed() => requests.close(),
                () = &mut next_round => {
                    next_round.as_mut().reset(Instant::now() + round);
                    self.renew(round / 2).await?;
                }
                () = self.membership.holdings.chores() => self.do_chores().await?,
                received = requests.recv_many(batch, MAX_BATCH), if open && flights.len() < MAX_FLIGHTS => {
                    open = received > 0;
                    self.settle().await?;
                }
                answers = self.connection.landed() => self.land(answers.map_err(failed)?)?,
            }
        }
        // What is still out is given back. This process lives, so its trials are not lost ones.
        self.membership.holdings.withdraw_trials();
        self.do_chores().await
    }

    /// Sends settlements again whose answers were lost, if their entries are still pending with
    /// this member. Otherwise it is unknown who settled them.
    async fn resume(&mut self) -> Result<()> {
        let Unsettled { batch, flights, .. } = &mut *self.unsettled;
        for flight in flights.drain(..) {
            if let Flight::Acknowledge(unanswered) = flight {
                batch.extend(unanswered);
            }
        }
        let all = self.unsettled.batch.iter().map(Settlement::claim).collect();
        self.verify(all, || lost().with_unknown_outcome()).await?;
        self.settle().await
    }

    /// Ends the reader's wait. If the server does not allow that, it ends by itself a little later.
    fn wake_reader(&mut self) {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(unblock(self.reader_id));
        self.connection.send(&pipeline);
        self.unsettled.flights.push_back(Flight::WakeReader);
    }

    /// Acknowledges the batch, each delivery with its own command, whose answer tells if the entry
    /// was still pending. The answer to one command for many entries would only tell how many were
    /// pending, not which, and it costs the server about as much.
    async fn settle(&mut self) -> Result<()> {
        // The server would take an acknowledgement for that of a member that took the entry over
        // while this process did not renew it.
        if let Some(since) = Instant::now().checked_sub(self.claim_idle) {
            let claims = self.unsettled.batch.iter().map(Settlement::claim);
            let doubtful = self.membership.holdings.doubtful(claims, since);
            self.verify(doubtful, lost).await?;
        }
        let batch = std::mem::take(&mut self.unsettled.batch);
        if batch.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::with_capacity(batch.len() + 1);
        for settlement in &batch {
            pipeline.add_command(self.member.acknowledge(std::iter::once(settlement.claim().id)));
        }
        let counted = self.membership.holdings.settling(batch.iter().map(|settlement| settlement.claim().id));
        if !counted.is_empty() {
            pipeline.add_command(self.member.forget_attempts(&counted));
            self.unsettled.trials.retain(|change| !counted.contains(&change.id));
        }
        self.connection.send(&pipeline);
        self.unsettled.flights.push_back(Flight::Acknowledge(batch));
        Ok(())
    }

    /// Passes the answers to the oldest pipeline on to its settlements.
    fn land(&mut self, answers: Vec<Value>) -> Result<()> {
        let Some(Flight::Acknowledge(batch)) = self.unsettled.flights.pop_front() else { return Ok(()) };
        let mut told = Vec::with_capacity(batch.len());
        let mut batch = batch.into_iter().zip(answers);
        let mut failure = None;
        for (settlement, answer) in batch.by_ref() {
            match answered(answer) {
                Ok(Value::Int(0)) => told.push((settlement.end(), Err(lost()))),
                Ok(Value::Int(_)) => told.push((settlement.end(), Ok(()))),
                Ok(_) => failure = Some(unexpected_reply("acknowledge")),
                Err(error) => {
                    let error = failed(error);
                    if is_passing(&error) {
                        self.unsettled.batch.push(settlement);
                    } else {
                        told.push((settlement.end(), Err(error.without_source())));
                    }
                    failure = Some(error);
                }
            }
        }
        // Confirmed together, at the end: the first one wakes the consumer, which then finds the
        // others too.
        for (confirmer, result) in told {
            if let Some(confirmer) = confirmer {
                confirmer.confirm(result);
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Waits for the answers to everything in flight.
    pub(super) async fn land_all(&mut self) -> Result<()> {
        while !self.unsettled.flights.is_empty() {
            let answers = self.connection.landed().await.map_err(failed)?;
            self.land(answers)?;
        }
        Ok(())
    }

    /// Looks doubtful entries up. Those that are no longer this member's are removed from the
    /// batch, with an error.
    async fn verify(&mut self, doubtful: Vec<Claim>, error: impl Fn() -> Error) -> Result<()> {
        if doubtful.is_empty() {
            return Ok(());
        }
        self.land_all().await?;
        let gone = self.gone(&doubtful).await?;
        for settlement in std::mem::take(&mut self.unsettled.batch) {
            if settlement.is_lost() || gone.contains(&settlement.claim()) {
                settlement.end().into_iter().for_each(|confirmer| confirmer.confirm(Err(error())));
            } else {
                self.unsettled.batch.push(settlement);
            }
        }
        Ok(())
    }

    /// Returns those of the entries that are not pending with this member.
    async fn gone(&mut self, claims: &[Claim]) -> Result<Vec<Claim>> {
        let mut commands = Pipeline::with_capacity(claims.len());
        for claim in claims {
            commands.add_command(self.member.look_up(claim.id));
        }
        let answers = carry_out(self.connection, "look up what is pending", &commands).await?;
        let mut gone = Vec::new();
        for (claim, answer) in claims.iter().zip(answers) {
            if Pending::of_answer(answer)?.is_empty() {
                gone.push(*claim);
            }
        }
        Ok(gone)
    }

    /// Tells the server that this member still works on its entries, and finds out which of them it
    /// lost.
    async fn renew(&mut self, at_least: Duration) -> Result<()> {
        self.land_all().await?;
        let held = self.membership.holdings.all();
        if held.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let listed = list_own(self.connection, self.member).await?;
        let ours = self.membership.holdings.compare(held, &listed, now);
        let idle = ours.iter().filter(|pending| pending.idle >= at_least);
        let ids: Vec<EntryId> = idle.map(|pending| pending.id).collect();
        let mut commands = Pipeline::new();
        for page in ids.chunks(PAGE) {
            commands.add_command(self.member.renew(page, at_least));
        }
        if !ids.is_empty() {
            carry_out(self.connection, "renew what is pending", &commands).await?;
        }
        Ok(())
    }

    /// Stores failed attempts, notes trials and gives entries back.
    async fn do_chores(&mut self) -> Result<()> {
        self.land_all().await?;
        let holdings = &self.membership.holdings;
        let failed = holdings.unstored();
        if !failed.is_empty() {
            attempts::store(self.connection, self.member, &failed).await?;
            holdings.stored(&failed);
        }
        self.unsettled.trials.extend(holdings.take_trials());
        if !self.unsettled.trials.is_empty() {
            let refused = |id| holdings.refuse_trial(id);
            attempts::note(self.connection, self.member, &mut self.unsettled.trials, refused).await?;
        }
        self.unsettled.returns.extend(holdings.take_returns());
        if self.unsettled.returns.is_empty() {
            return Ok(());
        }
        self.drop_lost_returns().await?;
        self.give_back().await
    }

    /// Drops entries to give back that another member may have and does.
    async fn drop_lost_returns(&mut self) -> Result<()> {
        let now = Instant::now();
        let is_old = |entry: &&Return| now.duration_since(entry.since) >= self.claim_idle;
        let old: Vec<Claim> = self.unsettled.returns.iter().filter(is_old).map(|entry| entry.claim).collect();
        if old.is_empty() {
            return Ok(());
        }
        let gone = self.gone(&old).await?;
        gone.iter().for_each(|claim| self.membership.holdings.remove(*claim));
        self.unsettled.returns.retain(|entry| !gone.contains(&entry.claim));
        Ok(())
    }

    async fn give_back(&mut self) -> Result<()> {
        let mut by_count: BTreeMap<Option<u32>, Vec<EntryId>> = BTreeMap::new();
        for entry in &self.unsettled.returns {
            by_count.entry(entry.deliveries).or_default().push(entry.claim.id);
        }
        let mut commands = Pipeline::new();
        let mut asked = Vec::new();
        for (deliveries, ids) in &by_count {
            for page in ids.chunks(PAGE) {
                commands.add_command(self.member.give_back(page, self.claim_idle, *deliveries));
                asked.extend_from_slice(page);
            }
        }
        let answers = carry_out(self.connection, "give back what is pending", &commands).await?;
        let mut given = Vec::with_capacity(asked.len());
        for answer in answers {
            given.extend(list(answer)?.iter().filter_map(super::super::connection::entry::id));
        }
        for entry in std::mem::take(&mut self.unsettled.returns) {
            self.membership.holdings.remove(entry.claim);
            if let Some(confirmer) = entry.confirmer {
                confirmer.confirm(Ok(()));
            }
        }
        asked.retain(|id| !given.contains(id));
        report_missing(self.connection, self.member, self.channel, asked).await
    }
}

/// Returns `true` if the request may succeed over the next connection.
fn is_passing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Busy)
}

fn failed(error: RedisError) -> Error {
    command_failed("acknowledge", error)
}
