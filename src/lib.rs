//! placeholder
pub mod verify;
