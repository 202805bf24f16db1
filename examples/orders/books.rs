//! The ledger as it stands at the end, to be gone through.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use traced_broker::verify::TraceId;

use crate::ledger::{Account, Tally};

/// A copy of the ledger.
#[derive(Debug, Clone, Default)]
pub(crate) struct Books {
    pub(crate) tally: Tally,
    pub(crate) accounts: BTreeMap<Arc<str>, Account>,
    /// Traces that began elsewhere.
    pub(crate) callers: BTreeSet<TraceId>,
    pub(crate) troubles: Vec<String>,
}

impl Books {
    /// The accepted orders.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = (&str, &Account)> {
        self.accounts.iter().filter(|(_, account)| account.accepted).map(|(id, account)| (&**id, account))
    }

    /// The accepted orders that were neither delivered and announced nor dead-lettered, with how far they got.
    pub(crate) fn unaccounted(&self) -> Vec<String> {
        let open = self.accepted().filter(|(_, account)| !account.is_settled());
        open.map(|(id, account)| {
            let how_far = match account {
                Account { fulfilled: true, .. } => "fulfilled, but its customer never heard of it",
                Account { attempts: 0, .. } => "accepted, but never fulfilled",
                _ => "tried, but neither fulfilled nor dead-lettered",
            };
            format!("order {id}: {how_far}")
        })
        .collect()
    }
}
