//! The smoke test of `docs/command.md`, as a new user would type it.

use std::fs::File;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::shop::end;
use crate::support::{Jaeger, program};

/// Returns the three commands below the heading.
fn commands() -> [String; 3] {
    let page = include_str!("../../docs/command.md");
    let section =
        page.split("\n## ").find(|section| section.starts_with("Check your own system")).expect("the section");
    let block = section.split("```").nth(1).expect("a block of commands");
    let block = block.split_once('\n').expect("lines").1.replace("\\\n", " ");
    let commands: Vec<_> = block.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    commands.try_into().unwrap_or_else(|other| panic!("three commands: {other:?}"))
}

/// Replaces `old`, which must be present, by `new`.
#[track_caller]
fn replaced(command: &str, old: &str, new: &str) -> String {
    assert!(command.contains(old), "no `{old}` in `{command}`");
    command.replace(old, new)
}

#[test]
fn the_three_commands_work() {
    let [backend, system, check] = commands();
    // The tests' real Jaeger replaces the one in a container, which listens on these ports.
    assert!(backend.starts_with("docker run "), "{backend}");
    assert!(backend.contains("-p 16686:16686") && backend.contains("-p 4318:4318"), "{backend}");
    let jaeger = Jaeger::start();

    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let example = program::example("orders").display().to_string();
    let system = replaced(&system, "cargo run --release --example orders --", &format!("exec {example}"));
    let system = replaced(&system, "http://localhost:4318", &jaeger.otlp_endpoint()) + &format!(" --port {port}");
    let output = folder.path().join("output");
    let mut running = shell(&system).stdout(File::create(&output).unwrap()).spawn().unwrap();

    let deadline = Instant::now() + Duration::from_secs(60);
    while !std::fs::read_to_string(&output).unwrap().contains("curl -i http://") && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    let check = replaced(&check, "cargo run --release --features cli --", env!("CARGO_BIN_EXE_traced-broker"));
    let check = replaced(&check, "http://localhost:8080", &format!("http://localhost:{port}"));
    let check = replaced(&check, "http://localhost:16686", &jaeger.query_url());
    let checked = shell(&check).output().unwrap();
    end(&mut running);

    let printed = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{printed}{}", String::from_utf8_lossy(&checked.stderr));
    // The waterfall, with everything that the page says it shows.
    for words in ["POST /orders", "in queue orders", "process orders attempt 3", "process notifications", "✓ whole"] {
        assert!(printed.contains(words), "no `{words}` in\n{printed}");
    }
}

/// Returns a command line that runs in the directory intended for the page's commands.
fn shell(line: &str) -> Command {
    let mut shell = Command::new("bash");
    shell.args(["-c", line]).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    shell
}
