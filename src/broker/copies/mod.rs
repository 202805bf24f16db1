//! Copies of received messages, in a form that their target carries.
//!
//! Dead letters, messages that are sent back, bridged ones, and those that an application forwards
//! all pass through [`carry`]. A copy keeps payload, key, id and headers of the original, and on a
//! broker of the same system its native form.

mod header_rules;

use crate::driver::Capabilities;
use crate::message::Message;
use crate::names::header;

pub use header_rules::RESERVED;
pub(crate) use header_rules::{HeaderCounts, cross};

/// Converts a copy of a received message to a form that the target carries, and gives it the id of
/// the original unless it has one of its own. Does nothing to other messages, and nothing the
/// second time.
pub(crate) fn carry(message: &mut Message, system: &str, capabilities: &Capabilities) {
    let Some(copied) = message.copied.as_deref_mut() else { return };
    match (&message.id, &copied.id) {
        (None, Some(id)) => message.id = Some(id.clone()),
        (Some(own), Some(id)) if own != id => copied.id = None,
        _ => {}
    }
    let is_same_system = copied.system == system;
    if let Some(id) = &message.id
        && message.headers.get_str(header::MESSAGE_ID) == Some(id)
    {
        // The target has its own place for the id.
        message.headers.remove(header::MESSAGE_ID);
    }
    if is_same_system {
        header_rules::clean(&mut message.headers, capabilities.header_values);
    } else {
        message.headers = cross(&message.headers, capabilities.header_values).0;
        message.copied = None;
    }
}
