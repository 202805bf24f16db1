//! Moving a group that has members.

use super::{Member, payload, settle};
use crate::conformance::case_context::{CaseContext, numbers};
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::driver::{Disposition, Inbound};
use crate::error::ErrorKind;
use crate::message::Start;

crate::conformance::case::cases! { Driver:
    forgets_what_it_fetched_when_the_group_is_moved [AtLeastOnce, Groups, Reposition]
        "After a move, a source of the same driver hands out nothing that it fetched before; or the move is refused and changes nothing.";
    ends_tenures_when_the_group_is_moved [AtLeastOnce, Groups, Reposition]
        "A handle from before a move that settles nothing any more says so, and its tenure is over.";
}

const COUNT: usize = 12;
const OUT: usize = 2;

/// Moves a group to the latest while a member has messages out, and others fetched. Returns `None`
/// if the broker refuses to move a group with members, which then goes on as before.
async fn move_with_members(case: &CaseContext) -> Checked<Option<(Member, Vec<Inbound>)>> {
    let subscription = case.group("g").prefetch(COUNT);
    let mut member = Member::connect(case, &subscription).await?;
    member.publish(numbers(COUNT)).await?;
    let taken = member.take(OUT).await?;
    match member.driver.reposition(&subscription, Start::Latest).await {
        Ok(()) => Ok(Some((member, taken))),
        Err(error) if error.kind() == ErrorKind::Conflict => {
            member.drain(&numbers(COUNT)[OUT..], "a move that is refused changes nothing").await?;
            for inbound in taken {
                settle(inbound.handle, Disposition::Ack, member.patience).await??;
            }
            Ok(None)
        }
        Err(error) => Err(Failure::from(error).during("moving a group with members")),
    }
}

async fn forgets_what_it_fetched_when_the_group_is_moved(case: &CaseContext) -> Checked {
    let Some((mut member, taken)) = move_with_members(case).await? else { return Ok(()) };
    member.publish(["after"]).await?;
    let next = member.next().await?;
    check_eq!(payload(&next), "after", "the first message after a move to the latest");
    settle(next.handle, Disposition::Ack, member.patience).await??;
    drop(taken);
    Ok(())
}

async fn ends_tenures_when_the_group_is_moved(case: &CaseContext) -> Checked {
    let Some((mut member, taken)) = move_with_members(case).await? else { return Ok(()) };
    // Once a message from the new place is here, the source knows of the move.
    member.publish(["after"]).await?;
    while payload(&member.next().await?) != "after" {}
    for inbound in taken {
        let (over, payload) = (inbound.tenure.is_over(), payload(&inbound));
        match settle(inbound.handle, Disposition::Ack, member.patience).await? {
            Ok(()) => check!(!over, "settling {payload} after its tenure fails: it succeeded"),
            Err(error) => {
                check_eq!(error.kind(), ErrorKind::SettlementLost, "the kind of {error}");
                check!(over, "a delivery that cannot be settled has a tenure that is over: that of {payload} goes on");
            }
        }
    }
    Ok(())
}
