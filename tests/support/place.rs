//! A server's folder and port.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

use tempfile::TempDir;

use super::kind::Kind;

/// Creates a folder for one server.
///
/// If `TRACED_BROKER_TEST_DIR` is set, the folder is created there, and the caller that set it has
/// to remove it. Otherwise it is in the build folder and is removed with its server; the folder of
/// a shared server, which is never dropped, is removed by a later run.
pub(super) fn new_directory(kind: Kind) -> io::Result<TempDir> {
    let given = std::env::var_os("TRACED_BROKER_TEST_DIR").map(PathBuf::from);
    let parent = given.clone().unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("testbed"));
    fs::create_dir_all(&parent)?;
    if given.is_none() {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(|| sweep(&parent));
    }
    let prefix = format!("{}-{}-", kind.script_name(), std::process::id());
    let mut directory = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent)?;
    directory.disable_cleanup(given.is_some());
    Ok(directory)
}

/// Removes the folders whose owner is gone. Their names contain its process id before the last
/// hyphen: `redis-8-1234-a1b2c3`.
fn sweep(parent: &Path) {
    if !Path::new("/proc/self").exists() {
        return;
    }
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for folder in entries.map(|entry| entry.path()) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let owner = name.rsplit('-').nth(1).unwrap_or_default();
        if !owner.is_empty() && !Path::new("/proc").join(owner).exists() {
            // A folder that another process also sweeps may already be gone.
            let _gone = fs::remove_dir_all(&folder);
        }
    }
}

/// Returns the first of this many consecutive free ports. No other process takes them before this
/// one ends: a server may bind to its port seconds after it was chosen.
///
/// They are below the range from which the kernel picks the local ports of connections (32768 and
/// up). Otherwise a client that repeatedly tries to reach a killed server would sooner or later be
/// given the server's port, connect to itself, and keep the server from restarting.
pub(super) fn free_ports(in_a_row: u16) -> u16 {
    static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let locks = cache().join("ports");
    fs::create_dir_all(&locks).expect("a folder for the locks of ports");
    // The standard library's only source of randomness.
    let chance = RandomState::new();
    let mut drawn = (0..1_000_000).map(|attempt: u32| 10_000 + (chance.hash_one(attempt) % 20_000) as u16);
    let hold = |port: u16| {
        let lock = File::create(locks.join(port.to_string())).ok()?;
        (lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok()).then_some(lock)
    };
    let mut locked = None;
    let found = drawn.find(|first| {
        locked = (*first..first + in_a_row).map(hold).collect::<Option<Vec<File>>>();
        locked.is_some()
    });
    HELD.lock().unwrap_or_else(PoisonError::into_inner).extend(locked.into_iter().flatten());
    found.unwrap_or_else(|| panic!("no {in_a_row} ports in a row are free from 10000 on"))
}

/// Returns the cache of the scripts in `tests/testbed`.
fn cache() -> PathBuf {
    let home = || std::env::home_dir().unwrap_or_default().join(".cache/traced-broker");
    std::env::var_os("TRACED_BROKER_CACHE").map_or_else(home, PathBuf::from)
}
