//! Acknowledges, many deliveries to a command, over a connection on which nothing waits.

use std::time::Duration;

use ::redis::{Pipeline, RedisError, Value};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::error::{Error, Result};

use super::super::commands::{Member, unblock};
use super::super::connection::{Connection, answered};
use super::super::entry::Pending;
use super::super::error::{command_failed, unexpected_reply};
use super::delivery::{Settlement, lost};
use super::group::Signals;

/// How many settlements are taken from the queue at a time.
const MAX_BATCH: usize = 512;

/// Up to that many settlements, each has a command of its own: its answer then says about exactly this one.
const ALONE: usize = 8;

/// Beyond, one command acknowledges that many; about a part of them the answer says only how many were pending.
const TOGETHER: usize = 64;

/// The acknowledging half of a generation.
pub(super) struct Settler<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) member: &'a Member,
    pub(super) claim_idle: Duration,
    pub(super) signals: &'a Signals,
    pub(super) reader_id: i64,
}

impl Settler<'_> {
    /// Acknowledges until reading is done and the queue is empty.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Settlement>) -> Result<()> {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = self.signals.unblock.notified() => self.wake_reader().await?,
                () = self.signals.done.cancelled(), if !requests.is_closed() => requests.close(),
                received = requests.recv_many(&mut batch, MAX_BATCH) => match received {
                    0 => return Ok(()),
                    _ => self.settle(std::mem::take(&mut batch)).await?,
                },
                // Nothing is on its way: it can only become lost.
                lost = self.connection.landed() => return Err(lost.map_or_else(failed, |_| unexpected_reply("acknowledge"))),
            }
        }
    }

    /// Ends the reader's waiting. Where the server does not allow that, it ends by itself a little later.
    async fn wake_reader(&mut self) -> Result<()> {
        match self.connection.call(&unblock(self.reader_id)).await {
            Ok(_) => Ok(()),
            Err(error) if error.code().is_some() => Ok(()),
            Err(error) => Err(command_failed("end a read", error)),
        }
    }

    /// Acknowledges a batch and tells each how it went. When the connection fails, dropping the rest tells them.
    async fn settle(&mut self, batch: Vec<Settlement>) -> Result<()> {
        let batch = self.verify(batch).await?;
        if batch.is_empty() {
            return Ok(());
        }
        let size = if batch.len() <= ALONE { 1 } else { TOGETHER };
        let mut pipeline = Pipeline::with_capacity(batch.len().div_ceil(size));
        for chunk in batch.chunks(size) {
            pipeline.add_command(self.member.acknowledge(chunk.iter().map(Settlement::id)));
        }
        let answers = self.connection.call_all(&pipeline).await.map_err(failed)?;
        let mut taken = Vec::with_capacity(answers.len());
        for answer in answers {
            match answered(answer).map_err(failed)? {
                Value::Int(acknowledged) => taken.push(acknowledged),
                _ => return Err(unexpected_reply("acknowledge")),
            }
        }
        // Told in one go, when all else is done: the first of them wakes up the consumer, which then finds the others too.
        let mut confirmers: Vec<_> = batch.into_iter().map(Settlement::end).collect();
        for (chunk, acknowledged) in confirmers.chunks_mut(size).zip(taken) {
            let all = usize::try_from(acknowledged).is_ok_and(|acknowledged| acknowledged == chunk.len());
            for confirmer in chunk.iter_mut().filter_map(Option::take) {
                confirmer.confirm(if all { Ok(()) } else { Err(lost()) });
            }
        }
        Ok(())
    }

    /// Sorts out deliveries that another member took over while this process did not renew them: an acknowledgement would be
    /// taken for that member's.
    async fn verify(&mut self, batch: Vec<Settlement>) -> Result<Vec<Settlement>> {
        let now = Instant::now();
        let is_old = |settlement: &Settlement| now.duration_since(settlement.since()) >= self.claim_idle;
        if !batch.iter().any(is_old) {
            return Ok(batch);
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
