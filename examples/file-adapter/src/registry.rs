//! The open directories of this process: connections to one directory share it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Weak};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use traced_broker::{Error, ErrorKind, Result};

use crate::store::{Store, failed};

/// The directories by canonical path. An entry whose store is gone stays until the directory is
/// reopened, because its thread may still be working.
static OPEN: LazyLock<Mutex<HashMap<PathBuf, Entry>>> = LazyLock::new(Mutex::default);

struct Entry {
    store: Weak<Store>,
    sync: bool,
    thread: JoinHandle<()>,
}

/// Opens the directory, or returns the store that has it open. Blocks.
pub(crate) fn open(directory: &Path, sync: bool) -> Result<Arc<Store>> {
    let mut open = OPEN.lock();
    let path = canonical(directory).map_err(|error| failed("the directory cannot be created", error))?;
    if let Some(entry) = open.remove(&path) {
        if let Some(store) = entry.store.upgrade().filter(|store| !store.queue.is_killed()) {
            let same = entry.sync == sync;
            open.insert(path, entry);
            let message = "the directory is open in this process with another value of sync";
            return if same { Ok(store) } else { Err(Error::new(ErrorKind::Conflict, message)) };
        }
        // The thread finishes its commands, and then releases its lock. Its result does not matter.
        let _ = entry.thread.join();
    }
    let (store, thread) = Store::open(&path, sync)?;
    let store = Arc::new(store);
    open.insert(path, Entry { store: Arc::downgrade(&store), sync, thread });
    Ok(store)
}

/// Closes the directory as a kill does, and keeps it closed until `work` is done. Blocks.
pub(crate) fn offline<T>(directory: &Path, work: impl FnOnce() -> T) -> io::Result<T> {
    let mut open = OPEN.lock();
    if let Some(entry) = open.remove(&canonical(directory)?) {
        entry.store.upgrade().into_iter().for_each(|store| store.queue.kill());
        let _ = entry.thread.join();
    }
    Ok(work())
}

fn canonical(directory: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(directory)?;
    fs::canonicalize(directory)
}
