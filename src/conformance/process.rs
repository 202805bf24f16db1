//! A second process of the test program, which works on a broker until it is killed.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::case_context::{CaseContext, text};
use super::failure::{Checked, Failure};
use super::harness::Harness;
use crate::broker::{Traced, TracedBroker};
use crate::driver::{Disposition, Driver, DriverExt, Inbound, Outbound};
use crate::error::Result;
use crate::message::{HandlerError, Received, Subscription, Topic};
use crate::runtime::TracedBrokerExt;

/// Environment variable that makes a test program the other process of a case.
const TASK: &str = "TRACED_BROKER_CONFORMANCE_PROCESS";

/// The payload that ends the process of its handler.
pub(super) const FATAL: &str = "fatal";

/// The number of messages below which every third one is left unsettled.
const HELD_BELOW: u64 = 100;
/// Lines that the process may be ahead of its reader, beyond what the system buffers.
const AHEAD: usize = 1_000;

/// The work of the other process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// Publishes and settles without end.
    Work,
    /// Takes messages and keeps them.
    Hold,
    /// Consumes with a handler that ends the process at [one message](FATAL).
    Die,
}

/// Another process, as the case sees it. Dropping it kills it.
pub(super) struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
    said: Vec<String>,
}

impl Process {
    /// Starts the process on the topic of the case.
    pub(super) fn start(case: &CaseContext, mut command: Command, group: &str, task: Task) -> Checked<Self> {
        let task = format!("{}\n{}\n{}\n{task:?}", case.harness.name(), case.topic, case.group_name(group));
        let command = command.env(TASK, task).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| Failure::new(format!("the other process starts: {error}")))?;
        let (sender, lines) = mpsc::channel(AHEAD);
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || read_lines(stdout, &sender));
        }
        Ok(Self { child, lines, said: Vec::new() })
    }

    /// Reads further lines that it prints.
    pub(super) async fn read(&mut self, count: usize, patience: Duration) -> Checked<Vec<String>> {
        let first = self.said.len();
        let reading = async {
            while self.said.len() < first + count {
                match self.lines.recv().await {
                    Some(line) => self.said.push(line),
                    None => return false,
                }
            }
            true
        };
        let read = tokio::time::timeout(patience, reading).await;
        if !matches!(read, Ok(true)) {
            let last = self.said.last();
            let lines = self.said.len() - first;
            return Err(Failure::new(format!(
                "the other process works: {lines} lines of {count} within {patience:?}, the last one {last:?}"
            )));
        }
        Ok(self.said[first..].to_vec())
    }

    /// Waits until it has ended by itself.
    pub(super) async fn ended(&mut self) {
        while let Some(line) = self.lines.recv().await {
            self.said.push(line);
        }
    }

    /// Kills it as `SIGKILL` does, and returns everything that it printed.
    pub(super) async fn kill(mut self) -> Checked<Vec<String>> {
        self.end();
        while let Some(line) = self.lines.recv().await {
            self.said.push(line);
        }
        Ok(std::mem::take(&mut self.said))
    }

    fn end(&mut self) {
        // Both fail only if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn read_lines(stdout: ChildStdout, lines: &mpsc::Sender<String>) {
    for line in BufReader::new(stdout).lines().map_while(io::Result::ok) {
        if lines.blocking_send(line).is_err() {
            return;
        }
    }
}

/// Returns the rest of the lines that begin with a word.
pub(super) fn words(said: &[String], word: &str) -> BTreeSet<String> {
    let rest = said.iter().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    rest.map(str::to_owned).collect()
}

/// Does the work of the other process, if this is one; returns `None` otherwise.
pub(super) fn work_if_asked(harnesses: &[Arc<dyn Harness>]) -> Option<ExitCode> {
    let task = std::env::var(TASK).ok()?;
    let mut parts = task.split('\n');
    let (name, topic, group, task) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let Some(harness) = harnesses.iter().find(|harness| harness.name() == name) else {
        say(&format!("unknown {name}"));
        return Some(ExitCode::FAILURE);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().ok()?;
    let done = runtime.block_on(async {
        let driver = harness.connect().await?;
        match task {
            "Hold" => hold(driver, topic, group).await,
            "Die" => consume_to_death(harness.set_up(Traced::new(driver)), topic, group).await,
            _ => publish_and_settle(driver, topic, group).await,
        }
    });
    if let Err(error) = done {
        say(&format!("refused {:?}", error.kind()));
    }
    Some(ExitCode::FAILURE)
}

/// Prints a line, whole or not at all. The reader may be gone.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

async fn next(source: &mut crate::driver::Source) -> Option<Inbound> {
    loop {
        match std::future::poll_fn(|cx| source.poll_next(cx)).await {
            Some(Ok(inbound)) => return Some(inbound),
            Some(Err(_)) => {}
            None => return None,
        }
    }
}

async fn hold(driver: Arc<dyn Driver>, topic: &str, group: &str) -> Result<()> {
    let mut source = driver.subscribe(&Subscription::new(topic).group(group).prefetch(64)).await?;
    say("joined");
    let mut held = Vec::new();
    while let Some(inbound) = next(&mut source).await {
        say(&format!("got {}", inbound.payload.as_deref().map(text).unwrap_or_default()));
        held.push(inbound);
    }
    Ok(())
}

async fn publish_and_settle(driver: Arc<dyn Driver>, topic: &str, group: &str) -> Result<()> {
    let name = Topic::new(topic)?;
    driver.declare(&name).await?;
    let mut source = driver.subscribe(&Subscription::new(topic).group(group).prefetch(64)).await?;
    let publishing = async {
        for number in 0_u64.. {
            let message = Outbound { key: Some("one".into()), ..Outbound::new(number.to_string()) };
            driver.enqueue(&name, message).await?;
            say(&format!("published {number}"));
        }
        Ok(())
    };
    let handling = async {
        let mut held = Vec::new();
        while let Some(inbound) = next(&mut source).await {
            let payload = inbound.payload.as_deref().map(text).unwrap_or_default();
            say(&format!("got {payload}"));
            if payload.parse::<u64>().is_ok_and(|number| number < HELD_BELOW && number % 3 == 2) {
                held.push(inbound);
                continue;
            }
            say(&format!("settling {payload}"));
            inbound.handle.settle(Disposition::Ack).await?;
            say(&format!("settled {payload}"));
        }
        Ok(())
    };
    futures_util::future::try_join(publishing, handling).await.map(drop)
}

/// Returns the dead-letter topic of the process's group.
pub(super) fn dead_letters_of(topic: &str) -> String {
    format!("{topic}.fatal")
}

async fn consume_to_death(broker: impl TracedBroker, topic: &str, group: &str) -> Result<()> {
    let handler = async |message: Received| {
        let payload = text(message.payload());
        if payload == FATAL {
            say("dies");
            std::process::abort();
        }
        say(&format!("handled {payload}"));
        Ok::<_, HandlerError>(())
    };
    let subscription = Subscription::new(topic).group(group).dead_letter(dead_letters_of(topic));
    broker.consume(subscription, handler).concurrency(4).run().await.map(drop)
}
