//! A running example: its output line by line, and its end.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use traced_broker::verify::{Traces, otlp};

/// Maximum duration of a run, which takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
    /// The output read so far.
    said: String,
}

impl Program {
    pub(crate) fn start(program: &Path, arguments: &[impl AsRef<OsStr>]) -> Self {
        let mut command = Command::new(program);
        let mut child = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = sync_channel(1000);
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines, said: String::new() }
    }

    /// Waits for an output line with this text.
    pub(crate) fn wait_for(&mut self, text: &str) {
        while let Some(line) = self.next_line() {
            if line.contains(text) {
                return;
            }
        }
        panic!("no `{text}` in what it said:\n{}", self.said);
    }

    /// Waits until it ends successfully by itself, and returns all its output.
    pub(crate) fn finish(mut self) -> String {
        while self.next_line().is_some() {}
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.said);
        std::mem::take(&mut self.said)
    }

    /// Kills it immediately, and returns all its output.
    pub(crate) fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        while self.next_line().is_some() {}
        std::mem::take(&mut self.said)
    }

    fn next_line(&mut self) -> Option<String> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        let line = match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(Disconnected) => return None,
            Err(Timeout) => panic!("silent for {PATIENCE:?} after:\n{}", self.said),
        };
        self.said += &line;
        self.said += "\n";
        Some(line)
    }
}

impl Drop for Program {
    /// Stops the program if a test fails half-way.
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

/// Reads the spans in a file of the example.
pub(crate) fn read(spans: &Path) -> Traces {
    otlp::read(BufReader::new(std::fs::File::open(spans).unwrap())).unwrap()
}
