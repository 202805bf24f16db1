//! Settling deliveries: acknowledgements are gathered and sent to the broker in groups.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions};
use lapin::{Channel, Consumer};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::connection::Live;
use super::super::error::During;
use crate::driver::{Disposition, Tenure};
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
    /// Ends with the channel.
    pub(crate) tenure: Tenure,
}

/// The tags of deliveries. Both lists hold at most as many tags as may be unsettled at the broker.
#[derive(Debug, Default)]
struct Ledger {
    /// Tags that were handed out and not settled, in ascending order.
    unsettled: VecDeque<u64>,
    /// Tags whose acknowledgement has not been sent to the broker.
    acked: Vec<u64>,
    over: bool,
}

impl Settler {
    pub(crate) fn start(live: Arc<Live>, channel: Channel, prefetch: u16) -> Arc<Self> {
        let due = Arc::new(Notify::new());
        let settler =
            Self { live, channel, prefetch, ledger: Mutex::default(), due: Arc::clone(&due), tenure: Tenure::new() };
        let settler = Arc::new(settler);
        tokio::spawn(bring_in_time(Arc::downgrade(&settler), due));
        settler
    }

    /// Notes that a message is handed out. Tags are in ascending order.
    pub(crate) fn deliver(&self, tag: u64) {
        self.ledger.lock().unsettled.push_back(tag);
    }

    /// Returns `true` if the channel has ended, so that its tags are no longer valid.
    pub(crate) fn is_over(&self) -> bool {
        self.ledger.lock().over || !self.channel.status().connected()
    }

    /// Ends settlement: from now on it fails.
    pub(crate) fn abandon(&self) {
        self.ledger.lock().over = true;
        self.tenure.end();
    }

    pub(crate) fn settle(&self, tag: u64, disposition: Disposition) -> Result<()> {
        let mut ledger = self.ledger.lock();
        if ledger.over || !self.channel.status().connected() {
            return Err(settlement_lost());
        }
        let Ok(index) = ledger.unsettled.binary_search(&tag) else {
            return Err(settlement_lost());
        };
        ledger.unsettled.remove(index);
        match disposition {
            Disposition::Ack => self.gather(&mut ledger, tag),
            Disposition::GiveBack => self.give_back(tag),
            // Of the two requests that return a message, every version of RabbitMQ counts this one
            // as an attempt.
            Disposition::Retry(_) => self.reject(tag, true),
            Disposition::Discard => self.reject(tag, false),
        }
        Ok(())
    }

    /// Returns to the queue a message that was never handed out.
    pub(crate) fn give_back(&self, tag: u64) {
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        let _ = self.channel.basic_nack(tag, options).now_or_never();
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
        {
            let mut ledger = self.ledger.lock();
            if ledger.over || !self.channel.status().connected() {
                return Ok(());
            }
            self.bring(&mut ledger);
            ledger.over = true;
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
        let oldest = ledger.unsettled.front().copied().unwrap_or(u64::MAX);
        let run = ledger.acked.partition_point(|tag| *tag < oldest);
        if let Some(last) = ledger.acked.drain(..run).next_back() {
            self.ack(last, true);
        }
    }

    fn bring(&self, ledger: &mut Ledger) {
        self.bring_run(ledger);
        for tag in ledger.acked.drain(..) {
            self.ack(tag, false);
        }
    }

    // The client's futures enqueue their frame when they are first polled. Their results are not
    // awaited: if the channel ends before the frame is sent, the broker redelivers the message.

    fn ack(&self, tag: u64, multiple: bool) {
        let _ = self.channel.basic_ack(tag, BasicAckOptions { multiple }).now_or_never();
    }

    fn reject(&self, tag: u64, requeue: bool) {
        let _ = self.channel.basic_reject(tag, BasicRejectOptions { requeue }).now_or_never();
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
        settler.bring(&mut settler.ledger.lock());
    }
}

pub(crate) fn settlement_lost() -> Error {
    Error::new(ErrorKind::SettlementLost, "the channel of this delivery is gone: the broker redelivers the message")
}
