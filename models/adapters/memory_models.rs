//! Models of the embedded broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::future::poll_fn;
use shuttle::future::{JoinHandle, block_on, spawn, yield_now};

use super::memory::Memory;
use crate::checker::Model;
use crate::driver::{BrokerUrl, Confirmation, Disposition, Driver, DriverExt as _, Inbound, Outbound, Source, Tenure};
use crate::error::ErrorKind;
use crate::message::{Receipt, Subscription, Topic};
use crate::sync::{Mutex, thread, time};

pub const MODELS: &[Model] = &[
    Model { name: "memory_share", run: share },
    Model { name: "memory_prefetch", run: prefetch },
    Model { name: "memory_close_consumer", run: close_consumer },
    Model { name: "memory_room", run: room },
    Model { name: "memory_close_publisher", run: close_publisher },
    Model { name: "memory_late", run: late },
    Model { name: "memory_late_behind_delayed", run: late_behind_delayed },
    Model { name: "memory_turns", run: turns },
];

/// Time limit of a publish that waits for room.
const LIMIT: Duration = Duration::from_secs(8);

/// Opens connections to a new broker whose topics keep so many messages.
fn connect<const N: usize>(capacity: usize) -> [Arc<Memory>; N] {
    // Outside of the model: runs do not differ by it.
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let (number, limit) = (NEXT.fetch_add(1, Ordering::Relaxed), LIMIT.as_millis());
    let url = BrokerUrl::parse(&format!("memory://{number}?capacity={capacity}&delivery_timeout={limit}")).unwrap();
    [(); N].map(|()| Arc::new(Memory::connect(&url).unwrap()))
}

fn orders() -> Topic {
    Topic::new("orders").unwrap()
}

fn publish(broker: &Memory, number: u8) -> Confirmation<Receipt> {
    broker.enqueue(&orders(), Outbound::new(vec![number]))
}

/// Publishes the messages one after another, in a task. Each has to be confirmed.
fn publish_all<const N: usize>(broker: &Arc<Memory>, numbers: [u8; N]) -> JoinHandle<()> {
    let broker = Arc::clone(broker);
    spawn(async move {
        for number in numbers {
            assert!(publish(&broker, number).await.is_ok());
        }
    })
}

async fn subscribe(broker: &Memory, prefetch: usize) -> Source {
    let subscription = Subscription::new("orders").group("workers").prefetch(prefetch);
    broker.subscribe(&subscription).await.unwrap()
}

async fn next(source: &mut Source) -> Option<Inbound> {
    poll_fn(|cx| source.poll_next(cx)).await.map(Result::unwrap)
}

fn number(delivery: &Inbound) -> u8 {
    delivery.payload.as_deref().unwrap()[0]
}

/// The deliveries in hand, and the messages that are settled.
#[derive(Debug, Default)]
struct Ledger {
    in_hand: Mutex<Vec<(u8, Tenure)>>,
    settled: Mutex<Vec<u8>>,
}

impl Ledger {
    /// Works on the messages of a source until it ends, each in a task.
    fn consume(self: &Arc<Self>, mut source: Source) -> JoinHandle<()> {
        let ledger = Arc::clone(self);
        spawn(async move {
            let mut workers = Vec::new();
            while let Some(delivery) = next(&mut source).await {
                workers.push(spawn(Arc::clone(&ledger).work(delivery)));
            }
            end(workers).await;
        })
    }

    /// Works on the messages of a source whose connection will be closed. Some are settled before,
    /// and the others are held until they are lost.
    fn consume_slowly(self: &Arc<Self>, mut source: Source) -> JoinHandle<()> {
        let ledger = Arc::clone(self);
        spawn(async move {
            let mut workers = Vec::new();
            while let Some(delivery) = next(&mut source).await {
                let ledger = Arc::clone(&ledger);
                workers.push(match number(&delivery) {
                    1 => spawn(ledger.work(delivery)),
                    _ => spawn(ledger.hold(delivery)),
                });
            }
            end(workers).await;
        })
    }

    async fn work(self: Arc<Self>, delivery: Inbound) {
        let (number, tenure) = (number(&delivery), delivery.tenure.clone());
        self.take(number, tenure.clone());
        yield_now().await;
        self.in_hand.lock().retain(|(other, _)| *other != number || tenure.is_over());
        // Every second message is given back once.
        let is_given_back = number.is_multiple_of(2) && delivery.deliveries == Some(1);
        let disposition = if is_given_back { Disposition::GiveBack } else { Disposition::Ack };
        match delivery.handle.settle(disposition).await {
            Ok(()) if is_given_back => {}
            Ok(()) => self.settle(number),
            Err(error) => assert!(error.kind() == ErrorKind::SettlementLost && tenure.is_over()),
        }
    }

    async fn hold(self: Arc<Self>, delivery: Inbound) {
        self.take(number(&delivery), delivery.tenure.clone());
        delivery.tenure.over().await;
        let late = delivery.handle.settle(Disposition::Ack).await;
        assert_eq!(late.unwrap_err().kind(), ErrorKind::SettlementLost);
    }

    fn take(&self, number: u8, tenure: Tenure) {
        let is_settled = self.settled.lock().contains(&number);
        assert!(!is_settled || tenure.is_over(), "{number} is handed out after it was settled");
        let mut in_hand = self.in_hand.lock();
        in_hand.push((number, tenure));
        let holders = in_hand.iter().filter(|(other, tenure)| *other == number && !tenure.is_over());
        assert!(holders.count() <= 1, "{number} is handed out to two");
    }

    fn settle(&self, number: u8) {
        let mut settled = self.settled.lock();
        assert!(!settled.contains(&number), "{number} is settled twice");
        settled.push(number);
    }

    /// Returns the messages that are settled, in the order of their numbers.
    fn settled(&self) -> Vec<u8> {
        let mut settled = self.settled.lock().clone();
        settled.sort_unstable();
        settled
    }
}

/// Waits until every group has settled all that is published.
async fn at_rest(broker: &Memory) {
    loop {
        let changed = broker.changed();
        if broker.unfinished().is_empty() {
            return;
        }
        changed.await;
    }
}

async fn end(tasks: impl IntoIterator<Item = JoinHandle<()>>) {
    for task in tasks {
        task.await.unwrap();
    }
}

/// Two members share the messages of two publishers, which wait for room. Each message is settled
/// once.
fn share() {
    block_on(async {
        let ([broker], ledger) = (connect(2), Arc::new(Ledger::default()));
        let consumers = [ledger.consume(subscribe(&broker, 1).await), ledger.consume(subscribe(&broker, 2).await)];
        end([publish_all(&broker, [1, 2]), publish_all(&broker, [3, 4])]).await;
        at_rest(&broker).await;
        broker.close().await.unwrap();
        end(consumers).await;
        assert_eq!(ledger.settled(), [1, 2, 3, 4]);
    });
}

/// A member whose one place is taken goes on when it is free.
fn prefetch() {
    block_on(async {
        let ([broker], ledger) = (connect(8), Arc::new(Ledger::default()));
        let consumer = ledger.consume(subscribe(&broker, 1).await);
        end([publish_all(&broker, [1, 2, 3])]).await;
        at_rest(&broker).await;
        broker.close().await.unwrap();
        end([consumer]).await;
        assert_eq!(ledger.settled(), [1, 2, 3]);
    });
}

/// The connection of one member is closed at any time. The other member gets the messages, and
/// what the first one has in hand is lost to it.
fn close_consumer() {
    block_on(async {
        let ([broker, leaving], ledger) = (connect(2), Arc::new(Ledger::default()));
        let consumers =
            [ledger.consume_slowly(subscribe(&leaving, 2).await), ledger.consume(subscribe(&broker, 1).await)];
        let closing = spawn(async move { leaving.close().await.unwrap() });
        end([publish_all(&broker, [1, 2, 3]), closing]).await;
        at_rest(&broker).await;
        broker.close().await.unwrap();
        end(consumers).await;
        assert_eq!(ledger.settled(), [1, 2, 3]);
    });
}

/// Publishes that wait for room are stored in their order as soon as a message is settled.
fn room() {
    block_on(async {
        let [broker] = connect(1);
        let mut source = subscribe(&broker, 1).await;
        let publishers = [publish_all(&broker, [1, 2]), publish_all(&broker, [3])];
        let mut seen = Vec::new();
        for _ in 0..3 {
            let delivery = next(&mut source).await.unwrap();
            seen.push(number(&delivery));
            delivery.handle.settle(Disposition::Ack).await.unwrap();
        }
        end(publishers).await;
        seen.retain(|number| *number != 3);
        assert_eq!(seen, [1, 2]);
    });
}

/// Closing a connection refuses its publishes that wait for room, also one that begins at that
/// moment, and no publish of another connection.
fn close_publisher() {
    block_on(async {
        let [broker, leaving] = connect(1);
        let mut source = subscribe(&broker, 1).await;
        publish(&broker, 1).await.unwrap();
        let other = publish_all(&broker, [2]);
        let refused = spawn({
            let leaving = Arc::clone(&leaving);
            async move { publish(&leaving, 3).await }
        });
        let closing = spawn(async move { leaving.close().await.unwrap() });
        assert_eq!(refused.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
        let first = next(&mut source).await.unwrap();
        first.handle.settle(Disposition::Ack).await.unwrap();
        end([closing, other]).await;
        assert_eq!(number(&next(&mut source).await.unwrap()), 2);
    });
}

/// A publish that waits for room ends in time, also if it begins when the last one before it gets
/// its room.
fn late() {
    block_on(async {
        let [broker] = connect(1);
        let mut source = subscribe(&broker, 1).await;
        publish(&broker, 1).await.unwrap();
        let waiting = [2, 3].map(|number| {
            let broker = Arc::clone(&broker);
            spawn(async move { publish(&broker, number).await })
        });
        next(&mut source).await.unwrap().handle.settle(Disposition::Ack).await.unwrap();
        let _held = next(&mut source).await.unwrap();
        waiting.iter().for_each(pass_time_until);
        let mut late = 0;
        for task in waiting {
            late += usize::from(task.await.unwrap().is_err_and(|error| error.kind() == ErrorKind::Busy));
        }
        assert_eq!(late, 1);
    });
}

/// A publish that waits for room ends in time, also behind a delayed message, whose time makes no
/// room while a group has not settled it.
fn late_behind_delayed() {
    block_on(async {
        let [broker] = connect(1);
        let mut source = subscribe(&broker, 1).await;
        let soon = Outbound { deliver_at: Some(SystemTime::now() + LIMIT / 2), ..Outbound::new(vec![1]) };
        broker.enqueue(&orders(), soon).await.unwrap();
        let waiting = [2, 3].map(|number| {
            let broker = Arc::clone(&broker);
            spawn(async move { publish(&broker, number).await })
        });
        let consumer = spawn(async move {
            let delivery = next(&mut source).await.unwrap();
            assert_eq!(number(&delivery), 1);
            (source, delivery)
        });
        for task in &waiting {
            pass_time_until(task);
        }
        for task in waiting {
            assert_eq!(task.await.unwrap().unwrap_err().kind(), ErrorKind::Busy);
        }
        let (_, delivery) = consumer.await.unwrap();
        delivery.handle.settle(Disposition::Ack).await.unwrap();
        assert!(broker.unfinished().is_empty());
    });
}

/// Moves the clock until the task has ended.
fn pass_time_until<T>(task: &JoinHandle<T>) {
    while !task.is_finished() {
        time::advance(LIMIT / 8);
        thread::yield_now();
    }
}

/// Two members have a place each. Both get a message while the other one holds its own, although
/// one is polled when it was not woken.
fn turns() {
    block_on(async {
        let [broker] = connect(8);
        let members = [true, false].map(|is_restless| {
            let broker = Arc::clone(&broker);
            spawn(async move {
                let mut source = subscribe(&broker, 1).await;
                let mut polls = if is_restless { 3 } else { 0 };
                let delivery = poll_fn(|cx| {
                    let next = source.poll_next(cx);
                    if next.is_pending() && polls > 0 {
                        polls -= 1;
                        cx.waker().wake_by_ref();
                    }
                    next
                });
                let delivery = delivery.await.unwrap().unwrap();
                (source, delivery)
            })
        });
        end([publish_all(&broker, [1, 2])]).await;
        let mut held = Vec::new();
        for member in members {
            held.push(member.await.unwrap());
        }
    });
}
