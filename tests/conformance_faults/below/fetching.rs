//! A source that fetches ahead, and continues when its broker was killed.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, stream};
use parking_lot::Mutex;
use traced_broker::driver::{DeliveryHandle, Disposition, Driver, Inbound, Source, Tenure};
use traced_broker::{Result, Start, Subscription};

use super::DriverFault;
use super::connection::Line;
use super::handle::Handle;

/// The source of one life of the broker.
pub(super) struct Life {
    pub(super) number: u64,
    pub(super) source: Source,
}

/// The messages that were fetched and not handed out.
#[derive(Default)]
pub(super) struct Fetched(Mutex<(VecDeque<Inbound>, bool)>);

impl Fetched {
    pub(super) fn stop(&self) {
        self.0.lock().1 = true;
        self.give_back(Disposition::GiveBack);
    }

    fn give_back(&self, disposition: Disposition) {
        let fetched = std::mem::take(&mut self.0.lock().0);
        for inbound in fetched {
            drop(inbound.handle.settle(disposition));
        }
    }
}

pub(super) struct Fetching {
    line: Arc<Line>,
    subscription: Subscription,
    life: Option<Life>,
    fetched: Arc<Fetched>,
    /// The number of messages that it may still take.
    room: Arc<AtomicUsize>,
    last: Option<i64>,
}

impl Fetching {
    pub(super) fn new(line: Arc<Line>, subscription: Subscription, life: Life) -> Self {
        let room = Arc::new(AtomicUsize::new(subscription.prefetch_limit()));
        let mut members = line.broker.members.lock();
        members.entry(group(&subscription)).or_default().push(Arc::downgrade(&room));
        drop(members);
        Self { line, subscription, life: Some(life), fetched: Arc::default(), room, last: None }
    }

    pub(super) fn fetched(&self) -> Arc<Fetched> {
        Arc::clone(&self.fetched)
    }

    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Inbound>> + Send {
        stream::unfold(self, |mut fetching| async move { fetching.next().await.map(|item| (item, fetching)) })
    }

    fn fault(&self) -> DriverFault {
        self.line.broker.fault
    }

    async fn next(&mut self) -> Option<Result<Inbound>> {
        loop {
            match &mut self.life {
                Some(_) => {
                    if let Some(inbound) = poll_fn(|cx| self.poll(cx)).await {
                        return Some(Ok(self.hand_out(inbound)));
                    }
                    // Kept until the next one is there, so that a reader's place is not forgotten.
                    self.fetched.0.lock().0.clear();
                }
                None => unreachable!("there is always a source"),
            }
            if !self.line.lives().await || self.line.closed.is_cancelled() {
                return None;
            }
            let (number, memory) = match self.line.current() {
                Ok(current) => current,
                Err(error) => return Some(Err(error)),
            };
            let anew = self.fault() == DriverFault::ReadersBeginAnew;
            let subscription = match self.last.filter(|_| self.subscription.group_name().is_none() && !anew) {
                Some(last) => self.subscription.clone().start(Start::Offset(last.unsigned_abs() + 1)),
                None => self.subscription.clone(),
            };
            match memory.subscribe(&subscription).await {
                Ok(source) => self.life = Some(Life { number, source }),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Fetches what there is, and takes the first message; `None` when this life is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Inbound>> {
        let waits = self.fault() == DriverFault::WaitsForAFullMember && self.waits_for_another(cx);
        let Some(life) = &mut self.life else { return Poll::Ready(None) };
        let mut fetched = self.fetched.0.lock();
        while !fetched.1 && !waits {
            match life.source.poll_next(cx) {
                Poll::Ready(Some(Ok(inbound))) => fetched.0.push_back(inbound),
                Poll::Ready(Some(Err(_))) => {}
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => break,
            }
        }
        if self.line.broker.fault != DriverFault::YieldsWhatItFetchedBeforeAMove {
            fetched.0.retain(|inbound| !inbound.tenure.is_over());
        }
        let first = match self.line.broker.fault {
            DriverFault::RedeliversTheNewestFirst => newest(&fetched.0),
            _ => 0,
        };
        fetched.0.remove(first).map_or(Poll::Pending, |inbound| Poll::Ready(Some(inbound)))
    }

    /// Returns `true` if an older member of the group is full, and looks again a moment later.
    fn waits_for_another(&self, cx: &Context<'_>) -> bool {
        let members = self.line.broker.members.lock();
        let members = members.get(&group(&self.subscription)).into_iter().flatten().filter_map(|room| room.upgrade());
        let older = members.take_while(|room| !Arc::ptr_eq(room, &self.room));
        let waits = older.into_iter().any(|room| room.load(Ordering::Relaxed) == 0);
        let waker = cx.waker().clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            waker.wake();
        });
        waits
    }

    fn hand_out(&mut self, mut inbound: Inbound) -> Inbound {
        self.last = inbound.offset;
        let fault = self.fault();
        let life = self.life.as_ref().map_or(0, |life| life.number);
        let message = (group(&self.subscription), inbound.offset.unwrap_or_default());
        let shared = Arc::new(Mutex::new(Some(std::mem::replace(&mut inbound.handle, Box::new(Handle::none())))));
        let before = self.line.broker.newest.lock().insert(message.clone(), (life, Arc::clone(&shared)));
        match fault {
            DriverFault::ForgetsAttempts if before.is_some_and(|(before, _)| before < life) => inbound.attempt = 1,
            DriverFault::CountsOneDelivery => inbound.deliveries = Some(1),
            DriverFault::TenuresNeverEnd => inbound.tenure = Tenure::new(),
            _ => {}
        }
        let handle: Box<dyn DeliveryHandle> = Box::new(Handle {
            broker: Some(Arc::clone(&self.line.broker)),
            is_reader: self.subscription.group_name().is_none(),
            life,
            message,
            shared,
            room: Arc::clone(&self.room),
            is_aside: AtomicBool::new(false),
        });
        self.room.fetch_sub(1, Ordering::Relaxed);
        inbound.handle = handle;
        inbound
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.fetched.give_back(match self.fault() {
            DriverFault::CountsWhatItFetched => Disposition::Retry(Duration::ZERO),
            _ => Disposition::GiveBack,
        });
    }
}

/// Returns the place of the newest redelivered message, or of the first message.
fn newest(fetched: &VecDeque<Inbound>) -> usize {
    let again = fetched.iter().enumerate().filter(|(_, inbound)| inbound.deliveries > Some(1));
    again.max_by_key(|(_, inbound)| inbound.offset).map_or(0, |(index, _)| index)
}

fn group(subscription: &Subscription) -> String {
    format!("{} {}", subscription.topic(), subscription.group_name().unwrap_or_default())
}
