//! Another process on the same broker, which is killed without a word.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::restart::killable;
use super::{Member, settle};
use crate::conformance::case_context::{CaseContext, numbers};
use crate::conformance::failure::{Checked, check, check_eq};
use crate::conformance::process::{Process, Task, words};
use crate::conformance::requirement::Need;
use crate::driver::Disposition;
use crate::driver::capability::Order;

crate::conformance::case::cases! { Driver:
    survives_a_process_that_is_killed_at_work [Durable, AtLeastOnce, Groups]
        "A process is killed while it publishes and settles: no confirmed message is missing, none that it settled comes again.";
    hands_the_work_of_a_killed_process_to_a_member_that_waits [Durable, AtLeastOnce, Groups]
        "A process is killed with messages in hand: a member that waits elsewhere gets them, without another event.";
}

/// The numbers of printed lines after which the process is killed.
const KILLED_AFTER: [usize; 3] = [5, 300, 2_000];
/// Maximum time until the broker notices that a process is gone.
const STUCK: Duration = Duration::from_secs(60);

async fn survives_a_process_that_is_killed_at_work(case: &CaseContext) -> Checked {
    for (round, lines) in KILLED_AFTER.into_iter().enumerate() {
        let killable = killable(case).await?;
        let Some(command) = killable.other_process() else { return case.lacks(Need::OtherProcess) };
        // The group exists before the first message, for brokers that keep no backlog.
        let founder = killable.connect().await?;
        drop(Member::join(case, &founder, &case.group("g")).await?);
        founder.close().await?;
        drop(founder);
        tokio::time::sleep(killable.settling_time()).await;
        let mut process = Process::start(case, command, "g", Task::Work)?;
        process.read(lines, STUCK).await.map_err(|failure| failure.during(&format!("round {round}")))?;
        let said = process.kill().await?;
        let (published, settling) = (words(&said, "published"), words(&said, "settling"));
        let settled = certainly_settled(case, &said);
        check!(!published.is_empty(), "the process publishes: it said {said:?}");

        let driver = killable.connect().await?;
        let mut member = Member::join(case, &driver, &case.group("g").prefetch(500)).await?.waiting(STUCK);
        // It may have settled one more than it could say.
        let expected: Vec<String> = published.difference(&settling).cloned().collect();
        let mut seen = member.drain(&expected, "confirmed messages are not lost with the process").await?;
        member.patience = 3 * case.harness.quiet();
        while let Ok(inbound) = member.next().await {
            seen.push((super::payload(&inbound), inbound.attempt));
            settle(inbound.handle, Disposition::Ack, STUCK).await??;
        }
        let wrong: Vec<&(String, u32)> = seen.iter().filter(|(payload, _)| settled.contains(payload)).collect();
        check_eq!(wrong, Vec::<&(String, u32)>::new(), "the messages that were settled, and come again");
        driver.close().await?;
    }
    Ok(())
}

/// Returns the messages whose settlement was confirmed. A log keeps one position, so that all
/// behind its oldest unsettled message comes again.
fn certainly_settled(case: &CaseContext, said: &[String]) -> BTreeSet<String> {
    let settled = words(said, "settled");
    if !case.capabilities.confirms_settlements {
        return BTreeSet::new();
    }
    if case.capabilities.order != Order::Partition {
        return settled;
    }
    let number = |text: &String| text.parse::<u64>().unwrap_or(u64::MAX);
    let oldest = words(said, "got").iter().filter(|got| !settled.contains(*got)).map(number).min();
    settled.into_iter().filter(|text| oldest.is_none_or(|oldest| number(text) < oldest)).collect()
}

async fn hands_the_work_of_a_killed_process_to_a_member_that_waits(case: &CaseContext) -> Checked {
    const COUNT: usize = 10;
    let killable = killable(case).await?;
    let Some(command) = killable.other_process() else { return case.lacks(Need::OtherProcess) };
    let driver = killable.connect().await?;
    let founder = Member::join(case, &driver, &case.group("g")).await?;
    drop(founder.source);
    let mut process = Process::start(case, command, "g", Task::Hold)?;
    let greeting = process.read(1, STUCK).await?;
    if greeting.iter().any(|line| line == "refused Conflict") {
        // One process at a time can use this broker, and it says so.
        return Ok(driver.close().await?);
    }
    check_eq!(greeting, ["joined"], "what the process says first");
    let mut member = Member::join(case, &driver, &case.group("g").prefetch(2 * COUNT)).await?.waiting(STUCK);
    drop(std::mem::replace(&mut member.source, empty()));
    member.publish(numbers(COUNT)).await?;
    process.read(COUNT, STUCK).await?;
    member.source = driver.subscribe(&case.group("g").prefetch(2 * COUNT)).await?;
    process.kill().await?;
    let promise = "what a killed process had is handed to a member that waits";
    let seen = member.drain(&numbers(COUNT), promise).await?;
    super::check_untried(&seen, "no kill counts as an attempt")?;
    Ok(driver.close().await?)
}

/// Returns a source that hands out nothing.
fn empty() -> crate::driver::Source {
    crate::driver::Source::new(crate::driver::Destination::new(), futures_util::stream::pending())
}
