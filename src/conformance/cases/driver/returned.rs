//! Messages that go back to the group: without an attempt, in order, and to whoever has room.

use super::{Member, check_untried, payload, payloads, settle};
use crate::conformance::case_context::{CaseContext, numbers};
use crate::conformance::failure::{Checked, check, check_eq};
use crate::driver::Disposition;
use crate::driver::capability::Order;

crate::conformance::case::cases! { Driver:
    gives_back_in_place_and_uncounted [AtLeastOnce, NativeRetry]
        "What is given back comes again, with the same attempt, and before newer messages if places are kept.";
    counts_no_attempt_for_what_was_fetched_ahead [AtLeastOnce, Groups]
        "Messages that a source fetched and never handed out keep their attempt when it is dropped or closed.";
    brings_back_the_oldest_first [AtLeastOnce, Groups]
        "What a closed member had is redelivered in the order of publishing, before newer messages.";
    hands_to_others_what_a_full_member_cannot_take [AtLeastOnce, Groups, SharedQueue]
        "While one member has as many unsettled messages as it may, another one gets the rest.";
    gives_back_what_it_fetched_when_stopped [AtLeastOnce, Groups]
        "A stopped source gives what it has not handed out to other members at once; what is out still settles.";
}

async fn gives_back_in_place_and_uncounted(case: &CaseContext) -> Checked {
    const OUT: usize = 3;
    let mut member = Member::connect(case, &case.group("g").prefetch(OUT)).await?;
    member.publish(numbers(2 * OUT)).await?;
    let taken = member.take(OUT).await?;
    check_eq!(payloads(&taken), numbers(OUT), "the first messages");
    let counted: Vec<Option<u32>> = taken.iter().map(|inbound| inbound.deliveries).collect();
    for inbound in taken.into_iter().rev() {
        settle(inbound.handle, Disposition::GiveBack, member.patience).await??;
    }
    if !case.capabilities.keeps_places {
        let seen = member.drain(&numbers(2 * OUT), "what was given back comes again").await?;
        return check_untried(&seen, "giving back counts no attempt");
    }
    let mut again = member.take(OUT).await?;
    again.sort_by_key(payload);
    check_eq!(payloads(&again), numbers(OUT), "what was given back comes again before newer messages");
    for (inbound, counted) in again.into_iter().zip(counted) {
        check_eq!(inbound.attempt, 1, "giving back counts no attempt: that of message {}", payload(&inbound));
        check!(inbound.deliveries >= counted, "hand-outs are not uncounted: {:?}", inbound.deliveries);
        settle(inbound.handle, Disposition::Ack, member.patience).await??;
    }
    let rest = member.drain(&numbers(2 * OUT).split_off(OUT), "the newer messages follow").await?;
    check_untried(&rest, "the newer messages")
}

async fn counts_no_attempt_for_what_was_fetched_ahead(case: &CaseContext) -> Checked {
    const COUNT: usize = 30;
    const HANDLED: usize = 5;
    let subscription = case.group("g").prefetch(COUNT);
    let promise = "what was fetched ahead is redelivered";
    // On an open connection, which stays open when its source is dropped.
    let mut dropped = Member::connect(case, &subscription).await?;
    dropped.publish(numbers(COUNT)).await?;
    dropped.drain(&numbers(HANDLED), promise).await?;
    drop(dropped.source);
    let mut closed = Member::connect(case, &subscription).await?;
    let taken = closed.take(HANDLED).await.map_err(|failure| failure.during(promise))?;
    let mut rest = numbers(COUNT).split_off(HANDLED);
    for inbound in taken {
        check_untried(&[(payload(&inbound), inbound.attempt)], "after the source was dropped")?;
        rest.retain(|number| *number != payload(&inbound));
        settle(inbound.handle, Disposition::Ack, closed.patience).await??;
    }
    closed.driver.close().await?;
    drop(closed.source);
    let mut last = Member::connect(case, &subscription).await?;
    let seen = last.drain(&rest, promise).await?;
    check_untried(&seen, "after the connection was closed")?;
    last.gets_nothing("what was acknowledged is not redelivered").await
}

async fn brings_back_the_oldest_first(case: &CaseContext) -> Checked {
    const OUT: usize = 10;
    let mut member = Member::connect(case, &case.group("g").prefetch(OUT)).await?;
    member.publish(numbers(2 * OUT)).await?;
    let taken = member.take(OUT).await?;
    check_eq!(payloads(&taken), numbers(OUT), "the first messages");
    member.driver.close().await?;
    drop((taken, member));
    let mut other = Member::connect(case, &case.group("g").prefetch(2 * OUT)).await?;
    let seen = other.take(2 * OUT).await?;
    check_eq!(payloads(&seen), numbers(2 * OUT), "what a closed member had comes first, oldest first");
    for inbound in seen {
        settle(inbound.handle, Disposition::Ack, other.patience).await??;
    }
    Ok(())
}

async fn hands_to_others_what_a_full_member_cannot_take(case: &CaseContext) -> Checked {
    const ROOM: usize = 5;
    let mut full = Member::connect(case, &case.group("g").prefetch(ROOM)).await?;
    full.publish(numbers(ROOM)).await?;
    let held = full.take(ROOM).await?;
    let mut other = Member::connect(case, &case.group("g").prefetch(ROOM)).await?;
    let rest = &numbers(3 * ROOM)[ROOM..];
    full.publish(rest.iter().map(String::as_str)).await?;
    let promise = "a member with room gets what a full one cannot take";
    let seen = other.drain(rest, promise).await?;
    check_untried(&seen, promise)?;
    full.gets_nothing("a full member gets no more").await?;
    for inbound in held {
        settle(inbound.handle, Disposition::Ack, full.patience).await??;
    }
    Ok(())
}

async fn gives_back_what_it_fetched_when_stopped(case: &CaseContext) -> Checked {
    const COUNT: usize = 10;
    const OUT: usize = 2;
    let mut stopped = Member::connect(case, &case.group("g").prefetch(COUNT)).await?;
    stopped.publish(numbers(COUNT)).await?;
    let taken = stopped.take(OUT).await?;
    stopped.source.stop();
    stopped.source.stop();
    let rest = &numbers(COUNT)[OUT..];
    let promise = "a stopped source gives back what it has not handed out, at once";
    // A partition belongs to one member at a time, as long as messages of it are out.
    let shared = case.capabilities.order != Order::Partition;
    let mut before = None;
    if shared {
        let other = Member::connect(case, &case.group("g").prefetch(2 * COUNT)).await?;
        // Less than it takes a broker to notice that a member is silent.
        let mut other = other.waiting(case.harness.patience() / 4);
        check_untried(&other.drain(rest, promise).await?, promise)?;
        before = Some(other);
    }
    for inbound in taken {
        let payload = payload(&inbound);
        let settled = settle(inbound.handle, Disposition::Ack, stopped.patience).await?;
        check!(settled.is_ok(), "what is out can be settled after a stop: message {payload}: {settled:?}");
    }
    drop(stopped.source);
    let mut other = match before {
        Some(other) => other,
        None => {
            let mut other = Member::connect(case, &case.group("g").prefetch(2 * COUNT)).await?;
            check_untried(&other.drain(rest, promise).await?, promise)?;
            other
        }
    };
    other.gets_nothing("what was acknowledged after the stop is not redelivered").await
}
