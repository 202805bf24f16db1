//! Tests of the testbed: servers start, die, restart and never outlive their owner.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::{Kind, Server, shared};

#[test]
fn kafka_lives_and_dies() {
    live_and_die(Kind::Kafka);
}

#[test]
fn rabbitmq_lives_and_dies() {
    live_and_die(Kind::RabbitMq);
}

#[test]
fn nats_lives_and_dies() {
    live_and_die(Kind::Nats);
}

#[test]
fn redis_lives_and_dies() {
    live_and_die(Kind::Redis);
}

#[test]
fn jaeger_lives_and_dies() {
    live_and_die(Kind::Jaeger);
}

fn live_and_die(kind: Kind) {
    let server = Server::start(kind);
    let (url, first) = (server.url(), server.pid());
    let directory = server.directory().to_owned();
    assert!(is_alive(first) && server.answers());

    server.kill();
    assert!(!is_alive(first), "killed, and still there");
    assert!(!server.answers(), "killed, and something answers");

    server.restart();
    let second = server.pid();
    assert!(second != first && is_alive(second) && server.answers());
    assert_eq!(server.url(), url);

    server.pause();
    assert!(!server.answers(), "stopped, and it answers");
    server.resume();
    eventually("an answer after SIGCONT", || server.answers());

    server.restart();
    assert!(!is_alive(second), "restarted, and the one before is still there");
    let third = server.pid();
    assert!(server.answers());

    drop(server);
    assert!(!is_alive(third), "dropped, and still there");
    // The caller that chooses the location of the folders also removes them.
    let is_given = std::env::var_os("TRACED_BROKER_TEST_DIR").is_some();
    assert_eq!(directory.exists(), is_given, "dropped: whether its folder is still there");
}

#[test]
fn no_server_outlives_a_killed_owner() {
    const NAME: &str = "no_server_outlives_a_killed_owner";
    if let Some(owner) = Owner::told() {
        let server = Server::start(owner.kind);
        owner.ready();
        thread::sleep(Duration::from_secs(600));
        drop(server);
        return;
    }
    for kind in Kind::BROKERS.into_iter().chain([Kind::Jaeger]) {
        let place = tempfile::tempdir().unwrap();
        let mut owner = Owner::spawn(NAME, kind, place.path());
        let server = Owner::wait_for_server(&mut owner, place.path());
        owner.kill().unwrap();
        owner.wait().unwrap();
        eventually("the end of a server whose owner was killed", || !is_alive(server));
    }
}

#[test]
fn no_shared_server_outlives_the_tests() {
    const NAME: &str = "no_shared_server_outlives_the_tests";
    if let Some(owner) = Owner::told() {
        let url = shared(owner.kind);
        assert_eq!(shared(owner.kind), url, "shared means one");
        owner.ready();
        return;
    }
    for kind in Kind::BROKERS {
        let place = tempfile::tempdir().unwrap();
        let mut owner = Owner::spawn(NAME, kind, place.path());
        let server = Owner::wait_for_server(&mut owner, place.path());
        assert!(owner.wait().unwrap().success());
        eventually("the end of a shared server after the tests", || !is_alive(server));
    }
}

/// The part of a test that runs in a separate process, which ends while it holds a server. The
/// process is the same program with the same test; its environment selects this part.
struct Owner {
    kind: Kind,
}

impl Owner {
    const TOLD: &str = "TRACED_BROKER_TESTBED_OWNER";
    const PLACE: &str = "TRACED_BROKER_TEST_DIR";

    fn told() -> Option<Self> {
        let name = std::env::var(Self::TOLD).ok()?;
        let kind = Kind::BROKERS.into_iter().chain([Kind::Jaeger]).find(|kind| format!("{kind:?}") == name);
        Some(Self { kind: kind.unwrap() })
    }

    fn ready(&self) {
        let place = std::env::var_os(Self::PLACE).unwrap();
        fs::write(Path::new(&place).join("ready"), "").unwrap();
    }

    fn spawn(test: &str, kind: Kind, place: &Path) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(Self::TOLD, format!("{kind:?}"))
            .env(Self::PLACE, place)
            .env_remove(kind.variable())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Returns the process id of the only server with a folder in `place`, once its owner reports
    /// that it is ready.
    fn wait_for_server(owner: &mut Child, place: &Path) -> u32 {
        eventually("a ready server in another process", || {
            place.join("ready").exists() || matches!(owner.try_wait(), Ok(Some(_)))
        });
        let folders = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
        let pids: Vec<String> = folders.filter_map(|folder| fs::read_to_string(folder.join("pid")).ok()).collect();
        assert_eq!(pids.len(), 1, "one server in {}", place.display());
        pids[0].trim().parse().unwrap()
    }
}

/// Returns `true` if the process is running; a zombie counts as gone.
fn is_alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(100);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(50));
    }
}
