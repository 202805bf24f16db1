//! A broker that is away for a while, and loses everything that it did not store.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::super::restart::killable;
use super::{Member, check_passing, check_untried, payload, settle};
use crate::conformance::case_context::{CaseContext, numbers};
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::conformance::harness::Killable;
use crate::driver::capability::{Attempts, Redelivery};
use crate::driver::{Disposition, Driver, DriverExt as _, Inbound, Outbound};
use crate::error::{ErrorKind, PublishOutcome, Result};
use crate::message::{Subscription, Topic};

crate::conformance::case::cases! { Driver:
    settles_nothing_with_a_handle_of_an_earlier_delivery [Durable, AtLeastOnce, Groups]
        "After a kill, a handle of an earlier delivery does not settle the message that was handed out again.";
    says_that_a_settlement_was_lost [Durable, AtLeastOnce, Groups]
        "After a kill, settling an earlier delivery is SettlementLost, unless it takes effect.";
    ends_tenures_with_the_connection [Durable, AtLeastOnce, Groups]
        "After a kill, the tenure of a delivery is over at the latest when its message is handed out again.";
    keeps_attempts_over_a_kill [Durable, AtLeastOnce, Groups]
        "A broker that counts attempts counts on after a kill; no kill counts as an attempt.";
    keeps_the_delay_of_a_retry_over_a_kill [Durable, AtLeastOnce, Groups, NativeDelay]
        "A message that waits for a retry at a broker that is killed is redelivered, and no earlier than asked if the broker keeps delays.";
    continues_a_reader_after_a_kill [Durable, AtLeastOnce, ReaderResumes]
        "A reader without a group continues behind the last message that it was handed.";
    answers_while_the_broker_is_away [Durable, AtLeastOnce, Groups]
        "While the broker is away every call is answered in time, with an error that passes; no NotSent message arrives later.";
}

/// Maximum time until a call is answered while the broker is away: half a minute, and some seconds
/// on a busy machine.
const AWAY: Duration = Duration::from_secs(40);
/// Maximum time until a broker that was restarted hands out what it had.
const STUCK: Duration = Duration::from_secs(60);
/// Maximum time of closing, with or without an answer of the broker; twice what is promised.
const CLOSING: Duration = Duration::from_secs(20);
const COUNT: usize = 6;

async fn mortal(case: &CaseContext, subscription: &Subscription) -> Checked<(Arc<dyn Killable>, Member)> {
    let killable = killable(case).await?;
    let driver = killable.connect().await?;
    let member = Member::join(case, &driver, subscription).await?.waiting(STUCK);
    tokio::time::sleep(killable.settling_time()).await;
    Ok((killable, member))
}

/// A member whose messages were out when the broker was killed, and what it has now.
struct Aftermath {
    killable: Arc<dyn Killable>,
    member: Member,
    /// The deliveries from before the kill.
    old: Vec<Inbound>,
    /// The deliveries of the same messages from after it. A broker may know a delivery beyond the
    /// connection: it then does not hand out the message again while the tenure goes on.
    new: BTreeMap<String, Inbound>,
}

async fn aftermath(case: &CaseContext) -> Checked<Aftermath> {
    let (killable, mut member) = mortal(case, &case.group("g").prefetch(4 * COUNT)).await?;
    member.publish(numbers(COUNT)).await?;
    let old = member.take(COUNT).await?;
    killable.kill_and_restart().await?;
    member.publish_once_it_can("after").await?;
    let (mut new, mut goes_on) = (BTreeMap::new(), false);
    let came = |new: &BTreeMap<String, Inbound>| {
        old.iter().all(|inbound| !inbound.tenure.is_over() || new.contains_key(&payload(inbound)))
    };
    while !goes_on || !came(&new) {
        let next = member.next().await;
        let inbound = next.map_err(|failure| {
            let missing: Vec<String> = old.iter().map(payload).filter(|old| !new.contains_key(old)).collect();
            failure.during(&format!("what was out at a kill is handed out again: missing {missing:?}"))
        })?;
        if payload(&inbound) == "after" {
            goes_on = true;
            settle(inbound.handle, Disposition::Ack, STUCK).await??;
        } else {
            new.insert(payload(&inbound), inbound);
        }
    }
    Ok(Aftermath { killable, member, old, new })
}

async fn settles_nothing_with_a_handle_of_an_earlier_delivery(case: &CaseContext) -> Checked {
    let Aftermath { killable, member, old, new } = aftermath(case).await?;
    for inbound in old {
        // The other case checks the answer.
        let _ = settle(inbound.handle, Disposition::Ack, STUCK).await?;
    }
    let again: Vec<String> = new.keys().cloned().collect();
    let _ = end(&member.driver).await?;
    drop((new, member));
    let driver = killable.connect().await?;
    let mut other = Member::join(case, &driver, &case.group("g")).await?.waiting(STUCK);
    let promise = "handles of earlier deliveries settle no message that was handed out again";
    other.drain(&again, promise).await?;
    Ok(driver.close().await?)
}

async fn says_that_a_settlement_was_lost(case: &CaseContext) -> Checked {
    let Aftermath { killable, member, old, new } = aftermath(case).await?;
    let mut settled = BTreeSet::new();
    for inbound in old {
        let payload = payload(&inbound);
        match settle(inbound.handle, Disposition::Ack, STUCK).await? {
            Ok(()) => {
                check!(!new.contains_key(&payload), "message {payload} was handed out again: its settlement is lost");
                settled.insert(payload);
            }
            Err(error) => check_eq!(error.kind(), ErrorKind::SettlementLost, "the kind of {error}"),
        }
    }
    if end(&member.driver).await?.is_err() {
        // It says that settlements may not have reached the broker.
        settled.clear();
    }
    drop((new, member));
    let driver = killable.connect().await?;
    let mut other = Member::join(case, &driver, &case.group("g")).await?.waiting(STUCK);
    // The end of what is redelivered.
    other.publish(["last"]).await?;
    let seen = other.drain(&["last".to_owned()], "what is published arrives").await?;
    let wrong: Vec<&(String, u32)> = seen.iter().filter(|(payload, _)| settled.contains(payload)).collect();
    check_eq!(wrong, Vec::<&(String, u32)>::new(), "the messages whose settlement was confirmed, and that come again");
    Ok(driver.close().await?)
}

async fn ends_tenures_with_the_connection(case: &CaseContext) -> Checked {
    // The broker ends when it is dropped.
    let Aftermath { killable: _broker, member, old, new } = aftermath(case).await?;
    for inbound in &old {
        let payload = payload(inbound);
        let again = new.get(&payload);
        check!(
            again.is_none() || inbound.tenure.is_over(),
            "message {payload} was handed out again: its tenure is over"
        );
        check!(again.is_none_or(|again| !again.tenure.is_over()), "message {payload}: its new tenure goes on");
    }
    for inbound in old {
        let (over, payload) = (inbound.tenure.is_over(), payload(&inbound));
        let settled = settle(inbound.handle, Disposition::Ack, STUCK).await?;
        check!(over || settled.is_ok(), "message {payload}: while its tenure goes on, it can be settled: {settled:?}");
    }
    end(&member.driver).await.map(drop)
}

async fn keeps_attempts_over_a_kill(case: &CaseContext) -> Checked {
    let native = matches!(case.capabilities.retry, Redelivery::Native | Redelivery::NativeDelayed);
    let (killable, mut member) = mortal(case, &case.group("g").prefetch(COUNT)).await?;
    member.publish(["tried"]).await?;
    let mut tried = member.next().await?;
    for attempt in 2..=3 {
        if native {
            settle(tried.handle, Disposition::Retry(Duration::ZERO), STUCK).await??;
            tried = member.next().await?;
            check_eq!(tried.attempt, attempt, "the attempt before the kill");
        }
    }
    member.publish(numbers(COUNT - 1)).await?;
    let untouched = member.take(COUNT - 1).await?;
    killable.kill_and_restart().await?;
    member.publish_once_it_can("after").await?;
    // A broker may know deliveries beyond the connection: they end with the driver.
    let _ = end(&member.driver).await?;
    drop((tried, untouched, member));
    let driver = killable.connect().await?;
    let mut member = Member::join(case, &driver, &case.group("g").prefetch(COUNT)).await?.waiting(STUCK);
    let mut expected = numbers(COUNT - 1);
    expected.extend(["tried".to_owned(), "after".to_owned()]);
    let seen = member.drain(&expected, "what was unsettled at a kill is redelivered").await?;
    let (tried, untouched): (Vec<_>, Vec<_>) = seen.into_iter().partition(|(payload, _)| payload == "tried");
    check_untried(&untouched, "no kill counts as an attempt")?;
    let kept = if native && case.capabilities.attempts == Attempts::Broker { 3 } else { 1 };
    check_eq!(tried.first().map(|(_, attempt)| *attempt), Some(kept), "the attempt after two retries and a kill");
    Ok(member.driver.close().await?)
}

async fn keeps_the_delay_of_a_retry_over_a_kill(case: &CaseContext) -> Checked {
    let (killable, mut member) = mortal(case, &case.group("g").prefetch(COUNT)).await?;
    // A rehearsal: the message must still wait when the broker is back.
    let killed = Instant::now();
    killable.kill_and_restart().await?;
    member.publish_once_it_can("rehearsed").await?;
    member.drain(&["rehearsed".to_owned()], "messages published after a kill pass").await?;
    let delay = 2 * killed.elapsed() + killable.settling_time() + Duration::from_secs(1);
    member.publish(["later"]).await?;
    let inbound = member.next().await?;
    let asked = Instant::now();
    settle(inbound.handle, Disposition::Retry(delay), STUCK).await??;
    // The place where it waits may be new.
    tokio::time::sleep(killable.settling_time()).await;
    killable.kill_and_restart().await?;
    member.publish_once_it_can("after").await?;
    let passed = member.drain(&["after".to_owned()], "messages published after the kill pass").await?;
    let came = passed.iter().any(|(payload, _)| payload == "later");
    let promise = "a message that waited for a retry at a kill is redelivered";
    let mut member = member.waiting(delay + STUCK);
    // A settlement just before a kill may be lost, so that others may come again as well.
    if !came {
        member.drain(&["later".to_owned()], promise).await?;
    }
    let waited = asked.elapsed();
    let early = case.capabilities.keeps_delays && waited + Duration::from_millis(20) <= delay;
    check!(!early, "a retry is not redelivered before {delay:?}: after {waited:?}");
    Ok(member.driver.close().await?)
}

async fn continues_a_reader_after_a_kill(case: &CaseContext) -> Checked {
    let (killable, mut reader) = mortal(case, &case.reader().prefetch(1)).await?;
    reader.publish(numbers(3)).await?;
    reader.drain(&["0".to_owned()], "a reader gets what is published").await?;
    killable.kill_and_restart().await?;
    let promise = "a reader continues behind the last message that it was handed";
    reader.drain(&["1".to_owned(), "2".to_owned()], promise).await?;
    reader.publish_once_it_can("after").await?;
    reader.drain(&["after".to_owned()], promise).await?;
    Ok(reader.driver.close().await?)
}

async fn answers_while_the_broker_is_away(case: &CaseContext) -> Checked {
    let (killable, mut member) = mortal(case, &case.group("g")).await?;
    member.publish(["before"]).await?;
    member.drain(&["before".to_owned()], "what is published arrives").await?;
    let leaving = killable.connect().await?;
    killable.kill().await?;
    // All at once: a client may take half a minute for each answer.
    let (driver, own) = (&member.driver, &member.topic);
    let publishing = numbers(3).into_iter().map(|number| async move {
        let error = away("publishing", driver.enqueue(own, Outbound::new(number.clone()))).await?;
        Checked::Ok((error.publish_outcome() == PublishOutcome::NotSent).then_some(number))
    });
    let (topic, other) = (Topic::new(&case.topic("other"))?, case.group("other"));
    let (published, pinged, declared, subscribed) = tokio::join!(
        join_all(publishing),
        away("a ping", driver.ping()),
        away("declaring", driver.declare(&topic)),
        away("subscribing", driver.subscribe(&other)),
    );
    for answered in [pinged, declared, subscribed] {
        answered?;
    }
    let not_sent: Vec<String> = published.into_iter().filter_map(Checked::transpose).collect::<Checked<_>>()?;
    let _ = end(&leaving).await?;
    killable.restart().await?;
    member.publish_once_it_can("after").await?;
    let seen = member.drain(&["after".to_owned()], "the source goes on after an outage").await?;
    let wrong: Vec<&(String, u32)> = seen.iter().filter(|(payload, _)| not_sent.contains(payload)).collect();
    check_eq!(wrong, Vec::<&(String, u32)>::new(), "the messages that were certainly not sent, and arrived");
    member.gets_nothing("no NotSent message arrives later").await?;
    Ok(member.driver.close().await?)
}

/// Closes a driver whose broker was killed: in time, with the error that it may have.
async fn end(driver: &Arc<dyn Driver>) -> Checked<Result<()>> {
    let closed = tokio::time::timeout(CLOSING, driver.close()).await;
    closed.map_err(|_| Failure::new(format!("closing after an outage ends: not within {CLOSING:?}")))
}

/// Returns the error of a call on a broker that is away, which must come in time.
async fn away<T>(call: &str, future: impl Future<Output = Result<T>>) -> Checked<crate::error::Error> {
    // An adapter may wait for a while before it gives up, but neither forever nor for minutes.
    let answer = tokio::time::timeout(AWAY, future).await;
    match answer
        .map_err(|_| Failure::new(format!("{call} is answered while the broker is away: not within {AWAY:?}")))?
    {
        Ok(_) => Err(Failure::new(format!("{call} fails while the broker is away: it succeeded"))),
        Err(error) => {
            check_passing(&error, call)?;
            Ok(error)
        }
    }
}
