//! The name of a topic.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// The name of a topic, valid on every broker: 1 to 249 of the characters `A-Z a-z 0-9 . _ -`, and
/// neither `.` nor `..`.
///
/// Cheap to clone.
///
/// ```
/// use traced_broker::Topic;
///
/// assert_eq!(&*Topic::new("orders.v2").unwrap(), "orders.v2");
/// assert!(Topic::new("orders/v2").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl Topic {
    /// The maximum length of the name of a topic or group in bytes: Kafka's limit, the lowest of
    /// all brokers.
    pub const MAX_LEN: usize = 249;

    /// Creates a topic after checking the name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the name is empty, too long, `.` or `..`, or contains
    /// another character.
    pub fn new(name: &str) -> Result<Self> {
        validate_name("topic", name)?;
        Ok(Self(name.into()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name as a shared string.
    pub fn to_shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl Deref for Topic {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl TryFrom<&str> for Topic {
    type Error = Error;

    fn try_from(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

/// Checks the name of a topic or group, which the caller names.
pub(super) fn validate_name(what: &'static str, name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let reason = if name.is_empty() {
        "is empty"
    } else if name.len() > Topic::MAX_LEN {
        "is longer than 249 bytes"
    } else if !name.bytes().all(allowed) {
        "has a character other than A-Z a-z 0-9 . _ -"
    } else if name == "." || name == ".." {
        "is reserved"
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(64).flat_map(char::escape_default).collect();
    Err(Error::new(ErrorKind::InvalidConfig, format!("the name of the {what} {reason}")).with_context(what, shown))
}
