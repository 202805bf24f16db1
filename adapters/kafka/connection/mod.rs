//! The client below: its log, and the calls that its safe interface lacks.

pub(crate) mod log;
pub(crate) mod native;
