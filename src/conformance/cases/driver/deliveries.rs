//! One delivery: its offset, its counts, its handle and its tenure.

use std::time::Duration;

use super::{Member, payload, settle};
use crate::broker::TracedBroker;
use crate::conformance::case_context::{CaseContext, numbers};
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::driver::capability::Redelivery;
use crate::driver::{Disposition, Tenure};
use crate::error::ErrorKind;
use crate::message::Message;

crate::conformance::case::cases! { Driver:
    reports_where_it_stored_the_message []
        "Offset and partition in a receipt are those with which the message is delivered.";
    counts_hand_outs [AtLeastOnce]
        "A count of deliveries begins at 1 or above, and grows with each hand-out.";
    redelivers_what_a_dropped_handle_left [AtLeastOnce]
        "Dropping a handle settles nothing: the message is redelivered, at the latest when the connection is closed.";
    retries_for_a_reader [AtLeastOnce]
        "A retry that a reader without a group asks for brings the message back, with one more attempt.";
    frees_the_place_of_what_is_set_aside [AtLeastOnce, SetsAside]
        "A delivery that is set aside takes up no place of the prefetch, once and for all, and is settled like others.";
    ends_tenures_when_closed [AtLeastOnce]
        "Closing ends the tenure of all that is out, and settling it fails afterwards.";
}

async fn reports_where_it_stored_the_message(case: &CaseContext) -> Checked {
    let mut member = Member::connect(case, &case.group("g")).await?;
    for number in 0..3 {
        let receipt = member.publish_one(number.to_string()).await?;
        let inbound = member.next().await?;
        check_eq!(payload(&inbound), number.to_string(), "the message");
        if receipt.offset.is_some() && inbound.offset.is_some() {
            check_eq!(receipt.offset, inbound.offset, "the offset in the receipt, and the delivered one");
        }
        if receipt.partition.is_some() && inbound.partition.is_some() {
            check_eq!(receipt.partition, inbound.partition, "the partition in the receipt, and the delivered one");
        }
        settle(inbound.handle, Disposition::Ack, member.patience).await??;
    }
    Ok(())
}

async fn counts_hand_outs(case: &CaseContext) -> Checked {
    let mut first = Member::connect(case, &case.group("g")).await?;
    first.publish(["x"]).await?;
    let inbound = first.next().await?;
    let before = inbound.deliveries;
    check!(before != Some(0), "this delivery is counted: {before:?}");
    first.driver.close().await?;
    drop(inbound);
    let mut second = Member::connect(case, &case.group("g")).await?;
    let inbound = second.next().await?;
    let after = inbound.deliveries;
    check_eq!(before.is_some(), after.is_some(), "deliveries are always counted, or never: {before:?}, {after:?}");
    check!(before.is_none() || after > before, "a further hand-out counts one more: {before:?}, then {after:?}");
    check_eq!(inbound.attempt, 1, "the attempt: no retry was asked for");
    settle(inbound.handle, Disposition::Ack, second.patience).await??;
    Ok(())
}

async fn redelivers_what_a_dropped_handle_left(case: &CaseContext) -> Checked {
    let mut member = Member::connect(case, &case.group("g")).await?;
    member.publish(["dropped"]).await?;
    drop(member.next().await?);
    member.driver.close().await?;
    let mut other = Member::connect(case, &case.group("g")).await?;
    other.drain(&["dropped".to_owned()], "what a dropped handle left is redelivered").await?;
    other.gets_nothing("what was acknowledged is not redelivered").await
}

async fn retries_for_a_reader(case: &CaseContext) -> Checked {
    if !matches!(case.capabilities.retry, Redelivery::Native | Redelivery::NativeDelayed) {
        return keeps_a_retry_for_a_reader(case).await;
    }
    let mut reader = Member::connect(case, &case.reader()).await?;
    reader.publish(["again"]).await?;
    let inbound = reader.next().await?;
    settle(inbound.handle, Disposition::Retry(Duration::ZERO), reader.patience).await??;
    let inbound = reader.next().await.map_err(|failure| failure.during("a reader's retry brings the message back"))?;
    check_eq!((payload(&inbound).as_str(), inbound.attempt), ("again", 2), "the message and its attempt");
    settle(inbound.handle, Disposition::Ack, reader.patience).await??;
    reader.gets_nothing("what was acknowledged is not redelivered").await
}

/// Checks the retry of a broker that gets none: the layer above holds the message.
async fn keeps_a_retry_for_a_reader(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut reader = broker.subscribe(case.reader()).await?;
    broker.publish(&case.topic, Message::new("again")).await?;
    case.next(&mut reader).await?.retry(Duration::ZERO).await?;
    let delivery = case.next(&mut reader).await?;
    check_eq!(delivery.message().attempt(), 2, "the attempt");
    Ok(delivery.ack().await?)
}

async fn frees_the_place_of_what_is_set_aside(case: &CaseContext) -> Checked {
    let mut member = Member::connect(case, &case.group("g").prefetch(4)).await?;
    member.publish(numbers(10)).await?;
    let waiting = member.take(4).await?;
    member.gets_nothing("no more than the prefetch is handed out").await?;
    let aside = waiting.iter().filter(|inbound| inbound.handle.set_aside()).count();
    check_eq!(aside, 4, "the deliveries that are set aside");
    let instead = member.take(aside).await.map_err(|failure| failure.during("what is set aside frees its place"))?;
    member.gets_nothing("those that came instead take up the prefetch").await?;
    for inbound in waiting {
        settle(inbound.handle, Disposition::Ack, member.patience).await??;
    }
    member.gets_nothing("settling what was set aside frees no other place").await?;
    for inbound in instead {
        settle(inbound.handle, Disposition::Ack, member.patience).await??;
    }
    let rest = numbers(10).split_off(4 + aside);
    member.drain(&rest, "the rest is handed out").await?;
    member.gets_nothing("what was acknowledged is not redelivered").await
}

async fn ends_tenures_when_closed(case: &CaseContext) -> Checked {
    let mut member = Member::connect(case, &case.group("g")).await?;
    member.publish(["0", "1"]).await?;
    let taken = member.take(2).await?;
    check!(!taken.iter().any(|inbound| inbound.tenure.is_over()), "the tenure of what is out goes on until then");
    let tenures: Vec<Tenure> = taken.iter().map(|inbound| inbound.tenure.clone()).collect();
    let waiting = tenures[0].clone();
    let waiting = tokio::spawn(async move { waiting.over().await });
    member.driver.close().await?;
    check!(tenures.iter().all(Tenure::is_over), "closing ends the tenure of all that is out");
    let woken = case.within("closing wakes what waits for the end of a tenure", waiting).await?;
    woken.map_err(|error| Failure::new(format!("waiting for the end of a tenure does not panic: {error}")))?;
    for inbound in taken {
        let Err(error) = settle(inbound.handle, Disposition::Ack, member.patience).await? else {
            return Err(Failure::new("settling after closing fails: it succeeded"));
        };
        check!(matches!(error.kind(), ErrorKind::SettlementLost | ErrorKind::Closed), "the kind of {error}");
    }
    Ok(())
}
