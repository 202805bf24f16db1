//! The examples as programs of their own.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Builds the example of this name, with the features of the test that calls this, and says where it is.
///
/// # Panics
/// When it cannot be built.
pub(crate) fn example(name: &str) -> PathBuf {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--example", name, "--message-format=json"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let features = [
        ("kafka", cfg!(feature = "kafka")),
        ("amqp", cfg!(feature = "amqp")),
        ("nats", cfg!(feature = "nats")),
        ("redis", cfg!(feature = "redis")),
        ("tracing", cfg!(feature = "tracing")),
        ("conformance", cfg!(feature = "conformance")),
        ("testing", cfg!(feature = "testing")),
        ("cli", cfg!(feature = "cli")),
        ("otlp", cfg!(feature = "otlp")),
    ];
    for (feature, _) in features.into_iter().filter(|(_, on)| *on) {
        cargo.args(["--features", feature]);
    }
    // What cargo told this test of its package would be taken for a change of the build scripts' surroundings: half of
    // the dependencies would be built again, here and after.
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
