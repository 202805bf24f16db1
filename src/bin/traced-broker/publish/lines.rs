//! The lines of standard input.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::thread;

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::mpsc;

use crate::screen;
use crate::trouble::Trouble;

/// How many lines are read ahead.
const AHEAD: usize = 64;
/// The longest line, in bytes: more than most brokers take.
const LONGEST: u64 = 64 << 20;

/// One item a line, without its end; an empty line is an empty message.
///
/// A thread reads, for reading cannot be interrupted: it is left behind when the program ends.
pub(super) fn of_standard_input() -> impl Stream<Item = Result<Bytes, Trouble>> {
    if io::stdin().is_terminal() {
        screen::remark("each line is a message; Ctrl-D ends");
    }
    let (sender, receiver) = mpsc::channel(AHEAD);
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

fn next() -> Option<Result<Bytes, Trouble>> {
    let mut line = Vec::new();
    let read = io::stdin().lock().take(LONGEST).read_until(b'\n', &mut line);
    match read {
        Ok(0) => None,
        Ok(_) if line.ends_with(b"\n") => {
            line.pop();
            if line.ends_with(b"\r") {
                line.pop();
            }
            Some(Ok(line.into()))
        }
        Ok(read) if read as u64 == LONGEST => {
            Some(Err(Trouble::new(format!("a line of standard input is longer than {LONGEST} bytes"))))
        }
        Ok(_) => Some(Ok(line.into())),
        Err(error) => Some(Err(Trouble::because("cannot read standard input", &error))),
    }
}
