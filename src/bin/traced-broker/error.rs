//! The error of every command.

use std::error::Error;
use std::fmt;

/// The reason why a command could not do its work.
///
/// Holds no secrets: URLs are shortened by [`shown`](crate::client::shown), and header values are
/// left out.
#[derive(Debug)]
pub(crate) struct CliError {
    message: String,
    is_temporary: bool,
}

impl CliError {
    /// Creates an error that a retry does not change.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_temporary: false }
    }

    /// Creates an error that a retry may resolve.
    pub(crate) fn temporary(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_temporary: true }
    }

    /// Creates an error whose message ends with the messages of its source.
    pub(crate) fn with_source(message: impl fmt::Display, source: &dyn Error) -> Self {
        Self::new(format!("{message}: {}", chain(source)))
    }

    pub(crate) const fn is_temporary(&self) -> bool {
        self.is_temporary
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Joins the messages of an error and its sources, without repeating a message.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let message = source.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        next = source.source();
    }
    text
}
