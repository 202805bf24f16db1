//! The lines of standard input.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::thread;

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::mpsc;

use crate::error::CliError;
use crate::output;

/// Maximum number of lines read ahead.
const READ_AHEAD: usize = 64;
/// Maximum length of a line in bytes; most brokers accept less.
const MAX_LINE: u64 = 64 << 20;

/// Returns each line without its line ending; an empty line is an empty message.
///
/// A separate thread reads, because the read cannot be interrupted; it is abandoned when the
/// program ends.
pub(super) fn read_stdin() -> impl Stream<Item = Result<Bytes, CliError>> {
    if io::stdin().is_terminal() {
        output::warn("each line is a message; press Ctrl-D to end");
    }
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    thread::spawn(move || {
        while let Some(line) = next() {
            let last = line.is_err();
            if sender.blocking_send(line).is_err() || last {
                break;
            }
        }
    });
    stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)))
}

fn next() -> Option<Result<Bytes, CliError>> {
    let mut line = Vec::new();
    let read = io::stdin().lock().take(MAX_LINE).read_until(b'\n', &mut line);
    match read {
        Ok(0) => None,
        Ok(_) if line.ends_with(b"\n") => {
            line.pop();
            if line.ends_with(b"\r") {
                line.pop();
            }
            Some(Ok(line.into()))
        }
        Ok(read) if read as u64 == MAX_LINE => {
            Some(Err(CliError::new(format!("a line of standard input is longer than {MAX_LINE} bytes"))))
        }
        Ok(_) => Some(Ok(line.into())),
        Err(error) => Some(Err(CliError::with_source("cannot read standard input", &error))),
    }
}
