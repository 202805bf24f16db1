//! Settling deliveries: acknowledgements are gathered and sent to the broker in groups.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::connection::Live;
use super::super::error::During;
use super::super::headers::copy::Original;
use crate::driver::Tenure;
use crate::error::{Error, ErrorKind, Result};

/// Maximum time that an acknowledgement waits for others.
const GATHER: Duration = Duration::from_millis(2);

/// The unsettled deliveries of one channel. Delivery tags are valid on their own channel only, so
/// the next channel gets a new settler.
pub(crate) struct Settler {
    live: Arc<Live>,
    channel: Channel,
    prefetch: u16,
    ledger: Mutex<Ledger>,
    /// Notified when acknowledgements are to be sent.
    due: Arc<Notify>,
}

/// The tags of deliveries. Both lists hold at most as many tags as may be unsettled at the broker:
/// the prefetch, and those that were set aside.
#[derive(Debug, Default)]
struct Ledger {
    /// Deliveries that were handed out and not settled, in ascending order of tags and times.
    unsettled: VecDeque<Unsettled>,
    /// Tags whose acknowledgement has not been sent to the broker.
    acked: Vec<u64>,
    over: bool,
}

#[derive(Debug)]
struct Unsettled {
    tag: u64,
    /// The time at which the message arrived.
    since: Instant,
    /// `true` if the broker would drop the message instead of returning it to its queue.
    is_last: bool,
    /// The message, if attempts failed on it in this process that its next consumer is to know of.
    failed: Option<Box<Original>>,
    /// `true` if it takes up no place of the prefetch.
    is_aside: bool,
    tenure: Tenure,
}

impl Settler {
    pub(crate) fn start(live: Arc<Live>, channel: Channel, prefetch: u16) -> Arc<Self> {
        let due = Arc::new(Notify::new());
        let engine = Arc::clone(&live.engine);
        let settler = Self { live, channel, prefetch, ledger: Mutex::default(), due: Arc::clone(&due) };
        let settler = Arc::new(settler);
        engine.spawn(bring_in_time(Arc::downgrade(&settler), due));
        settler
    }

    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Notes that a message, which arrived at `since`, is handed out. Tags are in ascending order.
    pub(crate) fn deliver(&self, tag: u64, since: Instant, is_last: bool) -> Tenure {
        let tenure = Tenure::new();
        let mut ledger = self.ledger.lock();
        if ledger.over {
            tenure.end();
        }
        ledger.unsettled.push_back(Unsettled {
            tag,
            since,
            is_last,
            failed: None,
            is_aside: false,
            tenure: tenure.clone(),
        });
        tenure
    }

    /// Returns `true` if the channel has ended, so that its tags are no longer valid.
    pub(crate) fn is_over(&self) -> bool {
        self.ledger.lock().over || !self.channel.status().connected()
    }

    /// Returns `true` if the delivery can be settled.
    pub(crate) fn holds(&self, tag: u64) -> bool {
        !self.is_over() && self.ledger.lock().find(tag).is_some()
    }

    /// Notes that so many attempts failed on a message that stays in hand.
    pub(crate) fn note_failed(&self, tag: u64, attempts: u32, original: &Original) {
        let mut ledger = self.ledger.lock();
        let Some(unsettled) = ledger.find(tag).and_then(|index| ledger.unsettled.get_mut(index)) else { return };
        let kept = unsettled.failed.get_or_insert_with(|| Box::new(original.clone()));
        kept.failed = Some(attempts);
    }

    /// Returns the message with its count, if attempts failed on it while it stayed in hand.
    pub(crate) fn take_failed(&self, tag: u64) -> Option<Box<Original>> {
        let mut ledger = self.ledger.lock();
        ledger.find(tag).and_then(|index| ledger.unsettled.get_mut(index)?.failed.take())
    }

    /// Notes that a delivery takes up no place of the prefetch any more. Returns `false` if it can
    /// no longer be settled.
    pub(crate) fn set_aside(&self, tag: u64) -> bool {
        let mut ledger = self.ledger.lock();
        let index = if ledger.over { None } else { ledger.find(tag) };
        let unsettled = index.and_then(|index| ledger.unsettled.get_mut(index));
        unsettled.map(|unsettled| unsettled.is_aside = true).is_some()
    }

    /// Returns the number of free places of the prefetch, at least one, with so many messages that
    /// are not handed out yet.
    pub(crate) fn free_places(&self, fetched: usize) -> u16 {
        let out = self.ledger.lock().unsettled.iter().filter(|unsettled| !unsettled.is_aside).count();
        self.prefetch.saturating_sub(u16::try_from(out + fetched).unwrap_or(u16::MAX)).max(1)
    }

    /// Ends settlement: from now on it fails. If the channel still lives, because only the consumer
    /// was cancelled, it is closed, so that the broker returns what is unsettled.
    pub(crate) fn abandon(&self) {
        if !self.end() || !self.channel.status().connected() {
            return;
        }
        let channel = self.channel.clone();
        self.live.engine.spawn(async move {
            if let Err(error) = channel.close(200, "the consumer was cancelled".into()).await {
                tracing::debug!(%error, "the channel of a cancelled consumer was not closed");
            }
        });
    }

    /// Sends what is gathered and ends all tenures. Returns `false` if that was done before.
    fn end(&self) -> bool {
        let mut ledger = self.ledger.lock();
        if std::mem::replace(&mut ledger.over, true) {
            return false;
        }
        if self.channel.status().connected() {
            self.bring(&mut ledger);
        }
        for unsettled in &ledger.unsettled {
            unsettled.tenure.end();
        }
        true
    }

    pub(crate) fn ack(&self, tag: u64) -> Result<()> {
        let mut ledger = self.ledger.lock();
        self.take(&mut ledger, tag)?;
        self.gather(&mut ledger, tag);
        Ok(())
    }

    pub(crate) fn discard(&self, tag: u64) -> Result<()> {
        self.reject(tag, false)
    }

    /// Returns a message to its queue after a failed attempt. Of the two requests for it, every
    /// version of RabbitMQ counts this one.
    pub(crate) fn refuse(&self, tag: u64) -> Result<()> {
        self.reject(tag, true)
    }

    fn reject(&self, tag: u64, requeue: bool) -> Result<()> {
        self.take(&mut self.ledger.lock(), tag)?;
        let _ = self.channel.basic_reject(tag, BasicRejectOptions { requeue }).now_or_never();
        Ok(())
    }

    /// Returns a message to its queue.
    pub(crate) fn give_back(&self, tag: u64) -> Result<()> {
        self.take(&mut self.ledger.lock(), tag)?;
        self.requeue(tag);
        Ok(())
    }

    fn take(&self, ledger: &mut Ledger, tag: u64) -> Result<()> {
        if ledger.over || !self.channel.status().connected() {
            return Err(settlement_lost());
        }
        let index = ledger.find(tag).ok_or_else(settlement_lost)?;
        ledger.unsettled.remove(index);
        Ok(())
    }

    /// Returns to the queue a message that was never handed out, or is not in the ledger any more.
    /// Of the two requests for it, recent versions of RabbitMQ do not count this one as a failure.
    pub(crate) fn requeue(&self, tag: u64) {
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        let _ = self.channel.basic_nack(tag, options).now_or_never();
    }

    /// Returns the number of deliveries that have been unsettled for that long.
    pub(crate) fn held_for(&self, time: Duration) -> usize {
        self.ledger.lock().held_for(time)
    }

    /// Ends the tenures of deliveries that have been unsettled for that long, and gives them back.
    /// Those that the broker would drop stay. Returns their number, and the tags and messages of
    /// those that are to be copied instead, which can still be settled.
    pub(crate) fn give_back_held_for(&self, time: Duration) -> (usize, Vec<(u64, Original)>) {
        let mut ledger = self.ledger.lock();
        let (mut number, mut to_copy) = (0, Vec::new());
        let held = ledger.held_for(time);
        if held == 0 || ledger.over {
            return (number, to_copy);
        }
        self.bring(&mut ledger);
        let mut kept = VecDeque::new();
        for mut unsettled in ledger.unsettled.drain(..held) {
            if unsettled.is_last || unsettled.tenure.is_over() {
                kept.push_back(unsettled);
                continue;
            }
            unsettled.tenure.end();
            number += 1;
            match unsettled.failed.take() {
                Some(original) => {
                    to_copy.push((unsettled.tag, *original));
                    kept.push_back(unsettled);
                }
                None => self.requeue(unsettled.tag),
            }
        }
        for unsettled in kept.into_iter().rev() {
            ledger.unsettled.push_front(unsettled);
        }
        (number, to_copy)
    }

    /// Sends the gathered acknowledgements now. They have to be sent before messages are returned:
    /// RabbitMQ 3.10 was seen to lose acknowledgements that followed hundreds of returned messages
    /// shortly before the end of the channel.
    pub(crate) fn bring_now(&self) {
        let mut ledger = self.ledger.lock();
        if !ledger.over {
            self.bring(&mut ledger);
        }
    }

    /// Starts a consumer that has at most so many messages unsettled.
    pub(crate) async fn consume(&self, queue: &ShortString, prefetch: u16) -> Result<Consumer> {
        // Per consumer: this is the only bound of the client's own buffer.
        let bound = self.channel.basic_qos(prefetch, BasicQosOptions::default());
        self.live.request(During::Consume, bound).await?;
        let (tag, options) = (ShortString::default(), BasicConsumeOptions::default());
        let consume = self.channel.basic_consume(queue.clone(), tag, options, FieldTable::default());
        self.live.request(During::Consume, consume).await
    }

    /// Returns the maximum number of unsettled messages.
    pub(crate) fn prefetch(&self) -> u16 {
        self.prefetch
    }

    /// Cancels the consumer. Afterwards, everything that the broker had sent is with the consumer.
    pub(crate) async fn cancel(&self, consumer: &Consumer) {
        let cancelled = self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        if let Err(error) = self.live.request(During::Consume, cancelled).await {
            tracing::debug!(%error, "a RabbitMQ consumer was not cancelled");
        }
    }

    /// Sends the gathered acknowledgements, proves by a round trip that they arrived, and ends
    /// settlement.
    pub(crate) async fn finish(&self) -> Result<()> {
        if !self.end() || !self.channel.status().connected() {
            return Ok(());
        }
        // The broker handles the requests of a channel in order, so its answer to this one proves
        // that the acknowledgements arrived.
        let answer = self.channel.basic_qos(self.prefetch, BasicQosOptions::default());
        self.live.request(During::Consume, answer).await
    }

    fn gather(&self, ledger: &mut Ledger, tag: u64) {
        ledger.acked.push(tag);
        let enough = usize::from(self.prefetch / 2).max(1);
        if ledger.acked.len() >= enough {
            self.bring_run(ledger);
            if ledger.acked.len() >= enough {
                self.bring(ledger);
            }
        }
        if ledger.acked.len() == 1 {
            self.due.notify_one();
        }
    }

    /// Acknowledges everything before the oldest unsettled message in one frame.
    fn bring_run(&self, ledger: &mut Ledger) {
        ledger.acked.sort_unstable();
        let oldest = ledger.unsettled.front().map_or(u64::MAX, |unsettled| unsettled.tag);
        let run = ledger.acked.partition_point(|tag| *tag < oldest);
        if let Some(last) = ledger.acked.drain(..run).next_back() {
            self.send_ack(last, true);
        }
    }

    fn bring(&self, ledger: &mut Ledger) {
        self.bring_run(ledger);
        for tag in ledger.acked.drain(..) {
            self.send_ack(tag, false);
        }
    }

    // The client's futures enqueue their frame when they are first polled. Their results are not
    // awaited: if the channel ends before the frame is sent, the broker redelivers the message.

    fn send_ack(&self, tag: u64, multiple: bool) {
        let _ = self.channel.basic_ack(tag, BasicAckOptions { multiple }).now_or_never();
    }
}

impl Ledger {
    fn find(&self, tag: u64) -> Option<usize> {
        self.unsettled.binary_search_by_key(&tag, |unsettled| unsettled.tag).ok()
    }

    fn held_for(&self, time: Duration) -> usize {
        let now = Instant::now();
        self.unsettled.partition_point(|unsettled| now.duration_since(unsettled.since) >= time)
    }
}

impl Drop for Settler {
    fn drop(&mut self) {
        let mut ledger = std::mem::take(self.ledger.get_mut());
        if !ledger.over {
            self.bring(&mut ledger);
        }
        self.due.notify_one();
    }
}

impl fmt::Debug for Settler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settler").field("channel", &self.channel.id()).field("ledger", &self.ledger).finish()
    }
}

async fn bring_in_time(settler: Weak<Settler>, due: Arc<Notify>) {
    loop {
        due.notified().await;
        tokio::time::sleep(GATHER).await;
        let Some(settler) = settler.upgrade() else { return };
        settler.bring_now();
    }
}

pub(crate) fn settlement_lost() -> Error {
    Error::new(ErrorKind::SettlementLost, "the channel of this delivery is gone: the broker redelivers the message")
}
