//! The examples as separate programs.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Builds the example with the features of the calling test, and returns its path.
///
/// # Panics
/// If it cannot be built.
pub(crate) fn example(name: &str) -> PathBuf {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--example", name, "--message-format=json"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let features = [
        ("kafka", cfg!(feature = "kafka")),
        ("kafka-tls", cfg!(feature = "kafka-tls")),
        ("amqp", cfg!(feature = "amqp")),
        ("nats", cfg!(feature = "nats")),
        ("redis", cfg!(feature = "redis")),
        ("tls", cfg!(feature = "tls")),
        ("tracing", cfg!(feature = "tracing")),
        ("conformance", cfg!(feature = "conformance")),
        ("testing", cfg!(feature = "testing")),
        ("cli", cfg!(feature = "cli")),
        ("otlp", cfg!(feature = "otlp")),
    ];
    for (feature, _) in features.into_iter().filter(|(_, on)| *on) {
        cargo.args(["--features", feature]);
    }
    // Cargo would treat the variables that it set for this test's package as a changed environment
    // of the build scripts, and would rebuild half of the dependencies, here and later.
    let told = std::env::vars_os().map(|(name, _)| name);
    for name in told
        .filter(|name| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|lead| name.to_string_lossy().starts_with(lead)))
    {
        cargo.env_remove(name);
    }
    let built = cargo.stderr(Stdio::inherit()).output().expect("cargo runs");
    assert!(built.status.success(), "the example `{name}` cannot be built");
    let messages = String::from_utf8(built.stdout).expect("JSON");
    let executable = messages.lines().rev().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_it = message["reason"] == "compiler-artifact" && message["target"]["name"] == name;
        message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
    });
    executable.expect("cargo says where it put the program")
}
