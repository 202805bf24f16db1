//! Printing: results on standard output, everything else on standard error.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::ops::ControlFlow;

use console::Term;
use serde_json::Value;

use crate::error::CliError;

/// The maximum width of output; longer lines are hard to read.
const MAX_WIDTH: usize = 140;
/// The width if standard output is not a terminal.
const PLAIN_WIDTH: usize = 100;

/// The properties of standard output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    pub(crate) width: usize,
    pub(crate) colour: bool,
}

impl Terminal {
    /// Inspects standard output; colours are used on a terminal unless `NO_COLOR` is set.
    pub(crate) fn stdout() -> Self {
        let terminal = Term::stdout();
        let columns = terminal.size_checked().map_or(PLAIN_WIDTH, |(_, columns)| usize::from(columns));
        Self { width: columns.min(MAX_WIDTH), colour: terminal.features().colors_supported() }
    }
}

/// Prints one of many results; returns `Break` once the reader has closed the pipe.
pub(crate) fn print_line(text: &dyn Display) -> Result<ControlFlow<()>, CliError> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(CliError::with_source("cannot print", &error)),
        Ok(()) => Ok(ControlFlow::Continue(())),
    }
}

/// Prints a result; a closed pipe is not an error.
pub(crate) fn print(text: &dyn Display) -> Result<(), CliError> {
    print_line(text).map(drop)
}

/// Prints a result as JSON or as text.
pub(crate) fn print_as(
    is_json: bool,
    json: impl FnOnce() -> Value,
    text: impl FnOnce() -> String,
) -> Result<(), CliError> {
    if is_json { print(&json()) } else { print(&text()) }
}

/// Prints a remark beside the results.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "{}", printable(text));
}

/// Prints an error of the command line, which may have several lines.
pub(crate) fn print_usage_error(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints the error that ends the command; ignores a closed standard error.
pub(crate) fn print_error(error: &CliError) {
    let _ = writeln!(io::stderr(), "traced-broker: {}", printable(&error.to_string()));
}

/// Returns `text` on one line and without characters that control a terminal, because names and
/// messages are untrusted.
pub(crate) fn printable(text: &str) -> String {
    let reorders =
        |c: char| matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}');
    let kept = text.chars().filter(|c| !reorders(*c));
    kept.map(|c| match c {
        '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    })
    .collect()
}
