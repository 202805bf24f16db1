//! A server in a separate process, and the signals that a test sends to it.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::kind::Kind;
use super::place::{free_ports, new_directory};

/// Maximum duration from a server's start to its first answer. The slowest takes five seconds on an
/// idle machine.
const START: Duration = Duration::from_secs(90);
/// Maximum duration of a server's stop. The scripts kill it after ten seconds.
const END: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// A running server on 127.0.0.1, with a folder and a port that it keeps over restarts. Dropping it
/// ends the server and removes the folder, unless the test is failing or the folder was placed by
/// `TRACED_BROKER_TEST_DIR`.
///
/// All calls block until they have taken effect. Asynchronous tests need a multi-threaded runtime,
/// so that the clients under test continue meanwhile.
pub(crate) struct Server {
    kind: Kind,
    port: u16,
    /// Additional environment variables of its script.
    environment: Vec<(&'static str, String)>,
    directory: TempDir,
    /// The script that runs the server for as long as this process holds its standard input.
    keeper: Mutex<Child>,
}

impl Server {
    /// Starts a server on a free port, installs it first if it is missing, and waits until it
    /// answers in its protocol.
    ///
    /// # Panics
    /// If that fails, with the end of its log.
    pub(crate) fn start(kind: Kind) -> Self {
        Self::try_start(kind).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Like [`start`](Self::start), but returns the failure as text.
    pub(crate) fn try_start(kind: Kind) -> Result<Self, String> {
        Self::try_start_at(kind, Self::free_port(kind), Vec::new())
    }

    /// Starts a server at this port and those after it, with additional environment variables for
    /// its script.
    ///
    /// # Panics
    /// Same as [`start`](Self::start).
    pub(crate) fn start_at(kind: Kind, port: u16, environment: Vec<(&'static str, String)>) -> Self {
        Self::try_start_at(kind, port, environment).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Returns a free port, followed by as many free ports as a server of this kind needs.
    pub(crate) fn free_port(kind: Kind) -> u16 {
        free_ports(kind.ports())
    }

    /// Like [`start_at`](Self::start_at), but returns the failure as text.
    pub(crate) fn try_start_at(
        kind: Kind,
        port: u16,
        environment: Vec<(&'static str, String)>,
    ) -> Result<Self, String> {
        let installed = kind.script("install").status().map_err(|e| format!("{kind:?}: cannot run its script: {e}"))?;
        if !installed.success() {
            return Err(format!("{kind:?}: not installed, the script says why on standard error"));
        }
        let directory = new_directory(kind).map_err(|e| format!("{kind:?}: cannot make a folder for it: {e}"))?;
        let keeper = serve(kind, directory.path(), port, &environment)
            .map_err(|e| format!("{kind:?}: cannot run its script: {e}"))?;
        let server = Self { kind, port, environment, directory, keeper: Mutex::new(keeper) };
        match server.wait_until_ready() {
            Ok(()) => Ok(server),
            Err(why) => Err(server.abandon(&why)),
        }
    }

    /// Returns the address to connect to, such as `kafka://127.0.0.1:12345`.
    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.kind.scheme(), self.port)
    }

    /// Returns the kind of this server.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the port, which is the first one if its kind has several.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the process id of the server itself. After a kill it is the id of the dead process.
    pub(crate) fn pid(&self) -> u32 {
        let path = self.directory.path().join("pid");
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
        text.trim().parse().unwrap_or_else(|e| panic!("no process id in {}: {e}", path.display()))
    }

    /// Returns `true` if it answers in its protocol within two seconds.
    pub(crate) fn answers(&self) -> bool {
        let mut ready = self.kind.script("ready");
        ready.arg(self.port.to_string()).envs(self.environment.iter().cloned()).stderr(Stdio::null());
        ready.status().is_ok_and(|status| status.success())
    }

    /// Returns the directory of its log, data and pid file.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Sends SIGKILL and waits until the server is gone. Its written data stays for
    /// [`restart`](Self::restart).
    pub(crate) fn kill(&self) {
        self.signal("KILL");
        self.wait_for_end();
    }

    /// Restarts it with the same port and data, and waits until it answers; a running server is
    /// asked to stop first.
    pub(crate) fn restart(&self) {
        // Closing standard input is the request to stop; after the server's death it has no effect.
        drop(self.keeper().stdin.take());
        self.wait_for_end();
        let keeper = serve(self.kind, self.directory.path(), self.port, &self.environment)
            .unwrap_or_else(|e| panic!("{:?}: cannot run its script: {e}", self.kind));
        *self.keeper() = keeper;
        if let Err(why) = self.wait_until_ready() {
            panic!("after a restart: {why}\n{}", self.log_tail());
        }
    }

    /// Sends SIGSTOP: connections stay open, and no request is answered.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
        // The signal takes effect thread by thread: on a busy machine one may still answer.
        let threads = format!("/proc/{}/task", self.pid());
        let deadline = Instant::now() + START;
        while !all_stopped(&threads) {
            assert!(Instant::now() < deadline, "{:?}: it does not stop", self.kind);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// Calls the command of RabbitMQ's operators and returns its output.
    ///
    /// # Errors
    /// Its output, if it fails.
    pub(crate) fn rabbitmqctl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.directory().join("rabbitmqctl"));
        let output = command.args(arguments).stdin(Stdio::null()).output().map_err(|e| format!("rabbitmqctl: {e}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if !output.status.success() {
            return Err(format!("rabbitmqctl {arguments:?}: {} {}", text(&output.stdout), text(&output.stderr)));
        }
        Ok(text(&output.stdout))
    }

    /// Returns a call of one of Kafka's operator commands, by the name of its class.
    pub(crate) fn kafka_tool(&self, class: &str) -> Command {
        let libraries = fs::read_to_string(self.directory().join("libs")).unwrap_or_default();
        let mut command = Command::new("java");
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]);
        command.arg(format!("{}/*", libraries.trim())).arg(class).stdin(Stdio::null());
        command
    }

    fn keeper(&self) -> MutexGuard<'_, Child> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, name: &str) {
        let pid = self.pid();
        let sent = send_signal(name, pid);
        assert!(sent, "{:?}: no process {pid} to send SIG{name} to", self.kind);
    }

    fn wait_until_ready(&self) -> Result<(), String> {
        let deadline = Instant::now() + START;
        loop {
            let ready = self.answers();
            // Checked second, so that the answer can only have come from the server that is running
            // now.
            if let Ok(Some(status)) = self.keeper().try_wait() {
                return Err(format!("{:?}: the server ended while starting ({status})", self.kind));
            }
            if ready {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{:?}: no answer on port {} within {START:?}", self.kind, self.port));
            }
            thread::sleep(PAUSE);
        }
    }

    fn wait_for_end(&self) {
        let deadline = Instant::now() + END;
        while let Ok(None) = self.keeper().try_wait() {
            assert!(Instant::now() < deadline, "{:?}: still running after {END:?}", self.kind);
            thread::sleep(PAUSE);
        }
    }

    /// Gives up a server that did not start, keeps its folder, and returns the reason with the end
    /// of its log.
    fn abandon(mut self, why: &str) -> String {
        self.directory.disable_cleanup(true);
        format!("{why}\n{}", self.log_tail())
    }

    fn log_tail(&self) -> String {
        let path = self.directory.path().join("log");
        let log = fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n");
        format!("--- the end of {} ---\n{tail}", path.display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            self.directory.disable_cleanup(true);
            report(&format!("{:?}: its log and data are kept in {}", self.kind, self.directory.path().display()));
        }
        // The data is not read after this, so a graceful stop is not needed. This must not panic: a
        // second panic would abort the process and hide the first.
        let alive = matches!(self.keeper().try_wait(), Ok(None));
        let pid = fs::read_to_string(self.directory.path().join("pid")).ok().and_then(|text| text.trim().parse().ok());
        if let (true, Some(pid)) = (alive, pid) {
            send_signal("KILL", pid);
        }
        drop(self.keeper().stdin.take());
        let _ended = self.keeper().wait();
    }
}

/// Starts the script that runs the server; the script's output goes to the server's log.
fn serve(kind: Kind, directory: &Path, port: u16, environment: &[(&'static str, String)]) -> io::Result<Child> {
    // The file still contains the process id of the previous server.
    let _absent = fs::remove_file(directory.join("pid"));
    let log = File::options().create(true).append(true).open(directory.join("log"))?;
    kind.script("serve")
        .arg(directory)
        .arg(port.to_string())
        .envs(environment.iter().cloned())
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

/// Returns `true` if the signal could be sent, that is, if the process exists.
pub(crate) fn send_signal(name: &str, pid: u32) -> bool {
    // The shell's built-in `kill`, because not every machine has the program of that name.
    Command::new("bash")
        .args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[expect(clippy::print_stderr, reason = "belongs to the output of the failing test")]
fn report(line: &str) {
    eprintln!("{line}");
}

/// Returns `true` if every thread listed in that folder is stopped, or if there is no such folder.
fn all_stopped(threads: &str) -> bool {
    let Ok(threads) = fs::read_dir(threads) else { return true };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The command name, in parentheses, may contain any character; the state follows it.
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['T', 't']))
    })
}
