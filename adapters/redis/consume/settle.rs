//! Acknowledges deliveries, many to a pipeline, over a connection on which no read waits.

use std::collections::VecDeque;
use std::time::Duration;

use ::redis::{Pipeline, RedisError, Value};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::error::{Error, Result};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::super::connection::commands::{Member, unblock};
use super::super::connection::entry::Pending;
use super::super::connection::{Connection, answered};
use super::super::error::{command_failed, unexpected_reply};
use super::delivery::{Settlement, lost};

/// Signals from reading to settling.
#[derive(Default)]
pub(super) struct Signals {
    /// Notified when the reader is to be woken up.
    pub(super) unblock: Notify,
    /// Cancelled when no more entries are read.
    pub(super) done: CancellationToken,
}

/// Maximum number of settlements taken from the queue at a time.
const MAX_BATCH: usize = 512;

/// Maximum number of unanswered pipelines. With two, one is on its way while the server works on
/// the other; more would only make them smaller.
const MAX_FLIGHTS: usize = 2;

/// The acknowledging half of a generation.
pub(super) struct Settler<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) member: &'a Member,
    pub(super) claim_idle: Duration,
    pub(super) signals: &'a Signals,
    pub(super) reader_id: i64,
    /// The requests of each pipeline in flight, the oldest first.
    pub(super) flights: VecDeque<Flight>,
}

/// The requests of a pipeline. If it is dropped, the connection is gone, and its settlements say
/// so.
pub(super) enum Flight {
    Acknowledge(Vec<Settlement>),
    WakeReader,
}

impl Settler<'_> {
    /// Acknowledges until reading is done and the queue is empty.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Settlement>) -> Result<()> {
        let mut batch = Vec::new();
        let mut open = true;
        while open || !self.flights.is_empty() {
            tokio::select! {
                biased;
                () = self.signals.unblock.notified() => self.wake_reader().await,
                () = self.signals.done.cancelled(), if !requests.is_closed() => requests.close(),
                received = requests.recv_many(&mut batch, MAX_BATCH), if open && self.flights.len() < MAX_FLIGHTS => {
                    open = received > 0;
                    self.settle(std::mem::take(&mut batch)).await?;
                }
                answers = self.connection.landed() => self.land(answers.map_err(failed)?)?,
            }
        }
        Ok(())
    }

    /// Ends the reader's wait. If the server does not allow that, it ends by itself a little later.
    async fn wake_reader(&mut self) {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(unblock(self.reader_id));
        self.connection.send(&pipeline).await;
        self.flights.push_back(Flight::WakeReader);
    }

    /// Acknowledges a batch, each delivery with its own command, whose answer tells if the entry
    /// was still pending. The answer to one command for many entries would only tell how many were
    /// pending, not which, and it costs the server about as much.
    async fn settle(&mut self, batch: Vec<Settlement>) -> Result<()> {
        let batch = self.verify(batch).await?;
        if batch.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::with_capacity(batch.len());
        for settlement in &batch {
            pipeline.add_command(self.member.acknowledge(std::iter::once(settlement.id())));
        }
        self.connection.send(&pipeline).await;
        self.flights.push_back(Flight::Acknowledge(batch));
        Ok(())
    }

    /// Passes the answers to the oldest pipeline on to its settlements.
    fn land(&mut self, answers: Vec<Value>) -> Result<()> {
        let Some(Flight::Acknowledge(batch)) = self.flights.pop_front() else { return Ok(()) };
        let mut told = Vec::with_capacity(batch.len());
        let mut batch = batch.into_iter().zip(answers);
        let failure = batch.find_map(|(settlement, answer)| match answered(answer) {
            Ok(Value::Int(acknowledged)) => {
                told.push((settlement.end(), acknowledged > 0));
                None
            }
            Ok(_) => Some(unexpected_reply("acknowledge")),
            Err(error) => Some(failed(error)),
        });
        // Confirmed together, at the end: the first one wakes the consumer, which then finds the
        // others too.
        for (confirmer, settled) in told {
            let result = if settled { Ok(()) } else { Err(lost()) };
            if let Some(confirmer) = confirmer {
                confirmer.confirm(result);
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Removes deliveries that another member took over while this process did not renew them. The
    /// server would take an acknowledgement for that member's.
    async fn verify(&mut self, batch: Vec<Settlement>) -> Result<Vec<Settlement>> {
        let now = Instant::now();
        let claim_idle = self.claim_idle;
        let is_old = |settlement: &Settlement| now.duration_since(settlement.since()) >= claim_idle;
        if !batch.iter().any(is_old) {
            return Ok(batch);
        }
        while !self.flights.is_empty() {
            let answers = self.connection.landed().await.map_err(failed)?;
            self.land(answers)?;
        }
        let (old, mut ours): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_old);
        let mut pipeline = Pipeline::with_capacity(old.len());
        for settlement in &old {
            pipeline.add_command(self.member.look_up(settlement.id()));
        }
        let answers = self.connection.call_all(&pipeline).await.map_err(failed)?;
        for (settlement, answer) in old.into_iter().zip(answers) {
            let pending = answered(answer).map_err(failed)?;
            if Pending::of_answer(pending)?.is_empty() {
                settlement.end().into_iter().for_each(|confirmer| confirmer.confirm(Err(lost())));
            } else {
                ours.push(settlement);
            }
        }
        Ok(ours)
    }
}

fn failed(error: RedisError) -> Error {
    command_failed("acknowledge", error)
}
