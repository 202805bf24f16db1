//! What is printed: results on standard output, everything else on standard error.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::ops::ControlFlow;

use console::Term;

use crate::trouble::Trouble;

/// Wider than this no line gets easier to read.
const MAX_WIDTH: usize = 140;
const PLAIN_WIDTH: usize = 100;

/// What standard output can show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    pub(crate) width: usize,
    pub(crate) colour: bool,
}

impl Screen {
    /// Standard output as it is: colours on a terminal, unless `NO_COLOR` is set.
    pub(crate) fn new() -> Self {
        let terminal = Term::stdout();
        let columns = terminal.size_checked().map_or(PLAIN_WIDTH, |(_, columns)| usize::from(columns));
        Self { width: columns.min(MAX_WIDTH), colour: terminal.features().colors_supported() }
    }
}

/// Prints one of many results; `Break` when whoever reads has gone.
pub(crate) fn line(text: &dyn Display) -> Result<ControlFlow<()>, Trouble> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(Trouble::because("cannot print", &error)),
        Ok(()) => Ok(ControlFlow::Continue(())),
    }
}

/// Prints a result.
pub(crate) fn print(text: &dyn Display) -> Result<(), Trouble> {
    // Whoever reads may have seen enough.
    line(text).map(drop)
}

/// Says something beside the results.
pub(crate) fn remark(text: &str) {
    let _ = writeln!(io::stderr(), "{}", printable(text));
}

/// Says what is wrong with the command line, on as many lines as it takes.
pub(crate) fn explain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Says why something could not be done. With standard error gone there is nobody left to tell.
pub(crate) fn complain(trouble: &Trouble) {
    let _ = writeln!(io::stderr(), "traced-broker: {}", printable(&trouble.to_string()));
}

/// `text` on one line, without what a terminal acts upon: names and messages come from anywhere.
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
