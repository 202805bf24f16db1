//! Headers and properties of a message: read, written, and copied for a retry.

pub(crate) mod copy;
pub(crate) mod incoming;
pub(crate) mod outgoing;
pub(crate) mod typed;
