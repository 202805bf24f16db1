//! The conformance kit on directories of this machine.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tempfile::TempDir;
use traced_broker::conformance::{self, Harness, Killable};
use traced_broker::driver::Driver;
use traced_broker::{Error, ErrorKind, Result};
use traced_broker_files::{Files, Offline};

/// The variable with the directory of another process.
const DIRECTORY: &str = "TRACED_BROKER_FILES_DIRECTORY";

/// One directory that all cases share.
struct OneDirectory(PathBuf);

#[async_trait]
impl Harness for OneDirectory {
    fn name(&self) -> &str {
        "files"
    }

    async fn connect(&self) -> Result<Arc<dyn Driver>> {
        Ok(Arc::new(Files::connect(&url_of(&self.0).parse()?).await?))
    }

    fn own_attributes(&self) -> &[&str] {
        &["messaging.files.number"]
    }

    async fn connect_with_secret(&self, secret: &str) -> Result<Arc<dyn Driver>> {
        let url = format!("files://user:{secret}@{}", self.0.display());
        Ok(Arc::new(Files::connect(&url.parse()?).await?))
    }

    async fn start_mortal(&self) -> Result<Option<Arc<dyn Killable>>> {
        Ok(Some(Arc::new(OwnDirectory { directory: Arc::new(directory()), down: Mutex::new(None) })))
    }

    async fn connect_to_check(&self) -> Result<Option<Arc<dyn Driver>>> {
        let url = format!("{}?topology=check", url_of(&self.0));
        Ok(Some(Arc::new(Files::connect(&url.parse()?).await?)))
    }
}

/// A directory for one case, and whether it is down.
struct OwnDirectory {
    directory: Arc<TempDir>,
    down: Mutex<Option<Offline>>,
}

#[async_trait]
impl Killable for OwnDirectory {
    async fn connect(&self) -> Result<Arc<dyn Driver>> {
        Ok(Arc::new(Files::connect(&url_of(self.directory.path()).parse()?).await?))
    }

    /// The broker lives in the process of its clients, so a signal would kill both. Instead, this
    /// drops the broker's memory, and leaves half a record behind each journal.
    async fn kill(&self) -> Result<()> {
        let directory = Arc::clone(&self.directory);
        let down = blocking(move || {
            let down = Offline::take(directory.path());
            tear(directory.path());
            down
        });
        let down = down.await?.map_err(|error| Error::new(ErrorKind::Unexpected, error.to_string()))?;
        *self.down.lock() = Some(down);
        Ok(())
    }

    async fn restart(&self) -> Result<()> {
        *self.down.lock() = None;
        self.connect().await?.ping().await
    }

    /// A real crash: this program again, which is killed wherever it stands.
    fn other_process(&self) -> Option<Command> {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.env(DIRECTORY, self.directory.path());
        Some(command)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::new(ErrorKind::Unexpected, error.to_string()))
}

/// Adds to each journal the beginning of a record without its end.
fn tear(directory: &Path) {
    for topic in fs::read_dir(directory.join("topics")).expect("there are topics") {
        let journal = topic.expect("a topic").path().join("journal");
        let mut file = File::options().append(true).open(journal).expect("every topic has a journal");
        file.write_all(&[200, 0, 0, 0, 1, 2, 3, 4, 5]).expect("the journal can be written");
    }
}

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory")
}

fn url_of(directory: &Path) -> String {
    format!("files://{}", directory.display())
}

fn main() -> ExitCode {
    // Another process works in the directory that it is given.
    let own = directory();
    let path = std::env::var_os(DIRECTORY).map_or_else(|| own.path().to_owned(), PathBuf::from);
    conformance::main(vec![Arc::new(OneDirectory(path))])
}
