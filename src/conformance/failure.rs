//! The failure of a case: the expected and the observed value, and the place of the check.

use std::fmt;
use std::panic::Location;

use crate::error::Error;

/// The result of a step of a case: its value, or the failure of the case.
pub(super) type Checked<T = ()> = Result<T, Failure>;

/// The failure of a case.
#[derive(Clone)]
pub struct Failure {
    text: String,
    place: &'static Location<'static>,
}

impl Failure {
    /// Creates a failure from a text that says what was required and what was seen instead.
    #[track_caller]
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), place: Location::caller() }
    }

    /// Prepends the operation that was in progress.
    #[must_use]
    pub(super) fn during(mut self, what: &str) -> Self {
        self.text = format!("{what}: {}", self.text);
        self
    }

    /// Appends further information.
    #[must_use]
    pub(super) fn followed_by(mut self, more: &str) -> Self {
        self.text.push_str(more);
        self
    }
}

impl From<Error> for Failure {
    /// Converts the error of an operation that had to succeed.
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

/// Fails the case, or the handler within it, unless the condition holds: `check!(condition, "what
/// is required")`.
macro_rules! check {
    ($condition:expr, $($required:tt)+) => {
        if !$condition {
            Err($crate::conformance::failure::Failure::new(format!(
                "{}: not satisfied: `{}`", format_args!($($required)+), stringify!($condition),
            )))?;
        }
    };
}

/// Fails the case, or the handler within it, unless two values are equal: `check_eq!(seen,
/// expected, "what they are")`.
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

/// Creates the failure of a comparison; long values are truncated.
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
