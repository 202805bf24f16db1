//! The messages that a subscription has taken, and the bound of their number.

#[path = "../../../adapters/kafka/consume/assignment.rs"]
pub(super) mod assignment;
#[path = "../../../adapters/kafka/consume/notes.rs"]
pub(super) mod notes;
#[path = "../../../adapters/kafka/consume/offsets.rs"]
pub(super) mod offsets;
#[path = "../../../adapters/kafka/consume/partition.rs"]
pub(super) mod partition;
#[path = "../../../adapters/kafka/consume/progress.rs"]
pub(super) mod progress;
#[path = "../../../adapters/kafka/consume/suspects.rs"]
pub(super) mod suspects;
#[path = "../../../adapters/kafka/consume/window.rs"]
pub(super) mod window;
