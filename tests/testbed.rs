//! Tests of the testbed: servers start, die, restart and never outlive their owner.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::{Cluster, Disk, Kind, Server, shared};

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
fn rabbitmq_4_lives_and_dies() {
    live_and_die(Kind::RabbitMq4);
}

#[test]
fn redis_8_lives_and_dies() {
    live_and_die(Kind::Redis8);
}

#[test]
fn valkey_lives_and_dies() {
    live_and_die(Kind::Valkey);
}

#[test]
fn jaeger_lives_and_dies() {
    live_and_die(Kind::Jaeger);
}

#[test]
fn a_cluster_of_kafka_lives_and_dies() {
    live_and_die_together(Kind::Kafka);
}

#[test]
fn a_cluster_of_rabbitmq_lives_and_dies() {
    live_and_die_together(Kind::RabbitMq);
}

#[test]
fn a_cluster_of_nats_lives_and_dies() {
    live_and_die_together(Kind::Nats);
}

#[test]
fn a_redis_with_a_replica_lives_and_dies() {
    live_and_die_together(Kind::Redis);
}

/// A node answers only while it knows the others, and they go on without one of them.
fn live_and_die_together(kind: Kind) {
    let cluster = Cluster::try_start(kind).unwrap_or_else(|why| panic!("{why}"));
    let nodes = cluster.nodes();
    if kind == Kind::RabbitMq {
        // It answers its clients without the others, too.
        let running = nodes[0].rabbitmqctl(&["eval", "length(rabbit_mnesia:cluster_nodes(running))."]);
        assert_eq!(running.as_deref(), Ok("3"));
    }
    let pids: Vec<u32> = nodes.iter().map(|node| node.pid()).collect();
    for (index, node) in nodes.iter().enumerate() {
        node.kill();
        assert!(!is_alive(pids[index]), "killed, and still there");
        assert!(!node.answers(), "killed, and something answers");
        let others = pids.iter().enumerate().filter(|(other, _)| *other > index);
        assert!(others.map(|(_, pid)| *pid).all(is_alive), "one was killed, and another is gone");
        node.restart();
        eventually("an answer of every node", || nodes.iter().all(|node| node.answers()));
    }
    let pids: Vec<u32> = nodes.iter().map(|node| node.pid()).collect();
    assert!(pids.iter().copied().all(is_alive));
    drop(cluster);
    assert!(!pids.into_iter().any(is_alive), "dropped, and still there");
}

#[test]
fn a_disk_is_full_and_free_again() {
    let disk = Disk::try_start(32).unwrap_or_else(|why| panic!("{why}"));
    let server = Server::start_at(Kind::Redis, Server::free_port(Kind::Redis), vec![disk.environment()]);
    let data = fs::read_link(server.directory().join("data")).unwrap();
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0, "other processes do not see the data");
    let seen = || PathBuf::from(format!("/proc/{}/root{}", server.pid(), data.display()));
    assert!(seen().join("appendonlydir").exists(), "the server sees it");
    let write = || fs::write(seen().join("probe"), vec![1; 2 << 20]);
    disk.fill(1).unwrap();
    assert_eq!(write().unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    disk.free().unwrap();
    write().unwrap();
    server.restart();
    assert!(seen().join("probe").exists(), "the disk outlives the server");
}

/// In the place of cargo: a kit with one case that passes, one that fails, and one that is not run.
const CARGO: &str = "#!/usr/bin/env bash
case \"$*\" in
    *--list*) printf 'memory::trace::b07_%s: test\\n' one two three ;;
    *'--test conformance'*)
        cd \"$TRACED_BROKER_CONFORMANCE_RESULTS\" || exit
        printf 'B07\\ta break\\t\\n' >breaks
        printf 'trace::b07_one\\tpassed\\t\\ntrace::b07_two\\tfailed\\t\\n' >memory.tsv
        exit 101
        ;;
esac
";

/// The tables of a kit that failed have its cases.
#[test]
fn a_kit_that_fails_says_which_cases_ran() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let cargo = folder.path().join("cargo");
    fs::write(&cargo, CARGO).unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run");
    let output = Command::new(run)
        .arg("memory")
        .env("PATH", path)
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let row = |of: &str| {
        let line = said.lines().find(|line| line.starts_with(of)).unwrap_or_else(|| panic!("{of}: {said}"));
        line.split_whitespace().last().unwrap().to_owned()
    };
    assert!(!output.status.success(), "{said}");
    assert_eq!(row("trace::b07_one "), "passed");
    assert_eq!(row("trace::b07_two "), "FAILED");
    assert_eq!(row("trace::b07_three "), "MISSING");
    assert_eq!(row("B07 "), "FAILED", "{said}");
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

/// A later generation is not the machine's own, older release under another name.
#[test]
fn later_generations_are_those_of_debian_13() {
    let starts = ["Starting RabbitMQ 4.", "Redis version=8.", "Valkey version=8."];
    for (kind, words) in Kind::GENERATIONS.into_iter().zip(starts) {
        let server = Server::start(kind);
        let log = fs::read_to_string(server.directory().join("log")).unwrap();
        assert!(log.contains(words), "{kind:?}: no {words:?} in its log:\n{log}");
    }
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
    for kind in Owner::kinds() {
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

    /// Returns the kinds of servers that a process may hold.
    fn kinds() -> impl Iterator<Item = Kind> {
        Kind::BROKERS.into_iter().chain(Kind::GENERATIONS).chain([Kind::Jaeger, Kind::Epmd])
    }

    fn told() -> Option<Self> {
        let name = std::env::var(Self::TOLD).ok()?;
        let kind = Self::kinds().find(|kind| format!("{kind:?}") == name);
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
