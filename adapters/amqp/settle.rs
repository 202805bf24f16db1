//! Settling deliveries: acknowledgements are gathered and brought to the broker many at a time.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions};
use lapin::{Channel, Consumer};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::connection::Live;
use super::copy::Original;
use super::error::During;
use super::retry::Later;
use crate::driver::{AttributeValue, Confirmation, DeliveryHandle, Disposition};
use crate::error::{Error, ErrorKind, Result};

/// How long an acknowledgement may wait for others to be brought along with it.
const GATHER: Duration = Duration::from_millis(2);

/// What is unsettled on one channel. Delivery tags mean nothing on any other, so a settler is never carried over to the next.
pub(super) struct Settler {
    live: Arc<Live>,
    channel: Channel,
    prefetch: u16,
    ledger: Mutex<Ledger>,
    /// There are acknowledgements to bring.
    due: Arc<Notify>,
}

/// Both lists hold at most as many tags as may be unsettled at the broker.
#[derive(Debug, Default)]
struct Ledger {
    /// Tags that were handed out and not settled, in rising order.
    unsettled: VecDeque<u64>,
    /// Tags whose acknowledgement the broker has not been sent.
    acked: Vec<u64>,
    over: bool,
}

impl Settler {
    pub(super) fn start(live: Arc<Live>, channel: Channel, prefetch: u16) -> Arc<Self> {
        let due = Arc::new(Notify::new());
        let settler = Self { live, channel, prefetch, ledger: Mutex::default(), due: Arc::clone(&due) };
        let settler = Arc::new(settler);
        tokio::spawn(bring_in_time(Arc::downgrade(&settler), due));
        settler
    }

    /// A message is handed out. Tags come in rising order.
    pub(super) fn deliver(&self, tag: u64) {
        self.ledger.lock().unsettled.push_back(tag);
    }

    /// Whether the channel has ended, and with it what these tags stand for.
    pub(super) fn is_over(&self) -> bool {
        self.ledger.lock().over || !self.channel.status().connected()
    }

    /// Nothing can be settled any more.
    pub(super) fn abandon(&self) {
        self.ledger.lock().over = true;
    }

    pub(super) fn settle(&self, tag: u64, disposition: Disposition) -> Result<()> {
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
            // Of the two ways to give a message back, the one that every version counts as an attempt.
            Disposition::Retry(_) => self.reject(tag, true),
            Disposition::Discard => self.reject(tag, false),
        }
        Ok(())
    }

    /// Gives back a message that was never handed out.
    pub(super) fn give_back(&self, tag: u64) {
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        let _ = self.channel.basic_nack(tag, options).now_or_never();
    }

    /// Brings what is acknowledged to the broker now. That has to be ahead of what is given back: of acknowledgements that came
    /// after hundreds of messages were given back, and shortly before the end of the channel, RabbitMQ 3.10 was seen to lose some.
    pub(super) fn bring_now(&self) {
        let mut ledger = self.ledger.lock();
        if !ledger.over {
            self.bring(&mut ledger);
        }
    }

    /// Asks for no more messages. After it, whatever the broker had sent is with the consumer.
    pub(super) async fn cancel(&self, consumer: &Consumer) {
        let cancelled = self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        if let Err(error) = self.live.request(During::Consume, cancelled).await {
            tracing::debug!(%error, "a RabbitMQ consumer was not cancelled");
        }
    }

    /// Brings what is acknowledged to the broker, proves by a round trip that it arrived, and settles nothing more.
    pub(super) async fn finish(&self) -> Result<()> {
        {
            let mut ledger = self.ledger.lock();
            if ledger.over || !self.channel.status().connected() {
                return Ok(());
            }
            self.bring(&mut ledger);
            ledger.over = true;
        }
        // The broker handles a channel's requests in order: what answers this has seen the acknowledgements.
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

    /// Acknowledges, in one, everything before the oldest unsettled message.
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

    // The client's futures put their frame in line when they are first polled. What comes of it is not awaited: if the channel ends
    // before the frame is out, the broker delivers the message again.

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

pub(super) fn settlement_lost() -> Error {
    Error::new(ErrorKind::SettlementLost, "the channel of this delivery is gone: the broker delivers it again")
}

/// One delivery.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) settler: Arc<Settler>,
    pub(super) tag: u64,
    /// It was acknowledged when it was handed out.
    pub(super) at_most_once: bool,
    pub(super) later: Arc<Later>,
    pub(super) original: Original,
}

impl DeliveryHandle for Handle {
    fn settle(self: Box<Self>, disposition: Disposition) -> Confirmation<()> {
        let result = match (self.at_most_once, disposition) {
            (false, Disposition::Retry(delay)) if !delay.is_zero() => {
                return self.later.retry(self.settler, self.tag, delay, self.original);
            }
            (false, disposition) => self.settler.settle(self.tag, disposition),
            (true, Disposition::Retry(_)) => {
                Err(Error::new(ErrorKind::Unsupported, "an at-most-once subscription cannot retry"))
            }
            (true, _) => Ok(()),
        };
        Confirmation::ready(result)
    }

    fn attributes(&self, visit: &mut dyn FnMut(&'static str, AttributeValue)) {
        visit("messaging.rabbitmq.message.delivery_tag", self.tag.cast_signed().into());
        let routing_key = self.original.routing_key.as_str();
        if !routing_key.is_empty() {
            visit("messaging.rabbitmq.destination.routing_key", routing_key.into());
        }
    }
}
