//! Runs the command.

use std::process::Stdio;

use tokio::process::Command;

/// The exit code and output of the command.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs `traced-broker` with these arguments.
pub(crate) async fn traced_broker(arguments: &[&str]) -> Outcome {
    traced_broker_in(&[], arguments).await
}

/// Runs `traced-broker` with these arguments and environment variables.
pub(crate) async fn traced_broker_in(variables: &[(&str, &str)], arguments: &[&str]) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_traced-broker"));
    for variable in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(variable);
    }
    command.envs(variables.iter().copied());
    let output = command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs `traced-broker verify` with these arguments, and with a short deadline unless one is given.
pub(crate) async fn verify(arguments: &[&str]) -> Outcome {
    let mut all = vec!["verify", "--settle", "0s"];
    if !arguments.contains(&"--deadline") {
        all.extend(["--deadline", "1s"]);
    }
    all.extend(arguments);
    traced_broker(&all).await
}

impl Outcome {
    /// Fails unless the command ended with `code`.
    #[track_caller]
    pub(crate) fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        // The command must never panic.
        assert!(!self.err.contains("panicked"), "{self:#?}");
        self
    }

    /// Fails unless standard output contains all of these texts.
    #[track_caller]
    pub(crate) fn prints(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.out.contains(word), "no {word:?} in {self:#?}");
        }
        self
    }

    /// Fails unless standard error contains all of these texts.
    #[track_caller]
    pub(crate) fn complains(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in {self:#?}");
        }
        self
    }

    /// Fails if the output contains this secret.
    #[track_caller]
    pub(crate) fn never_shows(self, secret: &str) -> Self {
        assert!(!self.out.contains(secret) && !self.err.contains(secret), "{secret:?} in {self:#?}");
        self
    }
}
