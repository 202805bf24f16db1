//! Promises that need a part of the harness: a connection that only checks, a foreign producer.

use super::{Member, payload, settle};
use crate::conformance::case_context::{CaseContext, refused};
use crate::conformance::failure::{Checked, check_eq};
use crate::conformance::requirement::Need;
use crate::driver::{Disposition, Driver, DriverExt, Outbound};
use crate::error::ErrorKind;
use crate::message::Topic;

crate::conformance::case::cases! { Driver:
    creates_nothing_when_it_only_checks []
        "With topology=check, a missing topic is NotFound and stays missing; one that is there can be used.";
    delivers_what_a_foreign_producer_wrote []
        "Messages that another client wrote, in whatever form, are all handed out, and the source goes on.";
}

async fn creates_nothing_when_it_only_checks(case: &CaseContext) -> Checked {
    let Some(checking) = case.harness.connect_to_check().await? else { return case.lacks(Need::CheckingConnection) };
    let topic = Topic::new(&case.topic)?;
    let missing = check_missing(case, &*checking, &topic).await;
    let missing = match missing {
        // Asked twice: the first call must not have created it.
        Ok(()) => check_missing(case, &*checking, &topic).await,
        failed => failed,
    };
    if missing.is_ok() {
        let mut member = Member::connect(case, &case.group("g")).await?;
        checking.declare(&topic).await?;
        checking.enqueue(&topic, Outbound::new("one")).await?;
        let inbound = member.next().await?;
        check_eq!(payload(&inbound), "one", "the message that a checking connection published");
        settle(inbound.handle, Disposition::Ack, member.patience).await??;
        drop(member.source);
        drop(checking.subscribe(&case.group("g")).await?);
    }
    checking.close().await?;
    missing
}

async fn check_missing(case: &CaseContext, checking: &dyn Driver, topic: &Topic) -> Checked {
    let error = refused("declaring a topic that is missing", checking.declare(topic).await)?;
    check_eq!(error.kind(), ErrorKind::NotFound, "the kind of {error}");
    let error = refused("subscribing to a topic that is missing", checking.subscribe(&case.group("g")).await)?;
    check_eq!(error.kind(), ErrorKind::NotFound, "the kind of {error}");
    Ok(())
}

async fn delivers_what_a_foreign_producer_wrote(case: &CaseContext) -> Checked {
    let mut member = Member::connect(case, &case.group("g")).await?;
    let count = case.harness.publish_foreign(&case.topic).await?;
    if count == 0 {
        return case.lacks(Need::ForeignProducer);
    }
    for number in 0..count {
        let during = format!("after {number} of {count} foreign messages");
        let inbound = member.next().await.map_err(|failure| failure.during(&during))?;
        settle(inbound.handle, Disposition::Ack, member.patience).await??;
    }
    member.publish(["ours"]).await?;
    let inbound = member.next().await?;
    check_eq!(payload(&inbound), "ours", "the message after the foreign ones");
    settle(inbound.handle, Disposition::Ack, member.patience).await??;
    Ok(())
}
