//! Watermill's entries of Redis Streams: fields `_watermill_message_uuid`, `metadata` and
//! `payload`.
//!
//! The metadata is a MessagePack map of strings, into which OpenTelemetry's propagators write their
//! headers. The field is empty without metadata.

use opentelemetry::Context;

use super::message_pack;
use crate::headers::Headers;

pub(super) fn read(headers: &Headers) -> Option<Context> {
    message_pack::headers(headers.get("metadata")?)?.context()
}
