//! Frames checked before the client parses them, because its parser fails on some header tables.

pub(crate) mod bytes;
pub(crate) mod content_header;
pub(crate) mod frames;
pub(crate) mod inspect;
pub(crate) mod returned;
pub(crate) mod server;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod table;
