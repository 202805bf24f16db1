//! Servers with options that those of the testbed do not have.

use std::io::BufRead;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server that ends with its test, and also if the test process is killed.
pub(crate) struct Process {
    port: u16,
    /// Waits for the end of its standard input, which the test holds, and then ends the server.
    keeper: Child,
    _store: tempfile::TempDir,
}

impl Process {
    pub(crate) fn start(options: &[&str]) -> Self {
        let installed =
            Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbed/nats")).arg("install").status();
        assert!(installed.unwrap().success());
        let store = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let keeper = Command::new("bash")
            .args(["-c", r#"setpriv --pdeathsig KILL -- "$@" </dev/null & cat >/dev/null; kill -KILL $!"#, "keeper"])
            .arg(binary())
            .args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--store_dir", store.path().to_str().unwrap()])
            .args(options)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Self { port, keeper, _store: store };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !process.answers() {
            assert!(Instant::now() < deadline, "no server with {options:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        process
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn answers(&self) -> bool {
        let Ok(stream) = TcpStream::connect(("127.0.0.1", self.port)) else {
            return false;
        };
        let mut line = String::new();
        std::io::BufReader::new(stream).read_line(&mut line).is_ok() && line.starts_with("INFO")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ended = self.keeper.wait();
    }
}

fn binary() -> PathBuf {
    let versions = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbed/versions")).unwrap();
    let version = versions.lines().find_map(|line| line.strip_prefix("NATS=")).unwrap();
    let cache = std::env::var_os("TRACED_BROKER_CACHE").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/traced-broker");
    cache.unwrap_or_else(home).join(format!("nats-{version}/nats-server"))
}
