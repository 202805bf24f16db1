//! The contract of [`Driver`] and [`Source`], asked of the driver itself: the layer above settles
//! everything, gives everything back, and never asks twice, so it hides what a driver gets wrong.

mod deliveries;
mod hooks;
mod killed;
mod moves;
mod processes;
mod returned;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::conformance::case::Case;
use crate::conformance::case_context::{CaseContext, text};
use crate::conformance::failure::{Checked, Failure, check_eq};
use crate::driver::{DeliveryHandle, Disposition, Driver, DriverExt, Inbound, Outbound, Source};
use crate::error::{Error, Result};
use crate::message::{Receipt, Subscription, Topic};

/// Returns the cases of this folder that need no broker of their own.
pub(super) fn cases() -> Vec<Case> {
    [deliveries::CASES, returned::CASES, moves::CASES, hooks::CASES].concat()
}

/// Returns the cases that kill a broker or a process.
pub(super) fn killing_cases() -> Vec<Case> {
    [killed::CASES, processes::CASES].concat()
}

/// A subscription below every layer, with the topic that it reads.
struct Member {
    driver: Arc<dyn Driver>,
    topic: Topic,
    source: Source,
    /// Time to wait for a message that must come, and to watch for one that must not.
    patience: Duration,
    quiet: Duration,
}

impl Member {
    /// Subscribes to the topic of the case on this connection.
    async fn join(case: &CaseContext, driver: &Arc<dyn Driver>, subscription: &Subscription) -> Checked<Self> {
        let topic = Topic::new(&case.topic)?;
        driver.declare(&topic).await?;
        let source = driver.subscribe(subscription).await?;
        let (patience, quiet) = (case.harness.patience(), case.harness.quiet());
        Ok(Self { driver: Arc::clone(driver), topic, source, patience, quiet })
    }

    /// Subscribes on a new connection.
    async fn connect(case: &CaseContext, subscription: &Subscription) -> Checked<Self> {
        Self::join(case, &case.driver().await?, subscription).await
    }

    fn waiting(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    // Borrows mutably: a source is not `Sync`, so that a shared borrow would not be `Send`.
    async fn publish(&mut self, payloads: impl IntoIterator<Item = impl Into<String>>) -> Checked {
        for payload in payloads {
            self.publish_one(payload.into()).await?;
        }
        Ok(())
    }

    async fn publish_one(&mut self, payload: String) -> Result<Receipt> {
        let message = Outbound { key: Some("one".into()), ..Outbound::new(payload) };
        self.driver.enqueue(&self.topic, message).await
    }

    /// Publishes a message after an outage, as soon as the driver can.
    async fn publish_once_it_can(&mut self, payload: &str) -> Checked {
        for _ in 0..300 {
            match self.publish_one(payload.to_owned()).await {
                Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(100)).await,
                answer => return answer.map(drop).map_err(Failure::from),
            }
        }
        Err(Failure::new("after an outage the driver publishes again: it does not within 30 s"))
    }

    /// Returns the next message. Errors that the source reports in between are part of the failure.
    async fn next(&mut self) -> Checked<Inbound> {
        let mut trouble = String::new();
        let next = async {
            loop {
                match std::future::poll_fn(|cx| self.source.poll_next(cx)).await {
                    Some(Ok(inbound)) => return Ok(inbound),
                    Some(Err(error)) => trouble = format!(", after the source reported: {error}"),
                    None => return Err(Failure::new("the source goes on until the driver is closed: it ended")),
                }
            }
        };
        match tokio::time::timeout(self.patience, next).await {
            Ok(next) => next,
            Err(_) => Err(Failure::new(format!("no message is handed out within {:?}{trouble}", self.patience))),
        }
    }

    /// Takes messages without settling them.
    async fn take(&mut self, count: usize) -> Checked<Vec<Inbound>> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let after = format!("after {:?} of {count} messages", payloads(&taken));
            taken.push(self.next().await.map_err(|failure| failure.during(&after))?);
        }
        Ok(taken)
    }

    /// Takes and acknowledges messages until all of these payloads were seen, and returns the
    /// messages with their attempts, in order.
    async fn drain(&mut self, expected: &[String], promise: &str) -> Checked<Vec<(String, u32)>> {
        let mut missing: BTreeSet<&String> = expected.iter().collect();
        let mut seen = Vec::new();
        while !missing.is_empty() {
            let next = self.next().await;
            let inbound = next.map_err(|failure| failure.during(&format!("{promise}: missing {missing:?}")))?;
            let payload = payload(&inbound);
            missing.remove(&payload);
            seen.push((payload, inbound.attempt));
            settle(inbound.handle, Disposition::Ack, self.patience).await??;
        }
        Ok(seen)
    }

    /// Checks that no message is handed out.
    async fn gets_nothing(&mut self, promise: &str) -> Checked {
        let next = std::future::poll_fn(|cx| self.source.poll_next(cx));
        match tokio::time::timeout(self.quiet, next).await {
            Ok(Some(Ok(inbound))) => Err(Failure::new(format!(
                "{promise}: it is handed out: {:?}, attempt {}",
                payload(&inbound),
                inbound.attempt
            ))),
            Ok(None) => Err(Failure::new("the source goes on until the driver is closed: it ended")),
            Ok(Some(Err(_))) | Err(_) => Ok(()),
        }
    }
}

fn payload(inbound: &Inbound) -> String {
    inbound.payload.as_deref().map(text).unwrap_or_default()
}

fn payloads(taken: &[Inbound]) -> Vec<String> {
    taken.iter().map(payload).collect()
}

/// Settles a delivery, and returns the answer, which must come in time.
async fn settle(handle: Box<dyn DeliveryHandle>, disposition: Disposition, patience: Duration) -> Checked<Result<()>> {
    let answer = tokio::time::timeout(patience, handle.settle(disposition)).await;
    answer.map_err(|_| Failure::new(format!("settling as {disposition:?} is answered: not within {patience:?}")))
}

/// Checks that every message counts as never tried.
fn check_untried(seen: &[(String, u32)], promise: &str) -> Checked {
    let tried: Vec<&(String, u32)> = seen.iter().filter(|(_, attempt)| *attempt != 1).collect();
    check_eq!(tried, Vec::<&(String, u32)>::new(), "{promise}: the messages with another attempt than 1");
    Ok(())
}

/// Checks the error of a call that could not be carried out now, but may be later.
fn check_passing(error: &Error, call: &str) -> Checked {
    if error.is_retryable() { Ok(()) } else { Err(Failure::new(format!("{call}: an outage passes: {error:?}"))) }
}
