//! Which of the services a process runs.

use clap::ValueEnum;

/// A part of the system that can be a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// The order API
    Api,
    /// The fulfillment worker
    Worker,
    /// The notification service
    Notify,
    /// The dead-letter desk and the daily reconciliation
    Reconcile,
}

/// The roles of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Roles(Vec<Role>);

impl Roles {
    /// These, or all where none are named.
    pub(crate) fn new(named: &[Role]) -> Self {
        Self(if named.is_empty() { Role::value_variants().to_vec() } else { named.to_vec() })
    }

    pub(crate) fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Whether this process is the whole system, so that it knows when an order is at its end.
    pub(crate) fn are_all(&self) -> bool {
        Role::value_variants().iter().all(|role| self.has(*role))
    }
}
