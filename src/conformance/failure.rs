//! Why a case failed: what was expected and what was seen, and where the kit looked.

use std::fmt;
use std::panic::Location;

use crate::error::Error;

/// What a step of a case gives: its value, or why the case has failed.
pub(super) type Checked<T = ()> = Result<T, Failure>;

/// Why a case failed.
#[derive(Clone)]
pub struct Failure {
    text: String,
    place: &'static Location<'static>,
}

impl Failure {
    /// A failure in words: what was required, and what was seen in its place.
    #[track_caller]
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), place: Location::caller() }
    }

    /// Adds in front what was being done.
    #[must_use]
    pub(super) fn during(mut self, what: &str) -> Self {
        self.text = format!("{what}: {}", self.text);
        self
    }

    /// Adds at the end what else is known.
    #[must_use]
    pub(super) fn followed_by(mut self, more: &str) -> Self {
        self.text.push_str(more);
        self
    }
}

impl From<Error> for Failure {
    /// An operation that had to succeed did not.
    #[track_caller]
    fn from(error: Error) -> Self {
        Self::new(format!("had to succeed: {error:?}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}:{}]", self.text, self.place.file(), self.place.line())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failure {}

/// Fails the case, or the handler within it, unless the condition holds: `check!(condition, "what is required")`.
macro_rules! check {
    ($condition:expr, $($required:tt)+) => {
        if !$condition {
            Err($crate::conformance::failure::Failure::new(format!(
                "{}: not so, by `{}`", format_args!($($required)+), stringify!($condition),
            )))?;
        }
    };
}

/// Fails the case, or the handler within it, unless two values are equal: `check_eq!(seen, expected, "what they are")`.
macro_rules! check_eq {
    ($seen:expr, $expected:expr, $($what:tt)+) => {
        match (&$seen, &$expected) {
            (seen, expected) => if *seen != *expected {
                Err($crate::conformance::failure::unequal(format_args!($($what)+), expected, seen))?;
            }
        }
    };
}

pub(super) use {check, check_eq};

/// The failure of a comparison; long values are cut.
#[track_caller]
pub(super) fn unequal(what: fmt::Arguments<'_>, expected: &dyn fmt::Debug, seen: &dyn fmt::Debug) -> Failure {
    Failure::new(format!("{what}: expected {}, saw {}", shorten(expected), shorten(seen)))
}

fn shorten(value: &dyn fmt::Debug) -> String {
    const SHOWN: usize = 300;
    let text = format!("{value:?}");
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text,
    }
}
