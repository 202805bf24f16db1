//! The kafka adapter.
