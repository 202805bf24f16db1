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

enum Entry {
    Open { store: Weak<Store>, sync: bool, thread: JoinHandle<()> },
    Offline,
}

/// Opens the directory, or returns the store that has it open. Blocks.
pub(crate) fn open(directory: &Path, sync: bool) -> Result<Arc<Store>> {
    let mut open = OPEN.lock();
    let path = canonical(directory).map_err(|error| failed("the directory cannot be created", error))?;
    match open.get(&path) {
        None => {}
        Some(Entry::Offline) => {
            return Err(Error::new(ErrorKind::Unavailable, "the directory is out of use; try again later"));
        }
        Some(Entry::Open { store, sync: other, .. }) => {
            if let Some(store) = store.upgrade().filter(|store| !store.queue.is_killed()) {
                let message = "the directory is open in this process with another value of sync";
                return if *other == sync { Ok(store) } else { Err(Error::new(ErrorKind::Conflict, message)) };
            }
        }
    }
    if let Some(Entry::Open { thread, .. }) = open.remove(&path) {
        // The thread finishes its commands, and then releases its lock. Its result does not matter.
        let _ = thread.join();
    }
    let (store, thread) = Store::open(&path, sync)?;
    let store = Arc::new(store);
    open.insert(path, Entry::Open { store: Arc::downgrade(&store), sync, thread });
    Ok(store)
}

/// A directory that is out of use in this process, until this is dropped.
#[derive(Debug)]
pub struct Offline(PathBuf);

impl Offline {
    /// Closes the directory as a kill does: operations in progress end with an unknown outcome, and
    /// unsettled messages are redelivered once it is in use again. Connections wait until then.
    /// Blocks until the files are closed.
    ///
    /// # Errors
    /// If the directory cannot be found.
    pub fn take(directory: impl AsRef<Path>) -> io::Result<Self> {
        let path = canonical(directory.as_ref())?;
        let mut open = OPEN.lock();
        if let Some(Entry::Open { store, thread, .. }) = open.insert(path.clone(), Entry::Offline) {
            store.upgrade().into_iter().for_each(|store| store.queue.kill());
            let _ = thread.join();
        }
        Ok(Self(path))
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        OPEN.lock().remove(&self.0);
    }
}

fn canonical(directory: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(directory)?;
    fs::canonicalize(directory)
}
