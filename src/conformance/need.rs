//! Checks of a broker that lacks a capability: it must say so before anything is lost.

use std::future::poll_fn;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;

use super::case_context::{CaseContext, numbers, refused};
use super::failure::{Checked, check, check_eq};
use super::requirement::Need;
use crate::broker::{Traced, TracedBroker};
use crate::driver::capability::{Capabilities, Confirm, Order, Redelivery};
use crate::driver::{Disposition, Driver};
use crate::error::{ErrorKind, PublishOutcome};
use crate::message::{Message, Start, Subscription, Topic};

impl Need {
    /// Returns `true` if a broker has the capability, and for a part of the harness, which is known
    /// only when a case asks for it.
    pub fn is_met(self, capabilities: &Capabilities) -> bool {
        match self {
            Self::AtLeastOnce => capabilities.at_least_once,
            Self::Groups => capabilities.groups,
            Self::Backlog => capabilities.backlog,
            Self::Tombstones => capabilities.tombstones,
            Self::DelayedPublish => capabilities.delayed_publish,
            Self::StartAtTime => capabilities.start_at_time,
            Self::StartAtOffset => capabilities.start_at_offset,
            Self::Reposition => capabilities.reposition,
            Self::Durable => capabilities.confirm == Confirm::Broker,
            Self::NativeRetry => matches!(capabilities.retry, Redelivery::Native | Redelivery::NativeDelayed),
            Self::NativeDelay => capabilities.retry == Redelivery::NativeDelayed,
            Self::ReaderResumes => capabilities.reader_resumes,
            Self::SharedQueue => capabilities.order != Order::Partition,
            Self::SetsAside => capabilities.sets_aside,
            Self::NotesTrials => capabilities.notes_trials,
            Self::OtherProcess
            | Self::ForeignProducer
            | Self::Deletion
            | Self::GroupDeletion
            | Self::CheckingConnection => true,
        }
    }

    /// Returns a description of what the broker cannot do.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "it forgets a message once it is handed out: there is no redelivery",
            Self::Groups => "it has no consumer groups",
            Self::Backlog => "it keeps no messages for future groups",
            Self::Tombstones => "it has no messages without a payload",
            Self::DelayedPublish => "it cannot keep a message for later",
            Self::StartAtTime => "no group or reader can begin at a time",
            Self::StartAtOffset => "no group or reader can begin at an offset",
            Self::Reposition => "groups cannot be moved: nothing is replayed",
            Self::Durable => "confirmed messages do not outlive its process",
            Self::NativeRetry => "it gets no retries: this library keeps a failed message and hands it out again",
            Self::NativeDelay => "it gets no delayed retries: this library keeps a message until it is due",
            Self::ReaderResumes => "a reader misses what is published while its connection is lost",
            Self::SharedQueue => "a partition belongs to one member of a group, however full it is",
            Self::SetsAside => "messages that wait in the process take up its prefetch",
            Self::NotesTrials => "a message that ends the process of its handler is handed out for ever",
            Self::OtherProcess => "the harness starts no other process",
            Self::ForeignProducer => "the harness has no foreign producer",
            Self::Deletion => "the harness deletes no topic",
            Self::GroupDeletion => "the harness deletes no group that is in use",
            Self::CheckingConnection => "the harness opens no connection that only checks topics",
        }
    }

    /// Checks that a broker without the capability says so as early as possible.
    pub(super) async fn check_unsupported(self, case: &CaseContext) -> Checked {
        match self {
            Self::AtLeastOnce => {
                check_subscribing(case, case.group("g"), "with a group").await?;
                let kept = Subscription::new(&case.topic);
                check_unsupported_subscription(case, kept, "at least once").await
            }
            Self::Groups => {
                let group = Subscription::new(&case.topic).group("g").at_most_once();
                check_unsupported_subscription(case, group, "with a group").await
            }
            Self::Backlog => check_new_groups_begin_at_the_latest(case).await,
            Self::Tombstones => check_unsupported_message(case, Message::tombstone()).await,
            Self::DelayedPublish => {
                check_unsupported_message(case, Message::new("later").delay(Duration::from_secs(60))).await
            }
            Self::StartAtTime => {
                let start = Start::Time(SystemTime::now() - Duration::from_secs(60));
                check_unsupported_subscription(case, case.group("g").start(start), "from a time").await?;
                check_unsupported_subscription(case, case.reader().start(start), "from a time").await
            }
            Self::StartAtOffset => {
                let start = Start::Offset(0);
                check_unsupported_subscription(case, case.group("g").start(start), "from an offset").await?;
                check_unsupported_subscription(case, case.reader().start(start), "from an offset").await
            }
            Self::Reposition => {
                let broker = case.broker().await?;
                let error = refused("moving a group", broker.reposition(&case.group("g"), Start::Earliest).await)?;
                check_eq!(error.kind(), ErrorKind::Unsupported, "the kind of {error}");
                Ok(())
            }
            Self::Durable => check_receipts(case).await,
            Self::NativeRetry | Self::NativeDelay => check_held_retry(case).await,
            Self::ReaderResumes => check_reader_goes_on(case).await,
            Self::SharedQueue => check_one_member_for_a_key(case).await,
            Self::SetsAside => check_keeps_places(case).await,
            Self::NotesTrials => check_suspects_nothing(case).await,
            Self::OtherProcess
            | Self::ForeignProducer
            | Self::Deletion
            | Self::GroupDeletion
            | Self::CheckingConnection => Ok(()),
        }
    }
}

/// Checks that a supported subscription succeeds, so that the refusal of the other has only one
/// reason.
async fn check_subscribing(case: &CaseContext, subscription: Subscription, how: &str) -> Checked {
    let broker = case.broker().await?;
    let result = broker.subscribe(subscription).await;
    result.map(drop).map_err(|error| super::Failure::from(error).during(how))
}

async fn check_unsupported_subscription(case: &CaseContext, subscription: Subscription, how: &str) -> Checked {
    let broker = case.broker().await?;
    let error = refused(&format!("subscribing {how}"), broker.subscribe(subscription).await)?;
    check_eq!(error.kind(), ErrorKind::Unsupported, "the kind of {error}");
    Ok(())
}

async fn check_unsupported_message(case: &CaseContext, message: Message) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let error = refused("the message", broker.publish(&case.topic, message).await)?;
    check_eq!(error.kind(), ErrorKind::Unsupported, "the kind of {error}");
    check_eq!(error.publish_outcome(), PublishOutcome::NotSent, "the outcome");
    case.nothing_comes(&mut deliveries).await
}

async fn check_new_groups_begin_at_the_latest(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut first = broker.subscribe(case.group("first")).await?;
    broker.publish(&case.topic, Message::new("before").key("one")).await?;
    check_eq!(case.drain(&mut first, 1).await?, ["before"], "the group that was there");
    let mut group = broker.subscribe(case.group("new")).await?;
    broker.publish(&case.topic, Message::new("after").key("one")).await?;
    check_eq!(case.drain(&mut group, 1).await?, ["after"], "the new group");
    Ok(())
}

/// Checks that receipts match the declared `Confirm`, and that the harness starts no broker to
/// kill.
async fn check_receipts(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let receipt = broker.publish(&case.topic, Message::new("x")).await?;
    case.check_receipt(&receipt)?;
    check!(
        case.harness.start_mortal().await?.is_none(),
        "confirmed messages do not outlive it, so the harness starts no broker to kill"
    );
    Ok(())
}

/// Checks that a retry with a delay is carried out by the layer above.
async fn check_held_retry(case: &CaseContext) -> Checked {
    let delay = Duration::from_millis(300);
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("again").key("one")).await?;
    case.next(&mut deliveries).await?.retry(delay).await?;
    let delivery = case.next(&mut deliveries).await?;
    check_eq!(delivery.message().attempt(), 2, "the attempt");
    Ok(delivery.ack().await?)
}

/// Checks that a reader goes on after a kill, with what is published once it is back.
async fn check_reader_goes_on(case: &CaseContext) -> Checked {
    let Some(killable) = case.harness.start_mortal().await? else { return Ok(()) };
    let broker = Traced::new(killable.connect().await?);
    let mut reader = broker.subscribe(case.reader()).await?;
    broker.publish(&case.topic, Message::new("before")).await?;
    check_eq!(case.drain(&mut reader, 1).await?, ["before"], "the message before the kill");
    tokio::time::sleep(killable.settling_time()).await;
    killable.kill_and_restart().await?;
    // Until the reader is back, messages may pass it.
    let back = async {
        loop {
            let _ = broker.publish(&case.topic, Message::new("after")).await;
            if let Ok(Some(Ok(delivery))) = tokio::time::timeout(case.harness.quiet(), reader.next()).await {
                return delivery.ack().await;
            }
        }
    };
    let back = tokio::time::timeout(Duration::from_secs(60), back).await;
    check!(back.is_ok(), "a reader goes on after a kill: it got no message within 60 s");
    Ok(broker.close().await?)
}

/// Checks that the driver sets no delivery aside.
async fn check_keeps_places(case: &CaseContext) -> Checked {
    let driver = case.driver().await?;
    driver.declare(&Topic::new(&case.topic)?).await?;
    let mut source = driver.subscribe(&case.group("g")).await?;
    let broker = case.traced(driver);
    broker.publish(&case.topic, Message::new("x")).await?;
    let next = case.within("the message", poll_fn(|cx| source.poll_next(cx))).await?;
    let Some(Ok(inbound)) = next else { return Err(super::Failure::new("a member gets the message: an error")) };
    check!(!inbound.handle.set_aside(), "the capabilities say that a delivery can be set aside, as it can");
    Ok(inbound.handle.settle(Disposition::Ack).await?)
}

/// Checks that the driver takes no message for a suspect, however often it comes.
async fn check_suspects_nothing(case: &CaseContext) -> Checked {
    case.make_group("g").await?;
    case.broker().await?.publish(&case.topic, Message::new("x")).await?;
    for _ in 0..4 {
        let driver = case.driver().await?;
        let mut source = driver.subscribe(&case.group("g")).await?;
        let next = case.within("the message", poll_fn(|cx| source.poll_next(cx))).await?;
        let Some(Ok(inbound)) = next else { return Err(super::Failure::new("a member gets the message: an error")) };
        check_eq!(inbound.lost_trials, None, "the lost trials of a message, without notes of them");
        drop(inbound);
        driver.close().await?;
    }
    Ok(())
}

/// Checks that the messages of one key stay with one member, however full it is.
async fn check_one_member_for_a_key(case: &CaseContext) -> Checked {
    let (first, second) = (case.broker().await?, case.broker().await?);
    let mut members =
        [first.subscribe(case.group("g").prefetch(2)).await?, second.subscribe(case.group("g").prefetch(2)).await?];
    for number in numbers(6) {
        first.publish(&case.topic, Message::new(number).key("one")).await?;
    }
    let [one, other] = &mut members;
    let (got, index) = case
        .within("the first message", async {
            tokio::select! {
                delivery = one.next() => (delivery, 0),
                delivery = other.next() => (delivery, 1),
            }
        })
        .await?;
    let Some(Ok(held)) = got else { return Err(super::Failure::new("a member gets the first message: an error")) };
    case.nothing_comes(&mut members[1 - index]).await?;
    Ok(held.ack().await?)
}
