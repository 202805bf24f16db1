//! Running commands.

use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::command::Outcome;
use crate::setup::SOON;
use crate::support::send_signal;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_traced-broker"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs the command with `input` on its standard input.
pub(crate) async fn fed(arguments: &[&str], input: &str) -> Outcome {
    let mut child = command(arguments).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    outcome(timeout(SOON, child.wait_with_output()).await.expect("an end").unwrap())
}

fn outcome(output: Output) -> Outcome {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { code: output.status.code().expect("not killed"), out: text(output.stdout), err: text(output.stderr) }
}

/// A command that runs until it is stopped.
pub(crate) struct Running {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, input, lines }
    }

    /// Writes a line to standard input.
    pub(crate) async fn give(&mut self, line: &str) {
        let input = self.input.as_mut().expect("not at its end");
        input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// Returns the next printed line.
    pub(crate) async fn line(&mut self) -> String {
        let line = timeout(SOON, self.lines.next_line()).await.expect("a line").unwrap();
        line.expect("it goes on")
    }

    /// Returns the next printed line as JSON.
    pub(crate) async fn json(&mut self) -> Value {
        let line = self.line().await;
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Interrupts the command like Ctrl-C, and waits for its end.
    pub(crate) async fn interrupt(self) -> Outcome {
        assert!(send_signal("INT", self.child.id().expect("it runs")));
        self.end().await
    }

    /// Waits for the end; the outcome does not contain lines that were read before.
    pub(crate) async fn end(mut self) -> Outcome {
        let mut out = String::new();
        while let Some(line) = timeout(SOON, self.lines.next_line()).await.expect("an end").unwrap() {
            out.push_str(&line);
            out.push('\n');
        }
        let end = outcome(timeout(SOON, self.child.wait_with_output()).await.expect("an end").unwrap());
        Outcome { out, ..end }
    }
}
