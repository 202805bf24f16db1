//! The connection: dialling, its state, requests and their replies.

pub(crate) mod api;
pub(crate) mod background;
pub(crate) mod capabilities;
pub(crate) mod credentials;
pub(crate) mod dial;
pub(crate) mod elections;
pub(crate) mod health;
pub(crate) mod info;
pub(crate) mod link;
pub(crate) mod replies;
