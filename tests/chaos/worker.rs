//! Consumers in a process of their own, which may be killed.

use std::process::{ExitCode, Stdio};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::consumers::{Consumers, Job};
use crate::history::Event;
use crate::recorder::Recorder;
use crate::resources;

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Worker {
    member: String,
    child: Child,
    reading: JoinHandle<()>,
    recorder: Recorder,
}

impl Worker {
    /// Starts this program again, with consumers only; their history is read from its output.
    pub(crate) fn start(job: &Job, recorder: &Recorder) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let job_line = serde_json::to_string(job).map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(["--worker", &job_line]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("a worker does not start: {error}"))?;
        let output = child.stdout.take().ok_or("its output is piped")?;
        let (own, reader) = (recorder.clone(), recorder.clone());
        let reading = tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                reader.read(&line);
            }
        });
        Ok(Self { member: job.member.clone(), child, reading, recorder: own })
    }

    /// Kills it as SIGKILL does.
    pub(crate) async fn kill(mut self) {
        // Fails only if it has ended by itself, which its history shows.
        let _ = self.child.kill().await;
        let _ = (&mut self.reading).await;
        self.recorder.note(Event::Died { member: self.member.clone() });
    }

    /// Lets it finish: it stops when its standard input ends.
    pub(crate) async fn stop(mut self) {
        drop(self.child.stdin.take());
        let ended = self.child.wait().await;
        let _ = (&mut self.reading).await;
        if !ended.as_ref().is_ok_and(std::process::ExitStatus::success) {
            self.recorder.note(Event::Stuck { what: format!("{} ended with {ended:?}", self.member) });
        }
    }
}

/// Does the work of such a process.
pub(crate) async fn work(job: &str) -> ExitCode {
    let Ok(job) = serde_json::from_str::<Job>(job) else { return ExitCode::FAILURE };
    let recorder = Recorder::on_standard_output();
    let (member, before) = (job.member.clone(), resources::before(&job.url).await);
    let sampling = resources::sample_memory(member.clone(), recorder.clone());
    let consumers = Consumers::start(job, recorder.clone()).await;
    let mut rest = Vec::new();
    let _ended = tokio::io::stdin().read_to_end(&mut rest).await;
    sampling.abort();
    consumers.stop().await;
    resources::after(&member, before, &recorder).await;
    ExitCode::SUCCESS
}
