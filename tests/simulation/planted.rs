//! Defects of drivers, planted to see that the simulation finds them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use async_trait::async_trait;
use futures_util::stream::poll_fn;
use parking_lot::Mutex;
use traced_broker::driver::{
    AttributeValue, Confirmation, Confirmer, DeliveryHandle, Destination, Disposition, Driver, Identity, Inbound,
    Outbound, Source,
};
use traced_broker::names::header;
use traced_broker::testing::simulation::Simulation;
use traced_broker::{Capabilities, Receipt, Result, Start, Subscription, Topic};

use crate::orders::orders;

/// A connected driver.
pub(crate) type Connected = Arc<dyn Driver>;

/// A change of every driver of a scenario.
pub(crate) type Wrap = fn(Connected) -> Connected;

/// Number of seeds within which a defect has to be found.
const SEEDS: u64 = 1_000;

/// A way in which a driver can be wrong. It shows at one of a few messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    /// Answers an acknowledgement and does not send it.
    LosesAcks,
    /// Acknowledges what it hands out, before it is handled.
    CommitsEarly,
    HandsOutTwice,
    /// Writes the trace context of the message before.
    MixesContexts,
    /// Never answers a settlement.
    KeepsSpansOpen,
}

/// Number of messages of which one meets the defect.
const ONE_IN: usize = 5;

/// A driver with a defect.
struct Planted {
    inner: Connected,
    defect: Defect,
    published: AtomicUsize,
    context: Mutex<Option<String>>,
}

fn planted(inner: Connected, defect: Defect) -> Connected {
    Arc::new(Planted { inner, defect, published: AtomicUsize::new(0), context: Mutex::default() })
}

#[async_trait]
impl Driver for Planted {
    fn identity(&self) -> &Identity {
        self.inner.identity()
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        self.inner.declare(topic).await
    }

    fn publish(&self, topic: &Topic, mut message: Outbound, confirmer: Confirmer<Receipt>) {
        let number = self.published.fetch_add(1, Ordering::Relaxed);
        let own = message.headers.get_str(header::TRACEPARENT).map(str::to_owned);
        let before = std::mem::replace(&mut *self.context.lock(), own);
        if let (Defect::MixesContexts, true, Some(before)) = (self.defect, number % ONE_IN == ONE_IN - 1, before) {
            message.headers.remove(header::TRACEPARENT);
            message.headers.append(header::TRACEPARENT, before);
        }
        self.inner.publish(topic, message, confirmer);
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        let mut source = self.inner.subscribe(subscription).await?;
        let (defect, destination, mut number, mut again) = (self.defect, source.destination.clone(), 0, None);
        let stream = poll_fn(move |cx| {
            if let Some(inbound) = again.take() {
                return Poll::Ready(Some(Ok(inbound)));
            }
            let item = std::task::ready!(source.poll_next(cx));
            Poll::Ready(item.map(|item| {
                item.map(|inbound| {
                    number += 1;
                    if number % ONE_IN != 0 {
                        return inbound;
                    }
                    let (inbound, doubled) = defect.meet(inbound);
                    again = doubled;
                    inbound
                })
            }))
        });
        Ok(Source::new(destination, stream))
    }

    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()> {
        self.inner.reposition(subscription, start).await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

impl Defect {
    /// Returns the message with the defect, and once more.
    fn meet(self, mut inbound: Inbound) -> (Inbound, Option<Inbound>) {
        match self {
            Self::LosesAcks | Self::KeepsSpansOpen => {
                inbound.handle = Box::new(Wrong { defect: self, inner: Some(inbound.handle) });
                (inbound, None)
            }
            Self::CommitsEarly => {
                let wrong = Box::new(Wrong { defect: self, inner: None });
                drop(std::mem::replace(&mut inbound.handle, wrong).settle(Disposition::Ack));
                (inbound, None)
            }
            Self::HandsOutTwice => {
                let twice = Inbound {
                    payload: inbound.payload.clone(),
                    key: inbound.key.clone(),
                    id: inbound.id.clone(),
                    headers: inbound.headers.clone(),
                    native: None,
                    tenure: inbound.tenure.clone(),
                    handle: Box::new(Wrong { defect: self, inner: None }),
                    ..inbound
                };
                (inbound, Some(twice))
            }
            Self::MixesContexts => (inbound, None),
        }
    }
}

/// A handle with a defect; without another below, it settles nothing and says that it did.
#[derive(Debug)]
struct Wrong {
    defect: Defect,
    inner: Option<Box<dyn DeliveryHandle>>,
}

/// Settlements that are never answered.
static UNANSWERED: Mutex<Vec<Confirmer<()>>> = Mutex::new(Vec::new());

impl DeliveryHandle for Wrong {
    fn settle(self: Box<Self>, disposition: Disposition) -> Confirmation<()> {
        match (self.defect, self.inner) {
            (Defect::KeepsSpansOpen, Some(inner)) => {
                drop(inner.settle(disposition));
                let (confirmer, never) = Confirmation::pending();
                UNANSWERED.lock().push(confirmer);
                never
            }
            (Defect::LosesAcks, Some(inner)) if disposition != Disposition::Ack => inner.settle(disposition),
            _ => Confirmation::ready(Ok(())),
        }
    }

    fn attributes(&self, _: &mut dyn FnMut(&'static str, AttributeValue)) {}
}

impl fmt::Debug for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Planted").field("defect", &self.defect).finish_non_exhaustive()
    }
}

/// Asserts that the defect is found, and called by its name.
#[track_caller]
fn is_found(wrap: Wrap, names: &[&str]) {
    let failure = Simulation::new().seeds(0..SEEDS).first_failure(|world| orders(world, wrap));
    let failure = failure.expect("the defect is found");
    let reason = failure.reason();
    assert!(names.iter().any(|name| reason.contains(name)), "found under another name: {failure}");
}

#[test]
fn a_lost_acknowledgement_is_found() {
    is_found(|driver| planted(driver, Defect::LosesAcks), &["cannot be settled", "was settled twice"]);
}

#[test]
fn an_early_commit_is_found() {
    is_found(|driver| planted(driver, Defect::CommitsEarly), &["was never handled well", "has not copied it"]);
}

#[test]
fn a_doubled_hand_out_is_found() {
    is_found(|driver| planted(driver, Defect::HandsOutTwice), &["was settled twice"]);
}

#[test]
fn the_context_of_another_is_found() {
    is_found(|driver| planted(driver, Defect::MixesContexts), &["is in trace"]);
}

#[test]
fn a_span_that_never_ends_is_found() {
    is_found(|driver| planted(driver, Defect::KeepsSpansOpen), &["never ends", "cannot be settled"]);
}
