//! Why something could not be done.

use std::error::Error;
use std::fmt;

/// What to tell the user when the answer is neither yes nor no. Never holds a secret: a URL comes here by way of
/// [`shown`](crate::client::shown), the value of a header not at all.
#[derive(Debug)]
pub(crate) struct Trouble {
    what: String,
    passing: bool,
}

impl Trouble {
    /// Something that asking again will not change.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), passing: false }
    }

    /// Something that may be over in a moment.
    pub(crate) fn passing(what: impl Into<String>) -> Self {
        Self { what: what.into(), passing: true }
    }

    /// Something with an error below it.
    pub(crate) fn because(what: impl fmt::Display, cause: &dyn Error) -> Self {
        Self::new(format!("{what}: {}", chain(cause)))
    }

    pub(crate) const fn is_passing(&self) -> bool {
        self.passing
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// An error and what caused it, each said once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !said.contains(&words) {
            said = format!("{said}: {words}");
        }
        next = cause.source();
    }
    said
}
