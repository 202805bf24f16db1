//! A program in another language: building, starting, reading its output, ending.

use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::sync::OnceLock;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::setup::SOON;

/// The language of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Go,
    Python,
    Java,
}

/// A consumer's report of the message that it received.
#[derive(Debug, Deserialize)]
pub(crate) struct Received {
    pub(crate) payload: String,
    pub(crate) headers: Vec<Header>,
}

/// A header: its name, the type of its value, and the value as text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "(String, String, String)")]
pub(crate) struct Header {
    pub(crate) name: String,
    pub(crate) form: String,
    pub(crate) value: String,
}

impl From<(String, String, String)> for Header {
    fn from((name, form, value): (String, String, String)) -> Self {
        Self { name, form, value }
    }
}

/// A running program.
pub(crate) struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Its standard error, once it has ended.
    complaints: JoinHandle<String>,
}

impl Language {
    fn name(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Python => "python",
            Self::Java => "java",
        }
    }

    /// Returns the flags of a trace that begins in this language: sampled, and in some SDKs also
    /// that the trace id is random (W3C Trace Context, level 2).
    pub(crate) fn flags(self) -> &'static str {
        match self {
            Self::Go => "01",
            Self::Python | Self::Java => "03",
        }
    }

    /// Returns the command of the program in this language, which is built if it is missing.
    async fn command(self) -> Command {
        let folder = tokio::task::spawn_blocking(move || self.installed()).await.unwrap();
        match self {
            Self::Go => Command::new(folder.join("interop")),
            Self::Python => {
                let mut python = Command::new("python3");
                python
                    .env("PYTHONPATH", folder)
                    .env("PYTHONDONTWRITEBYTECODE", "1")
                    .arg(sources().join("python/main.py"));
                python
            }
            Self::Java => {
                let mut java = Command::new("java");
                let class_path = format!("{0}/classes:{0}/libs/*", folder.display());
                java.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", &class_path, "Interop"]);
                java
            }
        }
    }

    /// Returns the directory of its build.
    fn installed(self) -> &'static Path {
        static GO: OnceLock<PathBuf> = OnceLock::new();
        static PYTHON: OnceLock<PathBuf> = OnceLock::new();
        static JAVA: OnceLock<PathBuf> = OnceLock::new();
        let built = match self {
            Self::Go => &GO,
            Self::Python => &PYTHON,
            Self::Java => &JAVA,
        };
        built.get_or_init(|| {
            let mut install = process::Command::new(sources().join("install"));
            let installed = install.arg(self.name()).stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
            assert!(installed.status.success(), "{self:?}: not installed, the script says why on standard error");
            PathBuf::from(String::from_utf8(installed.stdout).unwrap().trim_end())
        })
    }
}

/// Returns the folder with the sources of the programs.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

impl Running {
    /// Starts the program, which exports its spans to `endpoint` as those of `service`.
    pub(crate) async fn start(language: Language, arguments: &[&str], endpoint: &str, service: &str) -> Self {
        let mut command = language.command().await;
        command
            .args(arguments)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
            .env("OTEL_SERVICE_NAME", service)
            // Java would also send these.
            .env("OTEL_METRICS_EXPORTER", "none")
            .env("OTEL_LOGS_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{language:?}: cannot be started: {error}"));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stderr = child.stderr.take().unwrap();
        let complaints = tokio::spawn(async move {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).await.unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { child, lines, complaints }
    }

    /// Waits until it is ready to receive.
    pub(crate) async fn ready(&mut self) {
        assert_eq!(self.line().await, "ready");
    }

    /// Returns the message that it received, once it has ended.
    pub(crate) async fn received(mut self) -> Received {
        let line = self.line().await;
        self.end().await;
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Waits until it has ended and its last spans are sent.
    pub(crate) async fn end(self) {
        let (succeeded, complaints) = self.outcome().await;
        assert!(succeeded, "the program failed:\n{complaints}");
    }

    /// Waits until it has failed, and returns its error output.
    pub(crate) async fn failure(self) -> String {
        let (succeeded, complaints) = self.outcome().await;
        assert!(!succeeded, "the program fails");
        complaints
    }

    async fn outcome(mut self) -> (bool, String) {
        let status = timeout(SOON, self.child.wait()).await.expect("the program ends").unwrap();
        (status.success(), self.complaints.await.unwrap())
    }

    async fn line(&mut self) -> String {
        let line = timeout(SOON, self.lines.next_line()).await.expect("a line in time").unwrap();
        match line {
            Some(line) => line,
            None => panic!("the program ended early:\n{}", (&mut self.complaints).await.unwrap()),
        }
    }
}
