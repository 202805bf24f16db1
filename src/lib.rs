//! placeholder
pub mod w3c;
